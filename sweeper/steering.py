"""The commands that steer a study which others work on. ``cli`` adds them to its own; they hold no logic."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer

from sweeper.arguments import (
    AllFailed,
    Assignments,
    CacheOption,
    Device,
    Devices,
    Finalists,
    Json,
    LeaseSeconds,
    PackOption,
    Rebuild,
    References,
    Seeds,
    StudyName,
    Trials,
    Workers,
    Yes,
    example,
)
from sweeper.console import Output
from sweeper.errors import UsageError

if TYPE_CHECKING:
    from sweeper.ledger import Ledger


def worker(
    study: StudyName,
    device: Device = None,
    pack: PackOption = "auto",
    cache: CacheOption = "auto",
    lease_seconds: LeaseSeconds = 60.0,
) -> None:
    """Join a running study as one worker, on any machine that reaches store, artifacts, data and backbone.

    It trains until the study has ended. The first Ctrl-C or SIGTERM hands the running trials back, the second
    stops at once. What it trains is drawn in MLflow by a `sweeper run` somewhere, or by `sweeper sync`.
    """
    from sweeper.engine.crew import parse_bytes, parse_count
    from sweeper.joining import join_as_worker

    trials, kept = parse_count("--pack", pack), parse_bytes("--cache", cache)
    join_as_worker(Output(), study, device, trials, kept, lease_seconds)


def confirm(
    study: StudyName,
    top: Finalists = 3,
    seeds: Seeds = 5,
    references: References = False,
    device: Devices = None,
    workers: Workers = "auto",
    pack: PackOption = "auto",
    cache: CacheOption = "auto",
    lease_seconds: LeaseSeconds = 60.0,
    json: Json = False,
) -> None:
    """Train the best of a study anew under fresh seeds, read the test rows once, and say what holds.

    The default configuration and the head alone are trained beside them. Ctrl-C hands back what runs; the
    same command goes on, and `--seeds` and `--top` may grow.
    """
    from sweeper.confirmed import print_confirmation
    from sweeper.confirming import confirm_study
    from sweeper.engine.crew import WorkerOptions, parse_bytes, parse_count
    from sweeper.home import Home
    from sweeper.lookup import open_ledger, study_name
    from sweeper.tracking.address import check_uri

    out = Output(json)
    check_uri(Home.from_environment().tracking_uri)
    options = WorkerOptions(
        parse_count("--workers", workers),
        parse_count("--pack", pack),
        parse_bytes("--cache", cache),
        lease_seconds,
    )
    name = study_name(open_ledger(), study)
    said = confirm_study(out, name, top, seeds, references, device or (), options)
    out.document(said) if json else print_confirmation(out, said)


def _tell(study: str, say: Callable[[Ledger, str], str], json: bool) -> None:
    """Say a word to a study, print what came of it, and with ``--json`` how the study stands then."""
    from sweeper.lookup import open_ledger, study_name

    out, ledger = Output(json), open_ledger()
    name = study_name(ledger, study)
    out.note(say(ledger, name))
    if json:
        out.document(ledger.status(name))


def pause(study: StudyName, json: Json = False) -> None:
    """Begin no more trials until `resume`; those that run are handed back at their next evaluation."""
    from sweeper.control import pause_study

    _tell(study, pause_study, json)


def resume(study: StudyName, json: Json = False) -> None:
    """Let a study go on that was paused or stopped."""
    from sweeper.control import resume_study

    _tell(study, resume_study, json)


def stop(study: StudyName, json: Json = False) -> None:
    """End a study: no more trials begin, those that run are handed back, and its workers end."""
    from sweeper.control import stop_study

    _tell(study, stop_study, json)


def enqueue(study: StudyName, assignments: Assignments = None, json: Json = False) -> None:
    """Add one trial with parameters of your choice, beside the budget. It is the next to begin."""
    from sweeper.control import enqueue_trial
    from sweeper.lookup import open_ledger, study_name

    out, ledger = Output(json), open_ledger()
    trial, said = enqueue_trial(ledger, study_name(ledger, study), assignments or ())
    out.note(said)
    if json:
        out.document(trial.to_json())


def retry(study: StudyName, trials: Trials = None, failed: AllFailed = False, json: Json = False) -> None:
    """Try failed trials again, beside the budget: each as a new trial with the same parameters."""
    from sweeper.control import retry_trials
    from sweeper.lookup import open_ledger, study_name

    out, ledger = Output(json), open_ledger()
    added, said = retry_trials(ledger, study_name(ledger, study), trials or (), failed=failed)
    out.note(said)
    if json:
        out.document([trial.to_json() for trial in added])


def sync(study: StudyName, rebuild: Rebuild = False, json: Json = False) -> None:
    """Draw in MLflow what it lacks of a study: what `run` could not, or what workers did without it."""
    from sweeper.control import sync_study
    from sweeper.home import Home
    from sweeper.lookup import open_ledger, study_name

    out, ledger = Output(json), open_ledger()
    done = sync_study(ledger, Home.from_environment(), study_name(ledger, study), rebuild=rebuild)
    left = "" if not done["missing"] else f"; {done['missing']} are left, to another process that draws"
    out.note(f"{done['drawn']} runs of {done['study']} were drawn in MLflow{left}")
    if json:
        out.document(done)


def delete(study: StudyName, yes: Yes = False, json: Json = False) -> int:
    """Delete a study: its trials, weights and checkpoints, and its experiment in MLflow. It asks before."""
    from sweeper.deleting import delete_study, what_is_deleted
    from sweeper.home import Home
    from sweeper.lookup import open_ledger, study_name

    out, ledger, home = Output(json), open_ledger(), Home.from_environment()
    name = study_name(ledger, study)
    if not yes:
        question = what_is_deleted(ledger, home, name)
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(f"{question} Nobody is here to answer: give --yes")
        if not typer.confirm(question, err=True):
            out.note("nothing was deleted")
            return 1
    deleted = delete_study(ledger, home, name)
    for note in deleted.notes:
        out.note(note)
    bin_ = ", its experiment in MLflow is in the bin there" if deleted.in_mlflow else ""
    out.note(f"the study {name} is deleted{bin_}")
    if json:
        out.document(deleted.to_json())
    return 0


def add_to(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for command, examples in (
        (confirm, ("sweeper confirm sst2", "sweeper confirm sst2 --top 5 --seeds 10 --references")),
        (worker, ("sweeper worker sst2", "sweeper worker sst2 --device cuda:1")),
        (pause, ("sweeper pause sst2",)),
        (resume, ("sweeper resume sst2",)),
        (stop, ("sweeper stop sst2",)),
        (enqueue, ("sweeper enqueue sst2 --set bottleneck_dim=64 --set activation=gelu",)),
        (retry, ("sweeper retry sst2 7 12", "sweeper retry sst2 --failed")),
        (sync, ("sweeper sync sst2", "sweeper sync sst2 --rebuild")),
        (delete, ("sweeper delete sst2", "sweeper delete sst2 --yes")),
    ):
        app.command(epilog=example(*examples))(command)
