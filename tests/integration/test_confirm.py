"""Finalists trained anew: through workers, interrupted and gone on with, read once on the test rows."""

from __future__ import annotations

import json
import math
import re
import signal
import statistics
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sweeper.cli import main
from sweeper.confirmed import print_confirmation
from sweeper.confirming import _default, _earlier, _finalists, _wanted, confirm_study
from sweeper.console import Output
from sweeper.engine.crew import WorkerOptions
from sweeper.errors import UsageError
from sweeper.export import export_study
from sweeper.figures.finalists import headline
from sweeper.figures.front import front
from sweeper.finalists import label_of, preferred, verdict
from sweeper.finetune import RATES
from sweeper.home import Home
from sweeper.ledger import Attached, Claim, Ledger, Result, TrialView, WorkerIdentity, failing, this_worker
from sweeper.ledger.confirmation import FULL
from sweeper.results import read_results
from sweeper.session import Session, open_study
from sweeper.study import load_study
from sweeper.summary import summarize
from sweeper.testbench import Bench
from sweeper.tracking import Tracker
from sweeper.worker import Options, work
from tests.command_line import CommandLine
from tests.made_study import TRIALS, MadeStudy, home_in
from tests.stores import new_ledger
from tests.tiny_folder import make_data, write_study

ONE = WorkerOptions(workers=1)
DEFAULT = "default configuration"


def searched(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: object) -> Session:
    """A small study that has been through, of the folder that is the current one from now on."""
    make_data(folder / "data", (48, 16, 16))
    path = write_study(folder, **changes)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("SWEEPER_HOME", str(folder / "sweeps"))
    session = open_study(load_study(path), Home.from_environment())
    work(session, Options("cpu"), threading.Event())
    return session


def test_the_finalists_are_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = searched(tmp_path, monkeypatch, budget={"trials": 3}, train={"epochs": 1})
    home, ledger, sweeper = session.home, session.ledger, CommandLine(tmp_path)
    Tracker(home, "tiny", ledger).show()
    (best,) = ledger.best("tiny")
    # A repeat of the best is as good, and no finalist of its own.
    ledger.enqueue("tiny", best.params)
    claim, same = ledger.reserve("tiny", this_worker("cpu")), str(best.configuration)
    assert claim is not None
    ledger.attach(claim, Attached(3, None, best.params, same, best.adapter_parameters or 0, 66))
    assert ledger.record_repeat(claim, same) == best.number
    ledger.end_if_done("tiny")
    Tracker(home, "tiny", ledger).show()
    before = ledger.trials("tiny")
    first, second = ledger.best("tiny", 2)
    assert first == best and second.number != 3
    assert preferred(ledger, "tiny") == ([best], None)
    said = sweeper.json("confirm", "tiny", "--top", "2", "--seeds", "2", "--references", "--workers", "1")
    numbers = [row["number"] for row in said["finalists"]]
    assert len(numbers) == 2 and best.number in numbers and 3 not in numbers
    assert said["winner"]["name"] in said["alike"]
    for row in [*said["finalists"], said["default"], said["head"], said["full"]]:
        assert row["seeds"] == 2 and row["latency_ms"] > 0
        test = row["test"]
        assert test["mean"] == pytest.approx(statistics.fmean(test["values"]))
        assert test["sd"] == pytest.approx(statistics.stdev(test["values"]))
        low, high = test["interval"]
        assert 0 <= low <= test["mean"] <= high <= 1
        if test["sd"] > 0:
            # Student's t with one degree of freedom, as any table has it, on the scale of the logit.
            half = 12.7062 * test["sd"] / 2**0.5 / (test["mean"] * (1 - test["mean"]))
            width = math.log(high / (1 - high)) - math.log(low / (1 - low))
            assert width == pytest.approx(2 * half, rel=1e-3)
    assert said["full"]["trainable_parameters"] > said["winner"]["trainable_parameters"]
    # The study is as it was.
    assert ledger.trials("tiny") == before
    attempts = {view.label: view.attempts for view in ledger.confirmations("tiny")}
    assert set(attempts.values()) == {1}
    # More seeds go on from those that are there.
    monkeypatch.setattr("sweeper.testbench.TELL_SECONDS", 0.0)
    more = confirm_study(Output(), "tiny", 2, 3, True, ["cpu"], ONE)
    assert [row["seeds"] for row in [*more["finalists"], more["full"]]] == [3, 3, 3]
    told = capsys.readouterr().err
    assert re.search(r"whole backbone: confirm-full-3, learning rate (2e-05|5e-05|0\.0001)\n", told)
    assert "confirm-full-3: 1 of 3 steps, about " in told and "confirm-full-3: 3 of 3 steps" in told
    assert "confirm-full-1" not in told and "confirm-full-rate" not in told
    for old, new in zip(said["finalists"], more["finalists"], strict=True):
        assert new["test"]["values"][:2] == old["test"]["values"]
    assert {v.label: v.attempts for v in ledger.confirmations("tiny") if v.label in attempts} == attempts
    (chosen,), _ = preferred(ledger, "tiny")
    (exported,) = export_study(ledger, home, "tiny", tmp_path / "out")
    assert chosen.number == more["winner"]["number"] == exported.trial
    assert "3 fresh seeds" in (tmp_path / "out" / "README.md").read_text()
    facts = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert facts["confirmed"] == more["winner"]
    results = read_results(ledger, "tiny")
    assert [one.name for one in results.finalists if not one.is_reference] == [
        one["name"] for one in more["finalists"]
    ]
    assert results.best is not None and results.best.number == more["winner"]["number"]
    assert headline(results).startswith(more["winner"]["name"])
    count = len(ledger.confirmations("tiny"))
    assert sweeper.json("status", "tiny")["confirming"] == {"ended": count, "of": count}
    assert "confirming" not in sweeper("status", "tiny").stdout
    ledger.confirm("tiny", [("confirm", "confirm-head-9", best.params)])
    assert f"\nconfirming: {count} of {count + 1} trainings done\n" in sweeper("status", "tiny").stdout


