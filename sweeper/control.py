"""What a user says of a study while others work on it, from any machine that reaches the store.

    pause_study(ledger, "sst2")      # what came of it, as a sentence

Everything goes through the ledger: nobody is called, and whoever works on the study reads it there.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.lookup import find_trial
from sweeper.terminal import configuration, trial_name

if TYPE_CHECKING:
    from sweeper.home import Home
    from sweeper.ledger import Ledger, StudyRow, TrialView


def pause_study(ledger: Ledger, name: str) -> str:
    """Begin no more trials; those that run go on to their next evaluation and are handed back there.

    Raises:
        UsageError: the study has ended.
    """
    if ledger.study(name).is_paused:
        return f"{name} is paused already"
    if not ledger.pause(name):
        raise UsageError(f"the study {name} has ended ({ledger.study(name).ended_because}): nothing to pause")
    ways_on = f"`sweeper resume {name}` lets it go on"
    return f"{name} is paused{_handed_back(ledger, name, 'at the next evaluation')}; {ways_on}"


def stop_study(ledger: Ledger, name: str) -> str:
    """End a study: no trial begins any more, and those that run are handed back."""
    if not ledger.stop(name):
        row = ledger.study(name)
        return f"{name} is stopped already" if row.is_stopped else f"{name} has ended: {row.ended_because}"
    ways_on = f"`sweeper resume {name}` lets it go on"
    return f"{name} is stopped{_handed_back(ledger, name, 'now')}; {ways_on}"


def _handed_back(ledger: Ledger, name: str, when: str) -> str:
    count = sum(trial.state == "running" for trial in ledger.trials(name))
    return "" if count == 0 else f", and {_trials(count)} handed back {when}"


def _trials(count: int) -> str:
    return "1 trial that runs is" if count == 1 else f"{count} trials that run are"


def resume_study(ledger: Ledger, name: str) -> str:
    """Let a study go on that is paused or stopped.

    Raises:
        UsageError: it has ended for another reason, and nothing of it is left to be finished.
    """
    row = ledger.study(name)
    if ledger.resume(name):
        return f"{name} goes on{_who_trains(row)}"
    if row.ended_at is not None:
        if ledger.has_unfinished(name):
            return f"{name} has ended, but for what had begun{_who_trains(row)}"
        raise UsageError(
            f"the study {name} has ended ({row.ended_because}): raise its budget in the study file and run "
            f"it again, or add a trial with `sweeper enqueue {name} --set NAME=VALUE`"
        )
    return f"{name} is neither paused nor stopped: it goes on"


def _who_trains(row: StudyRow) -> str:
    """How to get workers for a study that may have none."""
    if row.is_paused:
        return ""
    return f": `sweeper run {shlex.quote(row.path)}` or `sweeper worker {row.name}` trains what is left of it"


def enqueue_trial(ledger: Ledger, name: str, assignments: Sequence[str]) -> tuple[TrialView, str]:
    """Add a trial with some parameters fixed, beside the budget; it is the next to begin.

    Args:
        assignments: ``NAME=VALUE`` each.

    Returns:
        the trial, which waits for a worker, and what came of it as a sentence.

    Raises:
        UsageError: nothing is set, or something that the study's space does not hold.
    """
    from sweeper.assignments import read_assignments
    from sweeper.study import from_dict

    row = ledger.study(name)
    if not assignments:
        raise UsageError("name what to try, such as --set bottleneck_dim=64; the sampler draws the rest")
    params = read_assignments(from_dict(row.spec, row.path, row.text), assignments)
    trial = ledger.trial(name, ledger.enqueue(name, params))
    budget = ledger.status(name)["budget"]["trials"]
    added = f"{name} has one trial more, {budget} in all: {configuration(params)}"
    return trial, f"{added}. It is the next to begin{_held_up(row)}"


def retry_trials(
    ledger: Ledger, name: str, trials: Sequence[str] = (), *, failed: bool = False
) -> tuple[list[TrialView], str]:
    """Add a trial with the same parameters for each that failed, linked to it; it is the next to begin.

    Args:
        trials: their numbers; or ``failed`` for every failed one that has no retry yet.

    Returns:
        the new trials, which wait for a worker, and what came of it as a sentence.

    Raises:
        UsageError: none or both are given, or one did not fail or has a retry already. Then none is added.
    """
    if failed == bool(trials):
        raise UsageError("name the trials to retry by their numbers, or give --failed for all that failed")
    row, views = ledger.study(name), ledger.trials(name)
    retried = {view.retry_of for view in views}
    if failed:
        chosen = [
            view
            for view in views
            if view.kind == "search" and view.state == "failed" and view.number not in retried - {None}
        ]
    else:
        chosen = list({v.place_id: v for v in (_failed(views, name, text) for text in trials)}.values())
    added = ledger.retry(name, [view.place_id for view in chosen])
    new = [ledger.trial(name, place_id) for place_id in added.values()]
    if not new:
        return [], f"no trial of {name} failed that has no retry yet"
    old = ", ".join(trial_name(view.to_json()) for view in chosen if view.place_id in added)
    return new, f"{name} tries again what failed: {old}{_held_up(row)}"


def _failed(views: Sequence[TrialView], name: str, text: str) -> TrialView:
    """A trial that can be retried."""
    view = find_trial(views, name, text)
    if view.kind != "search":
        raise UsageError(f"{view.name} is a reference run: only trials of the search can be retried")
    if view.state not in ("failed", "cancelled"):
        raise UsageError(f"{view.name} is {view.state}: only a trial that failed can be retried")
    again = next((other for other in views if other.retry_of == view.number), None)
    if again is not None:
        as_what = "and waits" if again.number is None else f"as {again.name}"
        raise UsageError(f"{view.name} has a retry already, {as_what}: retry that one if it fails, too")
    return view


def _held_up(row: StudyRow) -> str:
    if row.control is not None:
        return f"; {row.name} is {row.control}, and `sweeper resume {row.name}` lets it go on"
    return _who_trains(row) if row.ended_at is not None else ""


def sync_study(ledger: Ledger, home: Home, name: str, *, rebuild: bool = False) -> dict[str, Any]:
    """Draw in MLflow what it lacks of a study.

    Args:
        rebuild: draw all of it, and put what MLflow has of it into its bin.

    Returns:
        ``study``, ``drawn`` (trials) and ``missing`` (trials that another process is still drawing).

    Raises:
        UnreachableError: MLflow cannot be used now; nothing is lost.
    """
    from sweeper.tracking import Tracker

    drawn = Tracker(home, name, ledger).show(anew=rebuild)
    return {"study": name, "drawn": drawn, "missing": len(ledger.unshown_places(name))}
