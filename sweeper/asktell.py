"""Optuna beside the ledger: a trial for each claim, filled in by the sampler, and told its result.

Everything here can be done again: a trial carries the place that it was made for, so whoever comes after a
crash finds it; a trial that was told is left as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from sweeper.errors import UsageError
from sweeper.front import values_of
from sweeper.home import Home
from sweeper.ledger import Claim, Ledger, Untold
from sweeper.ledger.database import (
    BUSY_SECONDS,
    Database,
    end_stalled_transactions,
    failures,
    parse_url,
    server_options,
    store_errors,
)
from sweeper.sampling import sampler_of
from sweeper.space import Params, suggest
from sweeper.study import Study

if TYPE_CHECKING:
    import optuna
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial, TrialState

_Answer = TypeVar("_Answer")
PLACE, ATTEMPT, HIDDEN, PAST_LIMITS = "place", "attempt", "hidden", "past_limits"
"""User attributes of a trial: whose it is, and why it counts for nothing."""
NOT_FOUND = "Record does not exist"
"""What Optuna's storage says where a study or a trial is not there; its error is a KeyError."""
WARM = "warm_start"
"""A user attribute of a study: what it took over from earlier ones."""


def create_optuna_tables(home: Home) -> None:
    """Make Optuna's tables, or bring older ones up to date. One process at a time.

    Raises:
        UnreachableError: the database fails.
    """
    with optuna_errors(home):
        storage = _storage(home, create=True, any_version=True)
        if storage.get_current_version() != storage.get_head_version():
            storage.upgrade()


def create_optuna_study(home: Home, study: Study, warm: Mapping[str, Any] | None = None) -> None:
    """Make Optuna's tables, if they are not there, and its study. One process at a time.

    Args:
        warm: what is taken over from earlier studies (``warmstart.Taken.to_dict``); kept with the study.

    Raises:
        UsageError: somebody has a study of this name in Optuna's tables.
        UnreachableError: the database fails.
    """
    import optuna

    with optuna_errors(home):
        storage = _storage(home, create=True)
        with suppress(KeyError):  # what a beginning that was interrupted left, of another study file perhaps
            left = optuna.load_study(study_name=study.name, storage=storage).get_trials(deepcopy=False)
            if any(PLACE not in trial.user_attrs for trial in left):
                raise UsageError(
                    f"the store has an Optuna study {study.name!r} already, whose trials are of another "
                    "program: give this study another name",
                    study.path,
                    study.line("study"),
                )
            optuna.delete_study(study_name=study.name, storage=storage)
        made = optuna.create_study(
            storage=storage,
            study_name=study.name,
            directions=[
                "maximize" if objective.direction == "maximize" else "minimize"
                for objective in study.objectives
            ],
        )
        if warm is not None:
            made.set_user_attr(WARM, dict(warm))


def warm_notes(home: Home, study: Study) -> list[str]:
    """What a study took over from earlier ones, and what it left: a sentence for each of them."""
    import optuna

    with optuna_errors(home, study.name):
        storage = _storage(home, create=False)
        attributes = optuna.load_study(study_name=study.name, storage=storage).user_attrs
    return list(attributes.get(WARM, {}).get("notes", ()))


def delete_optuna_study(home: Home, name: str) -> None:
    """Delete Optuna's study and its trials, if they are there. One process at a time."""
    import optuna

    with optuna_errors(home), suppress(KeyError):
        optuna.delete_study(study_name=name, storage=_storage(home, create=False))


