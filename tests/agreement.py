"""What must hold of any study, however often it was interrupted."""

from __future__ import annotations

import hashlib

import optuna
from optuna.trial import TrialState

from sweeper.session import Session


def optuna_trials(session: Session) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=session.name, storage=session.home.store_url).trials


def check_agrees(session: Session, trials: int) -> None:
    """Ledger and Optuna hold the same N results, each once, and every file is there."""
    views = [view for view in session.ledger.trials(session.name) if view.kind == "search"]
    assert len(views) == trials and session.ledger.untold(session.name) == []
    told = {trial.number: trial for trial in optuna_trials(session)}
    states = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}
    curves = session.ledger.curves(session.name)
    for view in views:
        if view.number is None:  # its workers died before it became a trial, too often
            assert view.state == "failed"
            continue
        trial = told.pop(view.number)
        assert trial.state == states[view.state] and trial.params == view.params
        assert trial.user_attrs["place"] == view.place_id
        if view.state == "complete":
            assert trial.value == view.objective
        expected = dict(enumerate(curves.get(view.place_id, []), start=1))
        assert trial.intermediate_values == expected
        for path, digest in view.files.items():
            assert hashlib.sha256((session.home.artifacts / path).read_bytes()).hexdigest() == digest
    # Whatever else Optuna has used up a number, and counts for nothing.
    for trial in told.values():
        assert trial.user_attrs.get("hidden") or trial.user_attrs.get("past_limits"), trial
