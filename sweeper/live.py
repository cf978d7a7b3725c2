"""What ``run`` shows while a study runs, on stderr: a live table on a terminal, plain lines elsewhere.

A view is made from two things only: the trials as the ledger lists them, and the steps of those that run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from sweeper.console import Output, one_line
from sweeper.terminal import configuration, duration, number, trial_name

ENDED = ("complete", "pruned", "failed", "cancelled")


@dataclass(frozen=True)
class View:
    """A study at one moment.

    Args:
        study: its name.
        metric: the objective's metric; ``maximize``: whether more is better.
        trials: every trial, as in ``trials --json``, with the label of references.
        steps: steps done and steps in all of each running trial, by ``trial_name``.
        workers: how many train at once.
        paused: no trial is begun now, as its user said so.
    """

    study: str
    metric: str
    maximize: bool
    trials: Sequence[Mapping[str, Any]]
    steps: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    workers: int = 1
    paused: bool = False

    @property
    def running(self) -> list[Mapping[str, Any]]:
        return [trial for trial in self.trials if trial["state"] == "running"]

    @property
    def ended(self) -> list[Mapping[str, Any]]:
        return [trial for trial in self.trials if trial["state"] in ENDED]

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best complete trial so far; of equals the smaller one, then the earlier."""
        done = [t for t in self.trials if t["number"] is not None and t["state"] == "complete"]
        sign = -1.0 if self.maximize else 1.0
        return min(
            done,
            key=lambda trial: (sign * trial["objective"], trial["trainable_parameters"], trial["number"]),
            default=None,
        )

    @property
    def left(self) -> int:
        """Trials and references that have not ended."""
        return sum(1 for trial in self.trials if trial["state"] in ("waiting", "running"))

    def seconds_left(self) -> float | None:
        """A forecast: the mean time of those that ended for each that is left, less what is done of it."""
        times = [t["device_seconds"] for t in self.ended if t["device_seconds"] and t["number"] is not None]
        if not times:
            return None
        mean = sum(times) / len(times)
        done = sum(step / steps for step, steps in self.steps.values() if steps)
        return max(0.0, mean * (self.left - done)) / max(1, self.workers)


class Display(Protocol):
    """Something that shows a study while it runs."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, view: View) -> None: ...


class _News:
    """What is new in a view since the one before, as lines and as data: a pause, a trial begun or ended."""

    def __init__(self) -> None:
        self._states: dict[str, str] | None = None
        self._paused = False

    def of(self, view: View) -> Iterator[tuple[str, dict[str, Any]]]:
        if view.paused != self._paused:
            self._paused = view.paused
            line = _paused_line(view) if view.paused else f"{view.study} goes on"
            yield line, {"study": view.study, "state": "paused" if view.paused else "running"}
        known = self._states if self._states is not None else {}
        for trial in view.trials:
            name, state = trial_name(trial), trial["state"]
            if name == "-" or known.get(name) == state:
                continue
            # The first view of a study that goes on holds what ended before: that is no news.
            first_and_old = self._states is None and state in ENDED
            if state in ENDED and not first_and_old:
                if known.get(name) != "running":  # begun and ended between two looks
                    yield start_line(trial), {"trial": name, "state": "running"}
                is_best = view.best is not None and trial_name(view.best) == name
                line = end_line(view.metric, trial, is_best)
                yield line, {"trial": name, "state": state, "objective": trial["objective"]}
            elif state == "running":
                yield start_line(trial), {"trial": name, "state": state}
        self._states = {trial_name(trial): trial["state"] for trial in view.trials}


class PlainDisplay:
    """One line when a trial starts and one when it ends; JSON lines with ``--json``."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._news = _News()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def update(self, view: View) -> None:
        for line, fields in self._news.of(view):
            ended = fields["state"] in ENDED
            self._out.note(f"{line}; {headline(view)}" if ended else line, **fields)


class LiveDisplay:
    """Running trials with their progress, the best so far and what is left, drawn in place by Rich.

    Trials that have ended scroll away above it, a line each.
    """

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
        self._news = _News()

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def update(self, view: View) -> None:
        from rich.text import Text

        for line, fields in self._news.of(view):
            if fields["state"] in ENDED:
                self._live.console.print(Text(line))
        self._live.update(draw(view), refresh=True)


def draw(view: View) -> Any:
    """The live table as a Rich object."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    if not view.running:
        waiting = "the workers are starting" if view.left else "everything is done"
        last = _paused_line(view) if view.paused else waiting
        return Group(Text(headline(view)), Text(_best_line(view)), Text(last))
    table = Table(box=None, header_style="bold", pad_edge=False, expand=True)
    for column in ("running", "progress", "", view.metric):
        table.add_column(column, no_wrap=True)
    # The configuration takes what the others leave: squeezed the other way, no progress would be seen.
    table.add_column("configuration", overflow="ellipsis", no_wrap=True, ratio=1)
    for trial in view.running:
        step, steps = view.steps.get(trial_name(trial), (0, 0))
        table.add_row(
            Text(trial_name(trial)),
            ProgressBar(total=max(1, steps), completed=step, width=16),
            Text(f"{step:,}/{steps:,}" if steps else "starting"),
            Text(number(trial["metrics"].get(view.metric))),
            Text(configuration(trial["params"])),
        )
    return Group(Text(headline(view)), Text(_best_line(view)), table)


def headline(view: View) -> str:
    """``sst2: 5 of 14 done, 1 running, about 3 min 10 s left``."""
    parts = [f"{len(view.ended)} of {len(view.trials)} done"]
    if view.running:
        parts.append(f"{len(view.running)} running")
    if view.paused:
        return f"{view.study}: paused, {', '.join(parts)}"
    seconds = view.seconds_left()
    if view.left and seconds is not None:
        parts.append(f"about {duration(seconds)} left")
    return f"{view.study}: {', '.join(parts)}"


def _best_line(view: View) -> str:
    best = view.best
    if best is None:
        return "best so far: none yet"
    size = f"{number(best['trainable_parameters'])} trainable"
    found = f"{trial_name(best)}, {view.metric} {number(best['objective'])}, {size}"
    return f"best so far: {found}, {configuration(best['params'])}"


def _paused_line(view: View) -> str:
    return f"{view.study} is paused: `sweeper resume {view.study}` lets it go on"


def start_line(trial: Mapping[str, Any]) -> str:
    """``trial-0003 started: bottleneck_dim=24 activation=gelu``."""
    params = configuration(trial["params"])
    return f"{trial_name(trial)} started" + (f": {params}" if params else "")


def end_line(metric: str, trial: Mapping[str, Any], is_best: bool = False) -> str:
    """``trial-0003 complete: accuracy 0.88, best so far, 41 s``."""
    reason = f" ({one_line(trial['reason'])})" if trial["reason"] else ""
    parts = [f"{metric} {number(trial['objective'])}"] if trial["objective"] is not None else []
    if is_best:
        parts.append("best so far")
    parts.append(duration(trial["seconds"]))
    return f"{trial_name(trial)} {trial['state']}{reason}: {', '.join(parts)}"


@contextmanager
def display(out: Output) -> Iterator[Display]:
    """The display that suits where stderr goes."""
    shown: Display = LiveDisplay() if out.stderr_is_terminal else PlainDisplay(out)
    with shown:
        yield shown