class Trials:
    """The trials of a study in Optuna's storage.

    Args:
        home: of the store.
        study: whose Optuna study is there.
        patience_seconds: how long a server that is away is waited for.
    """

    def __init__(self, home: Home, study: Study, patience_seconds: float = 0.0) -> None:
        import optuna

        from sweeper.warmstart import frozen

        self._home = home
        self._study = study
        self._database = Database(home.store_url, patience_seconds)

        def load() -> tuple[optuna.Study, list[FrozenTrial]]:
            sampler = sampler_of(study, study.seed, 0)
            storage = _storage(home, create=False)
            self._failures = failures(storage.engine)
            own = optuna.load_study(study_name=study.name, storage=storage, sampler=sampler)
            return own, frozen(study, own.user_attrs.get(WARM, {}).get("trials", ()))

        own, self._earlier = self._patiently(load)
        self._optuna = _with_earlier_trials(own, self._earlier)

    @property
    def _storage(self) -> BaseStorage:
        return self._optuna._storage

    def _patiently(self, call: Callable[[], _Answer]) -> _Answer:
        """Call once, or again while the store's server is away: whatever was done is found."""
        from optuna.exceptions import StorageInternalError

        with optuna_errors(self._home, self._study.name):
            return self._database.patiently(call, StorageInternalError)

    def create(self, claim: Claim) -> tuple[int, int]:
        """Make a RUNNING trial for a claim, or find that of its place; returns (number, id)."""
        # A place that is taken for the first time has no trial yet, unless an earlier try here made one.
        # To look for it is to read every trial that runs.
        may_be_there = claim.attempt > 1

        def once() -> tuple[int, int]:
            nonlocal may_be_there
            looks, may_be_there = may_be_there, True
            return self._create(claim, self._running() if looks else [])

        return self._patiently(once)

    def _create(self, claim: Claim, running: list[FrozenTrial]) -> tuple[int, int]:
        there = [trial for trial in running if trial.user_attrs.get(PLACE) == claim.place_id]
        for surplus in there[1:]:
            self._hide(surplus._trial_id)
        if there:
            trial_id = there[0]._trial_id
            self._storage.set_trial_user_attr(trial_id, ATTEMPT, claim.attempt)
        else:
            before = self._failures()
            trial_id = self._storage.create_new_trial(self._optuna._study_id, _template(claim))
            if self._failures() > before:  # Optuna tried again by itself: there may be two now
                return self._create(claim, self._running())
        return self._storage.get_trial_number_from_id(trial_id), trial_id

    def fill_in(self, number: int, trial_id: int) -> Params:
        """Draw what the trial does not have yet."""
        import optuna

        def draw() -> Params:
            # Drawn from (seed, number): a worker that starts again does not repeat another trial's draws.
            # And by a study that was just opened: one that has drawn before sees the trials of that time.
            # A Gaussian process learns from complete trials alone, and would be refused for the same again.
            at_random = self._study.sampler.name == "gp" and self._was_refused(trial_id)
            sampler = sampler_of(self._study, self._study.seed, number, at_random=at_random)
            own = optuna.Study(self._study.name, self._storage, sampler=sampler)
            return suggest(optuna.Trial(_with_earlier_trials(own, self._earlier), trial_id), self._study)

        return self._patiently(draw)

    def _was_refused(self, trial_id: int) -> bool:
        """Whether an earlier trial of the same place was past the limits."""
        place = self._storage.get_trial(trial_id).user_attrs.get(PLACE)
        return any(
            trial.user_attrs.get(PAST_LIMITS) and trial.user_attrs.get(PLACE) == place
            for trial in self._storage.get_all_trials(self._optuna._study_id, deepcopy=False)
        )

    def constrain(self, trial_id: int, excess: Mapping[str, float]) -> None:
        """Tell the sampler by how much the trial is past each limit; 0 or less is within."""

        def note() -> None:
            there = self._storage.get_trial_system_attrs(trial_id)
            for limit, value in sorted(excess.items()):  # in this order SQLite has them in any case
                key = f"constraints:{limit}"  # as Trial.set_constraint has it, which would draw once more
                if key not in there:
                    self._storage.set_trial_system_attr(trial_id, key, float(value))

        self._patiently(note)

    def refuse(self, trial_id: int) -> None:
        """End a trial that is past the limits: pruned, without a value."""
        from optuna.trial import TrialState

        self._patiently(lambda: self._end(trial_id, PAST_LIMITS, TrialState.PRUNED))

    def tell(self, untold: Untold) -> None:
        """Tell a result; does nothing if that was done."""
        self._patiently(lambda: self._tell(untold))

    def _tell(self, untold: Untold) -> None:
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        state = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(
            untold.state, TrialState.FAIL
        )
        # A failed trial has no value in Optuna; what it reached before is in its intermediate values.
        names = [objective.metric for objective in self._study.objectives]
        several = len(names) > 1
        known = {**untold.metrics, names[0]: untold.objective} if untold.objective is not None else {}
        values = None if state is TrialState.FAIL else values_of(names, known, None)
        if state is TrialState.COMPLETE and values is None:
            state = TrialState.FAIL  # Optuna has no complete trial without a value
        try:
            # Optuna has intermediate values for one objective alone.
            for evaluation, value in enumerate(() if several else untold.curve, start=1):
                self._storage.set_trial_intermediate_value(untold.trial_id, evaluation, value)
            self._storage.set_trial_state_values(untold.trial_id, state, values)
        except UpdateFinishedTrialError:
            return

    def finished(self) -> list[FrozenTrial]:
        """Every trial that has ended in Optuna's storage, by number."""
        trials = self._patiently(lambda: self._storage.get_all_trials(self._optuna._study_id, deepcopy=False))
        return [trial for trial in trials if trial.state.is_finished()]

    def hide_if_left_over(self, ledger: Ledger) -> int:
        """End RUNNING trials that no place will ever use: made twice, or for a place that has ended."""
        running = [trial for trial in self._patiently(self._running) if PLACE in trial.user_attrs]
        if not running:
            return 0
        places = {view.place_id: view for view in ledger.trials(self._study.name)}
        hidden = 0
        for trial in running:
            view = places.get(trial.user_attrs[PLACE])
            other = view is not None and view.number is not None and view.number != trial.number
            ended = view is not None and view.number is None and view.ended_at is not None
            if other or ended:
                self._patiently(partial(self._hide, trial._trial_id))
                hidden += 1
        return hidden

    def _running(self) -> list[FrozenTrial]:
        from optuna.trial import TrialState

        trials = self._storage.get_all_trials(
            self._optuna._study_id, deepcopy=False, states=(TrialState.RUNNING,)
        )
        return sorted(trials, key=lambda trial: trial.number)

    def _hide(self, trial_id: int) -> None:
        from optuna.trial import TrialState

        self._end(trial_id, HIDDEN, TrialState.FAIL)

    def _end(self, trial_id: int, because: str, state: TrialState) -> None:
        """End a trial that counts for nothing; does nothing if that was done."""
        from optuna.exceptions import UpdateFinishedTrialError

        try:
            self._storage.set_trial_user_attr(trial_id, because, True)
            self._storage.set_trial_state_values(trial_id, state)
        except UpdateFinishedTrialError:
            return


