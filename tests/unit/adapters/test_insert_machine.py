"""Any order of putting in, taking out, switching and routing leaves the model computing what it should."""

import copy

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from adapters.config import AdapterConfig
from adapters.insert import activate, active, attach, build, names, remove, route
from tests.tiny_models import tiny_model

TOKENS = torch.arange(5, 17)[None]


def hidden(model):
    with torch.no_grad():
        return model(TOKENS).last_hidden_state


class InsertMachine(RuleBasedStateMachine):
    inside = Bundle("inside")

    @initialize(family=st.sampled_from(["bert", "distilbert", "gpt2"]))
    def start(self, family):
        self.model = tiny_model(family, layers=2)
        self.alone = hidden(self.model)
        self.keys = list(self.model.state_dict())
        self.outputs = {}
        self.active = None
        self.count = 0

    @rule(target=inside, placement=st.sampled_from(["houlsby", "pfeiffer", "attention", "parallel"]))
    def put_in(self, placement):
        self.count += 1
        name = f"adapter_{self.count}"
        config = AdapterConfig(bottleneck_dim=3, placement=placement, initialization="xavier")
        adapter = build(config, self.model.config, torch.Generator().manual_seed(self.count))
        # What it should compute is learnt from a model of its own.
        twin = tiny_model(self.model.config.model_type, layers=2)
        attach(twin, adapter, name)
        self.outputs[name] = hidden(twin)
        attach(self.model, remove(twin, name), name)
        self.active = name
        return name

    @rule(name=consumes(inside))
    def take_out(self, name):
        remove(self.model, name)
        del self.outputs[name]
        if self.active == name:
            self.active = None

    @rule(name=st.one_of(st.none(), inside))
    def switch(self, name):
        activate(self.model, name)
        self.active = name

    @rule(name=inside)
    def route_all(self, name):
        with route(self.model, [(name, 0, TOKENS.shape[1])]):
            assert torch.equal(hidden(self.model), self.outputs[name])

    @rule()
    def copy_it(self):
        self.model = copy.deepcopy(self.model)

    @invariant()
    def it_computes_what_it_should(self):
        expected = self.alone if self.active is None else self.outputs[self.active]
        assert torch.equal(hidden(self.model), expected)
        assert active(self.model) == self.active
        assert set(names(self.model)) == set(self.outputs)
        if not self.outputs:
            assert list(self.model.state_dict()) == self.keys
            assert all(parameter.requires_grad for parameter in self.model.parameters())


InsertMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestInsertMachine = InsertMachine.TestCase