def test_a_trial_that_ends_while_finalists_are_looked_up_waits_for_the_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = new_ledger(f"sqlite:///{tmp_path / 'store.db'}", trials=2)

    def complete(number: int) -> None:
        claim = ledger.reserve("one", this_worker("cpu"))
        assert claim is not None
        ledger.attach(claim, Attached(number, number, {"bottleneck_dim": 2}, f"c{number}", 10, 5))
        ledger.record_result(claim, Result("complete", 0.5 + number, {}, 1.0))

    complete(0)
    read = ledger.trials

    def trials(study: str) -> list[TrialView]:
        found = read(study)
        if len([view for view in found if view.state == "complete"]) == 1:
            complete(1)
        return found

    monkeypatch.setattr(ledger, "trials", trials)
    assert [view.number for view in _finalists(ledger, "one", 2)] == [0]
    assert [view.number for view in _finalists(ledger, "one", 2)] == [1, 0]


def test_without_test_rows_there_is_nothing_to_confirm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_data(tmp_path / "data", (48, 16, 16))
    path = write_study(tmp_path, budget={"trials": 1}, data={"test": None})
    monkeypatch.setenv("SWEEPER_HOME", str(tmp_path / "sweeps"))
    open_study(load_study(path), Home.from_environment())
    with pytest.raises(UsageError, match=r"test: data/test\.tsv") as caught:
        confirm_study(Output(), "tiny", 3, 5, False, ["cpu"], ONE)
    assert caught.value.exit_code == 2


