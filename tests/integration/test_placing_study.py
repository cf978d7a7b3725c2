"""Placements of a study's own and a bit a layer, from the study file to the exported adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from optuna.trial import TrialState

from adapters.config import AdapterConfig
from sweeper import load
from sweeper.asktell import Trials, warm_notes
from sweeper.check import check_study
from sweeper.control import enqueue_trial
from sweeper.errors import UsageError
from sweeper.export import adapter_files
from sweeper.session import join_study
from sweeper.space import configuration
from sweeper.study import load_study
from sweeper.tracking import picture
from tests.agreement import optuna_trials
from tests.integration.test_search import begin, run
from tests.integration.test_worker import folder, parts
from tests.tiny_folder import write_study

__all__ = ["folder", "parts"]

OWN = {"mixed": [{"sublayer": "attention", "wiring": "after"}, "ffn:parallel"]}
OWN_PAIRS = "attention:after+ffn:parallel"
SEARCH = {
    "bottleneck_dim": 4,
    "placement": ["pfeiffer", "mixed"],
    "layers": "bits",
    "learning_rate": 1.0e-2,
}
SHORT: dict[str, Any] = {"train": {"epochs": 1}}
SEED = 5
"""Under which a draw without any layer is among the first."""


def test_own_placements_and_bits_from_check_to_export(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWEEPER_HOME", str(folder / "sweeps"))
    path = write_study(folder, search=SEARCH, placements=OWN, budget={"trials": 1}, **SHORT)
    checked = check_study(path, measure=False, device="cpu")
    assert checked["space"]["size"] == 2 * 7
    assert checked["space"]["searched"]["layers"] == "a bit for each of 0, 1, 2"
    assert checked["sites"]["mixed, [1]"] == [
        "encoder.layer.1.attention.output.dense",
        "encoder.layer.1.output",
    ]
    session = begin(folder, search=SEARCH, placements=OWN, budget={"trials": 1}, **SHORT)
    run(session)
    enqueue_trial(session.ledger, "tiny", ["placement=mixed", "layers=[1]"])
    with pytest.raises(UsageError, match="no layer would carry a module"):
        enqueue_trial(session.ledger, "tiny", ["layers=[]"])
    run(join_study("tiny", session.home))
    trials = {view.number: view for view in session.ledger.trials("tiny") if view.kind == "search"}
    assert trials[0].params == {"placement": "pfeiffer"} | {f"layers.{n}": True for n in range(3)}
    assert trials[1].params["placement"] == "mixed" and trials[1].state == "complete"
    row = session.row
    files = adapter_files(row, trials[1], session.home.artifacts, folder / "out")
    written = yaml.safe_load(files["adapter.yaml"])["search"]
    assert written["placement"] == OWN_PAIRS and written["layers"] == [[1]]
    pasted = {**yaml.safe_load(path.read_text()), "study": "again", **yaml.safe_load(files["adapter.yaml"])}
    (folder / "again.yaml").write_text(yaml.safe_dump(pasted))
    assert configuration(load_study(folder / "again.yaml"), {}).adapter == AdapterConfig(
        bottleneck_dim=4, placement=OWN_PAIRS, layers=(1,)
    )
    facts = json.loads(files["metrics.json"])
    assert facts["trial"]["params"]["placement"] == "mixed"
    config = AdapterConfig.from_dict(facts["configuration"]["adapter"])
    assert (config.placement, config.layers) == (OWN_PAIRS, (1,))
    page = load("tiny", session.home.root).report(folder / "report.html").read_text()
    assert "layers.2" in page and "mixed" in page


def test_a_draw_without_a_module_costs_nothing_and_the_sampler_is_told(folder: Path) -> None:
    session = begin(
        folder, search=SEARCH, placements=OWN, sampler="random", budget={"trials": 6}, seed=SEED, **SHORT
    )
    run(session)
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert len(trials) == 6 and all(view.state == "complete" for view in trials)
    assert all(any(view.params[f"layers.{n}"] for n in range(3)) for view in trials)
    told = optuna_trials(session)
    off = [trial for trial in told if not any(trial.params[f"layers.{n}"] for n in range(3))]
    assert off and all(trial.state is TrialState.PRUNED and trial.value is None for trial in off)
    assert all(
        trial.constraints == {"layers": 1 - sum(trial.params[f"layers.{n}"] for n in range(3))}
        for trial in told
    )
    shown = picture.trial_params(session.study, trials[1])
    on = [n for n in range(3) if trials[1].params[f"layers.{n}"]]
    assert shown["layers"] == str(on) and shown["placement"] == trials[1].params["placement"]

    # Another study learns from it by named sets, and one of bits from that.
    named = {
        "bottleneck_dim": 4,
        "placement": ["attention:after+ffn:parallel", "pfeiffer"],
        "layers": ["all", [1]],
    }
    later = begin(
        folder,
        study="later",
        search=named | {"learning_rate": 1.0e-2},
        placements=None,
        sampler="random",
        warm_start=["tiny"],
        budget={"trials": 2},
        **SHORT,
    )
    (note,) = warm_notes(later.home, later.study)
    wanted = [
        view for view in trials if [view.params[f"layers.{n}"] for n in range(3)] in ([1, 1, 1], [0, 1, 0])
    ]
    assert note.startswith(f"warm start from tiny: {len(wanted)} trials taken") and wanted
    seen = [trial.params for trial in Trials(later.home, later.study)._optuna.get_trials()]
    assert seen == [
        {
            "placement": OWN_PAIRS if view.params["placement"] == "mixed" else "pfeiffer",
            "layers": "all" if view.params["layers.0"] else "[1]",
        }
        for view in wanted
    ]
    run(later)
    third = begin(
        folder, study="third", search=SEARCH, placements=OWN, sampler="gp", warm_start=["later"],
        budget={"trials": 2}, **SHORT,
    )  # fmt: skip
    warm = Trials(third.home, third.study)._optuna.get_trials()
    assert [trial.params for trial in warm] == [
        {
            "placement": "mixed" if view.params["placement"] == OWN_PAIRS else "pfeiffer",
            **{f"layers.{n}": view.params["layers"] == "all" or n == 1 for n in range(3)},
        }
        for view in later.ledger.trials("later")
        if view.kind == "search"
    ]
    run(third)
    assert third.ledger.status("third")["trials"]["complete"] == 2


def test_a_grid_of_bits_is_trained_point_by_point_and_ends(folder: Path) -> None:
    search = {"bottleneck_dim": 2, "layers": {"bits": [0, 2]}, "learning_rate": 1.0e-2}
    session = begin(folder, search=search, sampler="grid", budget={"trials": 9}, **SHORT)
    run(session)
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert sorted((view.params["layers.0"], view.params["layers.2"]) for view in trials) == [
        (False, True), (True, False), (True, True),
    ]  # fmt: skip
    assert session.ledger.status("tiny")["ended_because"] == "the grid is through: 3 points"