def _with_earlier_trials(own: optuna.Study, earlier: Sequence[FrozenTrial]) -> optuna.Study:
    """The study as its sampler is to see it: with the trials that it took over before its own."""
    import optuna

    if not earlier:
        return own

    class Warm(optuna.Study):
        def _get_trials(
            self, deepcopy: bool = True, states: Any = None, use_cache: bool = False
        ) -> list[FrozenTrial]:
            mine = super()._get_trials(deepcopy, states, use_cache)
            return [t for t in earlier if states is None or t.state in states] + mine

    return Warm(own.study_name, own._storage, sampler=own.sampler)


def _template(claim: Claim) -> FrozenTrial:
    """A trial that carries its place from its first moment: Optuna writes all of it in one transaction."""
    from datetime import datetime

    from optuna.trial import FrozenTrial, TrialState

    fixed: dict[str, Any] = {"fixed_params": claim.fixed_params} if claim.fixed_params else {}
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        values=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={PLACE: claim.place_id, ATTEMPT: claim.attempt},
        system_attrs=fixed,
        intermediate_values={},
    )


def _storage(home: Home, create: bool, any_version: bool = False) -> optuna.storages.RDBStorage:
    from optuna.storages import RDBStorage

    url = parse_url(home.store_url)
    options: dict[str, Any] = {"pool_size": 1, "max_overflow": 1, **server_options(url)}
    if url.get_backend_name() == "sqlite":
        options = {"connect_args": {"timeout": BUSY_SECONDS}}
    storage = RDBStorage(
        url.render_as_string(hide_password=False),
        engine_kwargs=options,
        skip_table_creation=not create,
        skip_compatibility_check=any_version,
    )
    end_stalled_transactions(storage.engine)
    return storage


@contextmanager
def optuna_errors(home: Home, study: str | None = None) -> Iterator[None]:
    """Failures of Optuna's storage as sentences, and no lines of its log for what is expected.

    Args:
        study: the name of one that is to be there.

    Raises:
        UnreachableError: the storage fails.
        UsageError: it has no such study, or no longer: a deletion takes it away before ours.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with store_errors(home.store_url, optuna.exceptions.StorageInternalError):
            yield
    except KeyError as error:
        if study is None or NOT_FOUND not in str(error):
            raise
        raise UsageError(
            f"the trials of the study {study} are gone from Optuna's tables: somebody deletes it, or was "
            f"interrupted while they did. `sweeper delete {study}` takes away what is left"
        ) from error


__all__ = ["Trials", "create_optuna_study", "delete_optuna_study", "optuna_errors"]
