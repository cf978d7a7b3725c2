"""The scale benchmark's workers do what real ones do, and its studies are what workers would have written."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale.__main__ import parse, percentiles, reading
from benchmarks.scale.fleet import Fleet, _Players
from benchmarks.scale.reading import asks, fill, views
from benchmarks.scale.stores import EVALUATIONS, home_of, make_study
from sweeper.asktell import Trials
from sweeper.ledger import Attached, Ledger, Result, this_worker


def test_a_fleet_ends_its_study_with_one_result_a_trial(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    fleet = Fleet(5, 1, 7, trial_seconds=0.05, compress=1.0, sampler="random", lease_seconds=60.0, seed=0)
    study = make_study(url, "fleet", fleet.trials, fleet.sampler)
    players = _Players(url, study, fleet, 0)
    players.run()
    ledger = Ledger(url)
    trials = ledger.trials("fleet")
    assert [trial.state for trial in trials] == ["complete"] * 7
    assert sorted(trial.number for trial in trials if trial.number is not None) == list(range(7))
    assert ledger.study("fleet").ended_at is not None and not ledger.untold("fleet")
    assert all(len(curve) == EVALUATIONS for curve in ledger.curves("fleet").values())
    waits = {key: len(each) for key, each in players.waits.items()}
    assert waits["first claim"] + waits["claim"] == waits["attach"] == waits["record"] == waits["end"] == 7
    assert waits["evaluation"] == 7 * EVALUATIONS and players.cpu.keys() <= players.waits.keys()
    ended = Trials(home_of(url), study)._optuna.trials
    assert {trial.state.name for trial in ended} == {"COMPLETE"} and len(ended) == 7


def test_a_filled_study_is_what_workers_would_have_written(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    study = fill(url, "many", 3, running=1)
    ledger = Ledger(url)
    trials = Trials(home_of(url), study)
    claim = ledger.reserve("many", this_worker("cpu"))
    assert claim is not None
    made, written = ledger.trials("many")[2], trials._optuna.trials[2]
    number, trial_id = trials.create(claim)
    assert number == 4
    params = trials.fill_in(number, trial_id)
    ledger.attach(claim, Attached(number, trial_id, params, "f" * 64, 18_816, 770))
    curve = ledger.curves("many")[made.place_id]
    for evaluation, value in enumerate(curve, start=1):
        values = {"accuracy": value, "objective": value, "validation/loss": 1 - value, "train/loss": 0.5}
        ledger.record_metrics(claim, evaluation, 100 * evaluation, float(evaluation), values)
    ledger.record_result(claim, Result("complete", curve[-1], {"accuracy": curve[-1]}, 60.0))
    (untold,) = ledger.untold("many")
    trials.tell(untold)
    ledger.mark_told(untold.place_id)
    real, told = ledger.trial("many", claim.place_id), trials._optuna.trials[4]
    same = ("kind", "state", "objective", "metrics", "attempts", "attempt", "files", "trainable_parameters")
    assert [getattr(real, key) for key in same] == [getattr(made, key) for key in same]
    assert real.params.keys() == made.params.keys() and real.version == made.version
    rows = [[(row.evaluation, row.step, row.key, row.value) for row in ledger.metric_rows(place)]
            for place in (claim.place_id, made.place_id)]  # fmt: skip
    assert rows[0] == rows[1]
    assert (told.state, told.value, told.intermediate_values) == (
        written.state, written.value, written.intermediate_values,
    )  # fmt: skip
    assert told.distributions == written.distributions and told.user_attrs.keys() == written.user_attrs.keys()
    assert ledger.status("many")["trials"]["running"] == 1


def test_every_view_and_both_samplers_are_timed(tmp_path: Path) -> None:
    settings = parse(["--quick"])
    lines = list(reading(f"sqlite:///{tmp_path / 'store.db'}", settings))
    found = {" ".join(line.split()[2:5]) for line in lines}
    assert len(lines) == 11 and all(line.startswith("20 trials") for line in lines), found
    other = f"sqlite:///{tmp_path / 'other.db'}"
    fill(other, "fewer", 1)
    study = fill(other, "few", 2)  # two in one store, as the sizes of a run are
    assert {key: len(times) for key, times in views(other, "few", 2).items()} == {
        "status": 2, "trials": 2, "best": 2, "a pruner's curves": 2,
    }  # fmt: skip
    assert {key: len(times) for key, times in asks(other, study, 2).items()} == {
        "first": 2, "create": 4, "ask": 4,
    }  # fmt: skip


def test_percentiles_are_of_the_values() -> None:
    assert percentiles([0.5]) == ["0.500"] * 3
    assert percentiles([float(number) for number in range(101)]) == ["50.000", "95.000", "99.000"]


@pytest.mark.parametrize(
    "wrong", [["--workers", "0"], ["--compress", "0"], ["--sizes", "0"], ["--only", "x"]]
)
def test_a_wrong_option_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(wrong)
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err
