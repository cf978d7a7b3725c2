"""``sweeper run``: opens a study, lets workers train it, shows it, and says what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sweeper.console import InterruptedByUser, Output
from sweeper.disk import why_not_writable
from sweeper.errors import NothingSucceededError, UsageError
from sweeper.live import View, display
from sweeper.terminal import print_summary

if TYPE_CHECKING:
    from sweeper.engine.coordinator import Ending, Moment
    from sweeper.engine.crew import WorkerOptions
    from sweeper.home import Home
    from sweeper.session import Session
    from sweeper.study import Study

    Workers = Callable[[Session, Callable[[], object]], Generator[Moment, None, Ending]]


def run_study(
    out: Output,
    file: Path,
    devices: Sequence[str] = (),
    options: WorkerOptions | None = None,
    engine: str = "local",
    ray_address: str | None = None,
) -> None:
    """Runs a study to its end, or goes on with it, and prints what came of it.

    Args:
        file: the study file.
        devices: none for all that this machine has.
        options: how many workers there are on each, and what they are told.
        engine: ``local`` for workers on this machine, ``ray`` for workers on a Ray cluster.
        ray_address: of the cluster, as in ``engine.ray.connected``.

    Raises:
        UsageError: the file, the data, the backbone, a device or where MLflow is said to be is wrong, or the
            file has changed; or Ray is not installed, or has no place for such workers.
        NothingSucceededError: the study has ended and no trial has succeeded.
        UnreachableError: the store, a hub or the Ray cluster cannot be reached.
        InterruptedByUser: by SIGINT or SIGTERM; the trials that ran were handed back.
    """
    from sweeper.engine.supervisor import PASSIVE

    if engine == "local":  # what the workers find when they are forked; it counts when torch is imported
        os.environ.update({**PASSIVE, **os.environ})
    from sweeper.asktell import warm_notes
    from sweeper.engine.crew import WorkerOptions
    from sweeper.home import Home
    from sweeper.session import open_study
    from sweeper.study import load_study
    from sweeper.summary import summarize
    from sweeper.tracking.address import check_uri

    study = load_study(file)
    home = Home.from_environment()
    check_uri(home.tracking_uri)
    told = options or WorkerOptions()
    with (
        _on_ray(out, study, home, devices, told, ray_address)
        if engine == "ray"
        else _on_this_machine(out, study, home, devices, told, ray_address)
    ) as workers:
        session = open_study(study, home)
        if study.warm_start:
            for note in warm_notes(home, study):
                out.note(note)
        ending = _watch(out, session, workers)
    summary = summarize(session.ledger, session.name)
    if out.json:
        out.document(summary)
    else:
        print_summary(out, summary)
    if ending.not_shown is not None:
        out.note(f"MLflow does not show all of it yet, the next run will: {ending.not_shown}")
    if session.row.is_stopped and not ending.interrupted:
        out.note(
            f"{session.name} is stopped: `sweeper resume {session.name}`, then the same run, let it go on"
        )
    if ending.interrupted:
        raise InterruptedByUser("interrupted: the trials that ran were handed back, the same command goes on")
    if summary["best"] is None:
        so_far = " so far" if session.row.is_stopped else f": `sweeper trials {session.name}` says why"
        raise NothingSucceededError(f"no trial of the study {session.name!r} has succeeded{so_far}")


def _begin(out: Output, study: Study, home: Home) -> None:
    """Refuses folders in which every trial would fail, before anything starts, and says what comes now."""
    for variable, folder in (("SWEEPER_HOME", home.root), ("SWEEPER_ARTIFACTS", home.artifacts)):
        why = why_not_writable(folder)
        if why is not None:
            raise UsageError(f"{why}: set {variable} to a folder that can be written", folder)
    out.note(f"study {study.name}: reading the data and the backbone")


@contextmanager
def _on_this_machine(
    out: Output,
    study: Study,
    home: Home,
    devices: Sequence[str],
    options: WorkerOptions,
    ray_address: str | None,
) -> Iterator[Workers]:
    """Forks the server of the workers before the store is opened: a connection bears no fork."""
    if ray_address is not None:
        raise UsageError("--ray-address is for --engine ray: give both, or neither")
    from sweeper.device import choose
    from sweeper.device import devices as all_devices
    from sweeper.engine.forkserver import fork_server
    from sweeper.engine.local import run_workers

    chosen = [choose(device) for device in dict.fromkeys(devices)] or all_devices()
    _begin(out, study, home)
    with fork_server(chosen) as server:
        yield lambda session, show: run_workers(session, chosen, show=show, options=options, server=server)


@contextmanager
def _on_ray(
    out: Output,
    study: Study,
    home: Home,
    devices: Sequence[str],
    options: WorkerOptions,
    ray_address: str | None,
) -> Iterator[Workers]:
    """Connects to the cluster before the store is touched, so that a wrong address begins no study."""
    from sweeper.engine.fleet import run_on_cluster
    from sweeper.engine.ray import connected

    for option, given in (("--device", bool(devices)), ("--workers", options.workers is not None)):
        if given:
            raise UsageError(
                f"{option} is for --engine local: on Ray the section 'ray' of the study file says what a "
                "worker takes, and how many there are at most"
            )
    with connected(ray_address) as cluster:
        settings = cluster.settle(study.ray, home)
        _begin(out, study, home)
        yield lambda session, show: run_on_cluster(
            session, cluster, settings, show=show, options=options, say=out.note
        )


def _watch(out: Output, session: Session, workers: Workers) -> Ending:
    """Shows the study until its workers have ended."""
    from sweeper.tracking import Tracker

    tracker = Tracker(session.home, session.name, session.ledger)
    moments = workers(session, tracker.show)
    stopping = False
    with display(out) as shown, closing(moments):  # no workers go on behind an error
        while True:
            try:
                moment = next(moments)
            except StopIteration as stop:
                ending: Ending = stop.value
                return ending
            if moment.stopping and not stopping:
                stopping = True
                out.note("handing the running trials back; a second Ctrl-C stops at once")
            shown.update(_view(session, moment))


def _view(session: Session, moment: Moment) -> View:
    objective = session.study.objective
    return View(
        session.name,
        objective.metric,
        objective.direction == "maximize",
        [trial.to_json() for trial in moment.trials],
        moment.steps,
        moment.workers,
        session.row.is_paused,
    )
