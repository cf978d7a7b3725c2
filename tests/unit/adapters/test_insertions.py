"""Adapters put in and taken out again leave a model, and the memory of its process, as they were."""

import gc

import torch

from adapters.config import AdapterConfig
from adapters.insert import insert, names, remove
from tests.tiny_models import tiny_model
from tests.unit.adapters.test_insert import flags_of, hidden, hooks_of

KINDS = [
    {"bottleneck_dim": 4, "placement": "houlsby"},
    {"bottleneck_dim": 4, "placement": "pfeiffer_original", "learned_scaling": "channel"},
    {"bottleneck_dim": 4, "placement": "parallel"},
    {"method": "lora", "rank": 2},
    {"method": "dora", "rank": 2},
    {"method": "ia3"},
    {"method": "compacter", "bottleneck_dim": 4},
    {"method": "loreft", "rank": 2},
    {"method": "prefix", "prefix_length": 2},
    {"method": "prompt", "prompt_length": 2},
    {"method": "mam", "bottleneck_dim": 4, "prefix_length": 2},
    {"method": "bitfit"},
    {"method": "ladder", "bottleneck_dim": 4},
    {"method": "head"},
]


def live() -> int:
    gc.collect()
    return sum(1 for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))


def test_a_hundred_adapters_in_turn_leave_memory_and_outputs_as_they_were(tokens):
    model = tiny_model("bert", layers=2)
    before, flags, hooks = hidden(model, tokens), flags_of(model), hooks_of(model)
    counts, changed = [], 0
    for number in range(100):
        config = AdapterConfig(**KINDS[number % len(KINDS)])
        generator = torch.Generator().manual_seed(number)
        adapter = insert(model, config, f"turn-{number}", generator=generator)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator))
            found = hidden(model, tokens)
        changed += not torch.equal(found, before)
        remove(model, f"turn-{number}")
        del adapter, found
        if number % 33 == 0:
            counts.append(live())
    assert changed >= 100 - 100 // len(KINDS) - 1  # all but the head alone
    assert torch.equal(hidden(model, tokens), before)
    assert (flags_of(model), hooks_of(model), names(model)) == (flags, hooks, ())
    assert counts[1:] == [counts[1]] * len(counts[1:])
