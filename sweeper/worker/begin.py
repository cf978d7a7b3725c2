"""From a claim to a job: the trial that it becomes, or the reason why there is nothing to train."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from adapters.architectures import hidden_size
from adapters.config import AdapterConfig
from adapters.count import parameters_in
from sweeper import space
from sweeper.asktell import Trials
from sweeper.checkpoint import read_checkpoint
from sweeper.crash import point
from sweeper.finalists import HEAD, parse_label
from sweeper.frozen import kept_frozen
from sweeper.ledger import Attached, Claim, Result
from sweeper.ledger.confirmation import CONFIRM
from sweeper.ledger.records import NO_MODULE, PAST_THE_LIMIT
from sweeper.limits import Limits
from sweeper.session import Session
from sweeper.slot import Job
from sweeper.space import Configuration, Params

_LATER_FIELDS = {"learned_scaling": "none", "stochastic_depth": 0.0, "positions": "from_start"}
"""Fields that came after the first stores, with the values under which a configuration trains as without."""


@dataclass(frozen=True)
class Begun:
    """A claim with its trial, and what to train for it."""

    claim: Claim
    job: Job


class Beginner:
    """Turns claims into jobs.

    Args:
        session: the study.
        trials: its trials in Optuna.
        backbone_config: of the backbone.
        outputs: width of the heads.
    """

    def __init__(self, session: Session, trials: Trials, backbone_config: Any, outputs: int) -> None:
        self._session = session
        self._trials = trials
        self._backbone_config = backbone_config
        self._hidden_size = hidden_size(backbone_config)
        self._default = space.configuration(
            session.study, space.default_params(session.study, self._hidden_size)
        )
        self.limits = Limits(session.study, backbone_config, outputs)
        self._frozen = kept_frozen(session.study, session.home.artifacts)
        row = session.row
        about = [row.backbone_fingerprint, row.data_fingerprint, row.dtype, row.created_at]
        self._study = hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def begin(self, claim: Claim) -> Begun | None:
        """Create, attach, and the job; None if the claim has come to its end without training.

        Raises:
            LeaseLost: another worker has the place.
        """
        if claim.kind == CONFIRM:
            return self._confirmation(claim)
        return self._reference(claim) if claim.kind == "reference" else self._trial(claim)

    def is_default(self, claim: Claim) -> bool:
        """Whether a claim that has begun is of the default configuration: trial 0, or one that stands for it.

        What the others are measured against is always whole.
        """
        if claim.kind != "search" or claim.params is None:
            return False
        return space.configuration(self._session.study, claim.params) == self._default

    def _confirmation(self, claim: Claim) -> Begun:
        """A configuration that is known, or the head alone, under a seed that the search has not seen."""
        study, params = self._session.study, claim.fixed_params or {}
        found = space.configuration(study, params)
        what, index = parse_label(str(claim.label))
        adapter = None if what == HEAD else found.adapter
        own = 0 if adapter is None else parameters_in(adapter, self._backbone_config)
        attached = Attached(
            None, None, params, digest_of(found, claim.label), own, self.limits.head_parameters
        )
        self._session.ledger.attach(claim, attached)
        point("after_attach")
        # The same seeds for all that is compared.
        seed = space.trial_seed(study, f"confirm-{index}")
        return self._begun(claim, Job(claim.place_id, None, claim.attempt, adapter, found.train, seed))

    def _reference(self, claim: Claim) -> Begun:
        """The head alone, trained as the default configuration is."""
        study = self._session.study
        fixed = claim.fixed_params or {}
        params = {**space.default_params(study, self._hidden_size), **fixed}
        found = space.configuration(study, params)
        attached = Attached(None, None, fixed, digest_of(found, claim.label), 0, self.limits.head_parameters)
        self._session.ledger.attach(claim, attached)
        point("after_attach")
        seed = space.trial_seed(study, str(claim.label))
        return self._begun(claim, Job(claim.place_id, None, claim.attempt, None, found.train, seed))

    def _trial(self, claim: Claim) -> Begun | None:
        study, ledger = self._session.study, self._session.ledger
        number, trial_id, params = self._number_and_params(claim)
        found = space.configuration(study, params)
        attached = Attached(
            number,
            trial_id,
            params,
            digest_of(found, None),
            parameters_in(found.adapter, self._backbone_config),
            self.limits.head_parameters,
        )
        if self._past_limits(claim, attached, found.adapter):
            return None
        ledger.attach(claim, attached)
        point("after_attach")
        claim = replace(claim, trial_number=number, trial_id=trial_id, params=dict(params))
        if not study.budget.repeats:
            states = ("complete",) if self.is_default(claim) else ("complete", "pruned")
            if ledger.record_repeat(claim, attached.configuration, states) is not None:
                point("after_record")
                return None
        seed = space.trial_seed(study, number)
        job = Job(claim.place_id, number, claim.attempt, found.adapter, found.train, seed)
        return self._begun(claim, job)

    def _begun(self, claim: Claim, job: Job) -> Begun:
        """The job, from where an earlier attempt left it."""
        job = replace(job, study=self._study, frozen=self._frozen)
        if claim.attempt == 1:
            return Begun(claim, job)
        found = read_checkpoint(self._session.home.checkpoints, claim, job)
        if found is None:
            return Begun(claim, job)
        evaluations = found.state.numbers["evaluation"]
        self._session.ledger.adopt_metrics(claim, found.attempt, evaluations)
        return Begun(claim, replace(job, state=found.state))

    def _number_and_params(self, claim: Claim) -> tuple[int, int, Params]:
        """What an earlier attempt attached, or a trial of Optuna's with all its parameters."""
        if claim.trial_id is not None and claim.trial_number is not None and claim.params is not None:
            return claim.trial_number, claim.trial_id, claim.params
        number, trial_id = self._trials.create(claim)
        point("after_create")
        params = self._trials.fill_in(number, trial_id)
        point("after_suggest")
        return number, trial_id, params

    def _past_limits(self, claim: Claim, attached: Attached, adapter: AdapterConfig) -> bool:
        """Refuse a configuration past a limit: its place is free again, for another one."""
        if attached.trial_id is None:
            return False
        excess = self.limits.excess(attached.params, adapter)
        if not excess:
            return False
        self._trials.constrain(attached.trial_id, excess)
        past = {name: by for name, by in excess.items() if by > 0}
        if not past:
            return False
        self._trials.refuse(attached.trial_id)
        ledger, reason = self._session.ledger, _why(past)
        if not claim.budgeted or self._session.study.sampler.name == "grid":
            # Its parameters were asked for: another configuration would be an answer to another question.
            ledger.attach(claim, attached)
            ledger.record_result(claim, Result("pruned", reason=reason))
            return True
        ledger.release(claim, "past_limits", reason)
        return True


def _why(past: Mapping[str, int]) -> str:
    """Why a configuration is refused, from what it is past and by how much."""
    if space.NO_LAYER in past:
        return NO_MODULE
    return " and ".join(f"{by} {unit.replace('_', ' ')}" for unit, by in past.items()) + PAST_THE_LIMIT


def digest_of(configuration: Configuration, label: str | None) -> str:
    """Equal for configurations that train alike, also for those of a store that an earlier version wrote."""
    values = configuration.to_dict()
    for name, neutral in _LATER_FIELDS.items():
        if values.get(name) == neutral:
            del values[name]
    content = json.dumps([values, label], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()
