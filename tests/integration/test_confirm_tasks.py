"""Studies of the newer kinds of task, confirmed: what is said of them, shown in MLflow, and on the report."""

from __future__ import annotations

import html
import re
import threading
from pathlib import Path

import pytest

from sweeper.confirmed import conclusions, print_confirmation
from sweeper.confirming import _wanted
from sweeper.console import Output
from sweeper.figures.finalists import finalists
from sweeper.finalists import default_of, verdict
from sweeper.home import Home
from sweeper.page import report_page
from sweeper.results import read_results
from sweeper.session import open_study
from sweeper.study import load_study
from sweeper.testbench import Bench
from sweeper.tracking.confirmations import confirmed
from sweeper.worker import Options, work
from tests.integration.test_tasks_cli import TASKS
from tests.integration.test_tasks_cli import study as write_tasks


@pytest.mark.parametrize("kind", TASKS)
def test_a_study_of_each_kind_is_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    write_tasks(tmp_path, kind)
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    session = open_study(load_study(tmp_path / "study.yaml"), Home.from_environment())
    ledger, name, metric = session.ledger, session.name, TASKS[kind][1]
    work(session, Options("cpu"), threading.Event())
    default = default_of(ledger.trials(name))
    assert default is not None
    ledger.confirm(name, _wanted(ledger.best(name, 1), default, default.params, seeds=2))
    work(session, Options("cpu", confirm=True), threading.Event())
    Bench.of(session, "cpu").read(Output())
    said = verdict(ledger, name)
    assert said is not None and said["metric"] == metric
    assert said["direction"] == ("minimize" if kind == "causal_lm" else "maximize")
    winner, head = said["winner"], said["head"]
    least, most = (1, float("inf")) if kind == "causal_lm" else (0, 1)
    for row in (winner, head):
        low, high = row["test"]["interval"]
        assert least <= low <= row["test"]["mean"] <= high <= most and row["seeds"] == 2
    better = winner["test"]["mean"] - head["test"]["mean"]
    assert better < 0 if kind == "causal_lm" else better > 0
    print_confirmation(Output(), said)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("\t")[2:5] == [f"test {metric}", "95 % interval", f"validation {metric}"]
    assert ("(less is better)" in conclusions(said)[0]) == (kind == "causal_lm")
    runs = {run.name: run for run in confirmed(session.row, session.study, ledger.confirmations(name), said)}
    points = {point.key: point.value for point in runs[f"confirmed {winner['name']}"].points}
    assert points[f"test/{metric}_mean"] == winner["test"]["mean"]
    assert points[f"validation/{metric}_low"] == winner["validation"]["interval"][0]
    results = read_results(ledger, name)
    better_is = "less" if kind == "causal_lm" else "more"
    title = finalists(results)["layout"]["xaxis"]["title"]["text"]
    assert title == f"test {metric} ({better_is} is better)"
    page = report_page(results)
    assert all(f"<p>{html.escape(line)}</p>" in page for line in conclusions(said))
    assert re.search(rf"<h2>{winner['name']}: test {metric} [\d.]+ over 2 seeds</h2>", page)
