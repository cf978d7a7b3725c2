"""How much slower training gets while MLflow is down, answers with errors, or is slow.

    python -m benchmarks.mlflow_away

`sweeper run` trains the same study in turn against a real MLflow server that is well, that closes every
connection, that answers HTTP 500, and that delays every piece of data, by a proxy before it. What is compared
is the seconds that the trials took, without start and end of the command.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import machine, parse, parser, spread, table
from benchmarks.material import draw_rows, write_study
from sweeper.home import Home
from sweeper.session import join_study
from sweeper.study import Study
from tests.faults.servers import mlflow_behind_proxy

MODES = {"pass": "well", "down": "down", "error": "answers 500", "slow": "slow"}


def main() -> None:
    """Measure and print."""
    made = parser(__doc__, rounds=5, rows=1024, validation_rows=256)
    made.set_defaults(threads=1)
    made.add_argument("--trials", type=int, default=2, help="of each study (default: 2)")
    settings = parse(made)
    if settings.trials < 1:
        made.error(f"--trials must be 1 or more, not {settings.trials}")
    print(machine(settings))
    seconds: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        (top / "rows").mkdir()
        draw_rows(settings, top / "rows")
        evaluations = {"evaluations_per_epoch": 6}
        study = write_study(top / "rows", settings, train=evaluations, trials=settings.trials)
        (top / "server").mkdir()
        with mlflow_behind_proxy(top / "server") as (proxy, address, _):
            for number in range(settings.rounds):
                # Each round begins with another one: what comes first in it is not always the same.
                modes = list(MODES)[number % len(MODES) :] + list(MODES)[: number % len(MODES)]
                for mode in modes:
                    proxy.set(mode)
                    seconds[mode].append(trained(study, top / f"{mode}-{number}", address))
                    print(f"round {number + 1}, {MODES[mode]}: {seconds[mode][-1]:.1f} s", flush=True)
    print(describe(settings, seconds))


def trained(study: Study, folder: Path, tracking: str) -> float:
    """Run a study by the command line in a home of its own; the seconds of its trials.

    Raises:
        SystemExit: the command failed otherwise than by MLflow's absence.
    """
    ours = {"SWEEPER_HOME": str(folder), "MLFLOW_TRACKING_URI": tracking, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "sweeper", "run", str(study.path), "--workers", "1", "--pack", "1"]
    done = subprocess.run(command, env={**os.environ, **ours}, capture_output=True, text=True)
    if done.returncode and "MLflow" not in done.stderr:
        raise SystemExit(f"error: `sweeper run` ended with {done.returncode}\n{done.stderr[-2000:]}")
    session = join_study(study.name, Home.from_environment(ours))
    views = [view for view in session.ledger.trials(study.name) if view.kind == "search"]
    session.ledger.close()
    if any(view.state != "complete" for view in views):
        raise SystemExit(f"error: a trial is not complete\n{done.stderr[-2000:]}")
    return sum(view.seconds or 0.0 for view in views)


def describe(settings: argparse.Namespace, seconds: dict[str, list[float]]) -> str:
    """A line for each state of the server, compared round by round with the one that was well."""
    rows = []
    for mode, name in MODES.items():
        more = [100 * (one / well - 1) for one, well in zip(seconds[mode], seconds["pass"], strict=True)]
        rows.append([name, spread(seconds[mode], 1), spread(more, 1), f"{statistics.mean(more):.1f}"])
    head = f"{settings.trials} trials of {settings.rows} rows, {settings.rounds} rounds\n"
    return head + table(["MLflow", "seconds", "% more than well", "mean"], rows)


if __name__ == "__main__":
    main()