def test_a_default_past_the_limits_is_left_out_and_the_head_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search = {
        "bottleneck_dim": [2, 8], "layers": [[0], "all"], "learning_rate": {"from": 0.001, "to": 0.01},
        "dropout": 0.1, "stochastic_depth": 0.1,
    }  # fmt: skip
    limits = {"trainable_parameters": 300}
    searched(
        tmp_path, monkeypatch, budget={"trials": 2}, train={"epochs": 1}, limits=limits, search=search
    ).ledger.close()
    assert main(["confirm", "tiny", "--top", "1", "--seeds", "1", "--workers", "1", "--json"]) == 0
    told = capsys.readouterr()
    assert "the default configuration is left out: it is past a limit, and was never trained" in told.err

    def no_room(*arguments: object, **options: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")

    command = ["confirm", "tiny", "--top", "1", "--seeds", "1", "--workers", "1", "--json", "--references"]
    with monkeypatch.context() as patched:
        patched.setattr("sweeper.finetune.fine_tune", no_room)
        assert main(command) == 0
    told = capsys.readouterr()
    assert "full fine-tuning failed at every learning rate: it is left out" in told.err
    said = json.loads(told.out)
    assert said["full"] is None
    assert said["default"] is None and said["head"]["params"]["learning_rate"] == 0.001
    print_confirmation(Output(), said)
    table = capsys.readouterr().out
    assert "head alone" in table and "default" not in table
    assert main(["report", "tiny"]) == 0
    capsys.readouterr()
    assert main(["sync", "tiny", "--rebuild", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 0
    # What did not fit has its chance again, when the command is given again.
    assert main(command) == 0
    told = capsys.readouterr()
    assert "it is left out" not in told.err and json.loads(told.out)["full"]["seeds"] == 1
    assert main(["sync", "tiny", "--rebuild", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == 0


def test_a_terminated_confirm_hands_back_what_it_fine_tunes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched(tmp_path, monkeypatch, budget={"trials": 1}, train={"epochs": 20}).ledger.close()
    sweeper = CommandLine(tmp_path)
    command = ("confirm", "tiny", "--top", "1", "--seeds", "1", "--workers", "1", "--references")
    process = sweeper.forked(*command)
    while not process.stderr.readline().startswith("fine-tuning the whole backbone: "):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=120)
    assert (process.returncode, told.splitlines()[-1]) == (130, "interrupted")
    ledger = Ledger(Home.from_environment({"SWEEPER_HOME": str(tmp_path / "sweeps")}).store_url)
    views = [view for view in ledger.confirmations("tiny") if view.kind == "full"]
    assert views and all(view.state in ("waiting", "complete") for view in views)


def test_the_rate_of_full_fine_tuning_is_chosen_when_all_rates_are_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = searched(
        tmp_path,
        monkeypatch,
        budget={"trials": 1},
        train={"epochs": 1},
        search={"bottleneck_dim": 2, "warmup": [0.0, 0.1]},
    )
    ledger, bench = session.ledger, Bench.of(session, "cpu")
    ledger.confirm("tiny", [(FULL, label_of("full", "rate2"), {"learning_rate": RATES[2]})])
    elsewhere = WorkerIdentity("elsewhere:1:ab", "elsewhere", 1, 0.0, "cpu")
    held = ledger.reserve("tiny", elsewhere, 600.0, FULL)
    assert held is not None

    def run(claim: Claim, accuracy: float = 0.5) -> None:
        ledger.attach(claim, Attached(None, None, claim.fixed_params or {}, str(claim.label), 9, 9))
        ledger.record_result(claim, Result("complete", accuracy, {"accuracy": accuracy}))

    def waiting(seconds: float) -> float:
        run(held, 0.9)
        return 0.0

    monkeypatch.setattr(bench, "_run", lambda claim, advance: run(claim))
    monkeypatch.setattr("sweeper.testbench.idle_seconds", waiting)
    bench.fine_tune(Output(), seeds=2)
    views = {str(view.label): view.params for view in ledger.confirmations("tiny")}
    # As every training is shown in MLflow: with all that it was trained with.
    assert views["confirm-full-rate0"].keys() == {"learning_rate", "warmup"}
    assert [views[label_of("full", seed)]["learning_rate"] for seed in (1, 2)] == [RATES[2]] * 2
    assert "waiting for what another confirm of this study fine-tunes" in capsys.readouterr().err


def test_what_another_confirm_took_over_meanwhile_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = searched(tmp_path, monkeypatch, budget={"trials": 1}, train={"epochs": 1})
    ledger, bench = session.ledger, Bench.of(session, "cpu")
    run, taken = bench._run, []

    def stands_still(claim: Claim, advance: Callable[[int, int], None]) -> None:
        if not taken:
            ledger.database.write(failing.lose, claim.place_id, claim.token, "handed_back")
            taken.append(claim.label)
        run(claim, advance)

    monkeypatch.setattr(bench, "_run", stands_still)
    bench.fine_tune(Output(), seeds=1)
    views = [view for view in ledger.confirmations("tiny") if view.kind == FULL]
    assert [view.state for view in views] == ["complete"] * 4
    assert [view.attempts for view in views if view.label in taken] == [2]


def test_what_was_a_finalist_before_is_compared_with_those_of_now(tmp_path: Path) -> None:
    """Under as many seeds, whichever of the two were asked for more."""
    study = MadeStudy(home_in(tmp_path))
    study.run_all()
    ledger = study.ledger
    assert _earlier(ledger, "films", _finalists(ledger, "films", 2)) == ([], 0)
    study.confirm(finalists=2, seeds=4)
    best, second = _finalists(ledger, "films", 2)
    assert _earlier(ledger, "films", [best, second]) == ([], 4)
    assert _earlier(ledger, "films", [best]) == ([second], 4)
    ledger.close()


def test_a_retry_of_the_default_is_the_default(tmp_path: Path) -> None:
    """Trial 0 has failed, and what was tried again is a finalist: nothing is trained beside itself."""
    study = MadeStudy(home_in(tmp_path), trials=2)
    ledger = study.ledger
    params = TRIALS[0].params

    def run(number: int, digest: str, result: Result) -> None:
        claim = ledger.reserve("films", this_worker("cpu"))
        while claim is not None and claim.kind != "search":
            ledger.record_result(claim, Result("complete", 0.5))
            claim = ledger.reserve("films", this_worker("cpu"))
        assert claim is not None
        ledger.attach(claim, Attached(number, number, params, digest, 10, 5))
        ledger.record_result(claim, result)

    run(0, "default", Result("failed", reason="RuntimeError: no"))
    run(1, "other", Result("complete", 0.8))
    failed = next(view for view in ledger.trials("films") if view.number == 0)
    assert _default(ledger, "films") == failed and summarize(ledger, "films")["references"][DEFAULT] is None
    assert len(_wanted(_finalists(ledger, "films", 2), failed, params, 1)) == 3
    ledger.retry("films", [failed.place_id])
    run(2, "default", Result("complete", 0.9))
    default = _default(ledger, "films")
    assert default is not None and (default.number, default.retry_of) == (2, 0)
    assert summarize(ledger, "films")["references"][DEFAULT]["number"] == 2
    labels = [label for _, label, _ in _wanted(_finalists(ledger, "films", 2), default, params, 1)]
    assert labels == ["confirm-0002-1", "confirm-0001-1", "confirm-head-1"]
    study.confirm(seeds=1)
    said = verdict(ledger, "films")
    assert said is not None and said["default"]["what"] == "0002"
    results = read_results(ledger, "films")
    assert results.default == default
    assert "default configuration (trial 2)" in [trace["name"] for trace in front(results)["data"]]
    ledger.close()
