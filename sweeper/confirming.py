"""``sweeper confirm``: the finalists of a study under fresh seeds, read once on the test rows.

Each step is in the ledger and skipped once it is there: the same command goes on after an interruption.
Workers train adapters and heads, packed as in the study; then each is read on the test rows and timed alone;
then, where references are asked for, the backbone itself is fine-tuned, one run at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sweeper.errors import NothingSucceededError, SweeperError, UsageError
from sweeper.finalists import DEFAULT, HEAD, default_of, label_of, parse_label, verdict
from sweeper.ledger.confirmation import CONFIRM

if TYPE_CHECKING:
    from sweeper.console import Output
    from sweeper.engine.crew import WorkerOptions
    from sweeper.ledger import Ledger, TrialView
    from sweeper.session import Session


def confirm_study(
    out: Output,
    name: str,
    top: int,
    seeds: int,
    references: bool,
    devices: Sequence[str],
    options: WorkerOptions,
) -> dict[str, Any]:
    """Train the finalists of a study anew, read them on the test rows, and say what holds.

    Args:
        top: how many finalists there are, each another configuration; ``seeds``: how often each is trained.
        references: fine-tune the whole backbone as well.
        devices: none for all that this machine has.

    Returns:
        what ``finalists.verdict`` says.

    Raises:
        UsageError: the study has no test rows; a device is wrong.
        NothingSucceededError: no trial of it has succeeded.
        SweeperError: a finalist could not be trained.
        InterruptedByUser: by SIGINT or SIGTERM; the same command goes on.
    """
    from adapters.architectures import hidden_size
    from sweeper import space
    from sweeper.backbone import load_config
    from sweeper.device import choose
    from sweeper.device import devices as all_devices
    from sweeper.engine.showing import Showing
    from sweeper.home import Home
    from sweeper.session import PATIENCE_SECONDS, join_study
    from sweeper.testbench import Bench
    from sweeper.tracking import Tracker

    home = Home.from_environment()
    join_study(
        name, home
    ).ledger.close()  # wrong is said at once; from here on a server may be away for a while
    session = join_study(name, home, PATIENCE_SECONDS)
    study, ledger = session.study, session.ledger
    if study.data.test is None:
        raise UsageError(
            "the study has no test rows, which confirm reads: add a file to its section data, such as "
            "'test: data/test.tsv', or a fraction of train, such as 'test: 0.1', and give it a new name",
            study.path,
            study.line("data"),
        )
    finalists = _finalists(ledger, name, top)
    if not finalists:
        raise NothingSucceededError(
            f"no trial of the study {name!r} has succeeded: there is nothing to confirm"
        )
    if len(finalists) < top:
        found = "one configuration" if len(finalists) == 1 else f"{len(finalists)} different configurations"
        out.note(f"--top {top}: {found} succeeded, all that there are to confirm")
    earlier, most = _earlier(ledger, name, finalists)
    if earlier or most > seeds:
        finalists, seeds = [*finalists, *earlier], max(most, seeds)
        all_of_them = f"{len(finalists)} configurations, each under {seeds} seeds"
        out.note(f"with what was confirmed before: {all_of_them}, so that all can be compared")
    default = _default(ledger, name)
    if default is None:
        out.note("the default configuration is left out: it is past a limit, and was never trained")
    head = space.default_params(study, hidden_size(load_config(study.backbone)))
    ledger.confirm(name, _wanted(finalists, default, head, seeds))
    chosen = [choose(device) for device in dict.fromkeys(devices)] or all_devices()
    with Showing(Tracker(session.home, name, ledger).show) as showing:
        _train(out, session, chosen, replace(options, confirm=True))
        bench = Bench.of(session, chosen[0])
        bench.read(out)
        if references:
            bench.fine_tune(out, seeds)
    if showing.error is not None:
        out.note(f"MLflow does not show all of it: {showing.error}; `sweeper sync {name}` draws the rest")
    said = verdict(ledger, name)
    if said is None:
        failed = next((view for view in ledger.confirmations(name) if view.reason), None)
        why = (
            f"{failed.label} {failed.state} ({failed.reason})"
            if failed is not None
            else f"{study.objective.metric} does not exist on the test rows for what was predicted"
        )
        raise SweeperError(f"nothing of the study {name} could be confirmed: {why}")
    return said


def _finalists(ledger: Ledger, name: str, top: int) -> list[TrialView]:
    """The best configurations, each by its first complete trial: a better repeat later does not rename it."""
    best = ledger.best(name, top)  # read first: what ends meanwhile is among the trials
    first: dict[str | None, TrialView] = {}
    for view in ledger.trials(name):
        if view.kind == "search" and view.state == "complete":
            first.setdefault(view.configuration, view)
    return [first[view.configuration] for view in best]


def _earlier(ledger: Ledger, name: str, finalists: Sequence[TrialView]) -> tuple[list[TrialView], int]:
    """The finalists of an earlier ``confirm`` that are none now, and the most seeds that any finalist had.

    All are compared, so that all are trained under the same seeds.
    """
    labels = [parse_label(str(view.label)) for view in ledger.confirmations(name) if view.kind == CONFIRM]
    asked = [(int(what), int(seed)) for what, seed in labels if what.isdigit()]
    numbers = {number for number, _ in asked} - {view.number for view in finalists}
    views = [view for view in ledger.trials(name) if view.number in numbers]
    return views, max((seed for _, seed in asked), default=0)


def _default(ledger: Ledger, name: str) -> TrialView | None:
    """The default configuration; None where it is past a limit, so that nobody trained it."""
    found = default_of(ledger.trials(name))
    return None if found is None or found.was_refused else found


def _wanted(
    finalists: Sequence[TrialView], default: TrialView | None, head: Mapping[str, Any], seeds: int
) -> list[tuple[str, str, dict[str, Any]]]:
    """The places of finalists, default configuration and head: a seed of all before the next seed of any.

    Args:
        head: the parameters with which the head is trained, whether or not the default configuration is.
    """
    is_finalist = default is not None and default.number in [view.number for view in finalists]
    wanted: list[tuple[str, str, dict[str, Any]]] = []
    for seed in range(1, seeds + 1):
        wanted += [(CONFIRM, label_of(view.number or 0, seed), view.params) for view in finalists]
        if default is not None and not is_finalist:
            wanted.append((CONFIRM, label_of(DEFAULT, seed), default.params))
        wanted.append((CONFIRM, label_of(HEAD, seed), dict(head)))
    return wanted


def _train(out: Output, session: Session, devices: Sequence[str], options: WorkerOptions) -> None:
    """Let workers train what is not trained yet, and say how far they are."""
    from sweeper.console import InterruptedByUser
    from sweeper.engine.local import run_workers

    moments = run_workers(session, devices, options=options)
    told = -1
    while True:
        try:
            moment = next(moments)
        except StopIteration as stop:
            if stop.value.interrupted:
                raise InterruptedByUser("interrupted: the same command goes on") from None
            return
        ended = sum(view.ended_at is not None for view in moment.trials)
        if ended != told:
            told = ended
            out.note(f"confirming {session.name}: {ended} of {len(moment.trials)} trained", trained=ended)
