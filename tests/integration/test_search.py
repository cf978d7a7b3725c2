"""How a study searches: several objectives with pruning, grids, limits, and every way to its end."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any

import optuna
import optuna.visualization
import pytest
from optuna.search_space import intersection_search_space
from optuna.trial import TrialState

from adapters.flops import flops_per_token
from sweeper.asktell import Trials, warm_notes
from sweeper.backbone import load_config
from sweeper.errors import UsageError
from sweeper.front import dominates, upward
from sweeper.home import Home
from sweeper.session import Session, join_study, open_study
from sweeper.space import configuration
from sweeper.study import load_study
from sweeper.summary import summarize
from sweeper.worker import Options, work
from tests.agreement import optuna_trials
from tests.command_line import CommandLine
from tests.integration.test_worker import folder, parts
from tests.tiny_folder import write_study

__all__ = ["folder", "parts"]

SMALL = {
    "bottleneck_dim": [2, 4],
    "activation": ["relu", "gelu"],
    "layers": ["all", "upper_half"],
    "learning_rate": 1.0e-2,
}
LIMIT = 90_000
EAGER = {"name": "emmr", "warm_up_trials": 1, "n_initial_trials": 2, "threshold_ratio": 1.0}
TWO = [{"metric": "accuracy"}, {"metric": "trainable_parameters"}]


def begin(folder: Path, **overrides: Any) -> Session:
    home = Home.from_environment({"SWEEPER_HOME": str(folder / "sweeps")})
    return open_study(load_study(write_study(folder, **overrides)), home)


def run(session: Session) -> None:
    work(session, Options("cpu"), threading.Event())


def test_two_objectives_with_pruning_by_the_command_line(folder: Path) -> None:
    write_study(
        folder,
        objective=[*TWO, {"metric": "flops_per_token"}],
        pruner={"name": "successive_halving", "reduction_factor": 2},
        train={"epochs": 4},
        budget={"trials": 8},
    )
    sweeper = CommandLine(folder)
    done = sweeper("run", "study.yaml", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "no trial beats these in all objectives" in done.stdout
    trials = [trial for trial in sweeper.json("trials", "tiny") if trial["number"] is not None]
    states = {trial["number"]: trial["state"] for trial in trials}
    assert states[0] == "complete" and "pruned" in states.values()
    front, status = sweeper.json("best", "tiny"), sweeper.json("status", "tiny")
    assert status["front"] == front and status["best"] == front[0]
    directions = ("maximize", "minimize", "minimize")
    points = {
        trial["number"]: upward(trial["objectives"].values(), directions)
        for trial in trials
        if trial["state"] == "complete"
    }
    undominated = {
        number for number, point in points.items() if not any(dominates(p, point) for p in points.values())
    }
    assert {trial["number"] for trial in front} <= undominated
    assert {points[trial["number"]] for trial in front} == {points[number] for number in undominated}
    exported = sweeper.json("export", "tiny", "--out", "front", "--pareto")
    assert [entry["trial"] for entry in exported] == [trial["number"] for trial in front]
    assert (folder / "front" / f"trial-{front[0]['number']:04d}" / "adapter.safetensors").is_file()
    theirs = optuna.load_study(study_name="tiny", storage=f"sqlite:///{folder}/sweeps/store.db")
    assert {trial.number for trial in theirs.best_trials} == undominated
    assert [trial.state.name.lower() for trial in theirs.trials] == [states[n] for n in sorted(states)]


def test_a_grid_is_trained_point_by_point_by_two_workers(folder: Path) -> None:
    session = begin(folder, search=SMALL, sampler="grid", budget={"trials": 20}, train={"epochs": 1})
    again = join_study("tiny", session.home)
    workers = [threading.Thread(target=run, args=(each,)) for each in (session, again)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert len(trials) == 8 and all(view.state == "complete" for view in trials)
    assert len({json.dumps(view.params, sort_keys=True) for view in trials}) == 8
    assert not any(view.reason for view in trials)
    assert session.ledger.status("tiny")["ended_because"] == "the grid is through: 8 points"


def test_points_past_a_limit_are_none_of_a_grid_and_take_no_place(folder: Path) -> None:
    given: dict[str, Any] = {"sampler": "grid", "train": {"epochs": 1}}
    # What meets one limit is past the other.
    search: dict[str, Any] = {"bottleneck_dim": 2, "layers": [[0], [1, 2]]}
    limits = {"trainable_parameters": 250, "flops_per_token": 70_000}
    with pytest.raises(
        UsageError, match="no adapter of the space is within trainable_parameters and"
    ) as caught:
        begin(folder, **given, search=search, limits=limits, budget={"trials": 5})
    assert caught.value.line is not None and not (folder / "sweeps" / "store.db").exists()
    given["search"] = {"bottleneck_dim": [2, 8], "layers": ["all", [0]], "activation": ["relu", "gelu"]}
    given["limits"] = {"trainable_parameters": 300}
    run(begin(folder, **given, budget={"trials": 1}))
    session = begin(folder, **given, budget={"trials": 5})
    run(session)
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    assert [view.state for view in trials] == ["complete"] * 2
    assert {view.params["activation"] for view in trials} == {"relu", "gelu"}
    assert all(view.params["bottleneck_dim"] == 2 for view in trials)
    assert session.row.ended_because == "the grid is through: 2 points"
    # The literature's is past the limit: none of the others takes its name.
    assert [view.number for view in trials] == [0, 1]
    assert summarize(session.ledger, "tiny")["references"]["default configuration"] is None


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_no_trial_past_a_limit_is_trained_and_the_sampler_is_told(folder: Path, sampler: str) -> None:
    session = begin(
        folder,
        search=SMALL | {"bottleneck_dim": [2, 32]},
        limits={"flops_per_token": LIMIT},
        sampler=sampler,
        budget={"trials": 4},
        train={"epochs": 1},
    )
    run(session)
    trials = [view for view in session.ledger.trials("tiny") if view.kind == "search"]
    config = load_config(session.study.backbone)

    def excess(params: dict[str, Any]) -> int:
        return flops_per_token(configuration(session.study, params).adapter, config) - LIMIT

    assert len(trials) == 4 and all(excess(view.params) <= 0 for view in trials)
    told = optuna_trials(session)
    past = [trial for trial in told if excess(trial.params) > 0]
    assert past and all(trial.state is TrialState.PRUNED and trial.value is None for trial in past)
    assert all(trial.constraints == {"flops_per_token": excess(trial.params)} for trial in told)


def test_every_plot_of_optuna_is_drawn_from_the_store(folder: Path) -> None:
    """With trials that are complete, pruned, refused and failed, and none of ours in between."""
    session = begin(
        folder,
        search=SMALL | {"bottleneck_dim": [2, 32], "learning_rate": {"from": 1e-3, "to": 1e-2}},
        limits={"flops_per_token": LIMIT},
        budget={"trials": 6},
        train={"epochs": 2},
        pruner={"name": "successive_halving", "minimum": 1},
    )
    run(session)
    study = optuna.load_study(study_name="tiny", storage=session.home.store_url)
    study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    assert {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL} <= {one.state for one in study.trials}
    plots = [name for name in optuna.visualization.__all__ if name.startswith("plot_")]
    of_several = {"plot_pareto_front", "plot_hypervolume_history", "plot_terminator_improvement"}
    assert len(plots) >= 10
    for name in sorted(set(plots) - of_several):
        assert getattr(optuna.visualization, name)(study).data, name


@pytest.mark.parametrize(
    ("budget", "because", "at_most"),
    [
        ({"target": 0.0}, "trial-0000 reached the target of 0", 1),
        ({"patience": 2}, "budget.patience is 2", 8),
        ({"terminator": EAGER}, "the terminator saw little left to gain", 8),
    ],
)
def test_whatever_comes_first_ends_a_study(
    folder: Path, budget: dict[str, Any], because: str, at_most: int
) -> None:
    session = begin(
        folder, search=SMALL, sampler="random", train={"epochs": 1}, budget={"trials": 30, **budget}
    )
    run(session)
    status = session.ledger.status("tiny")
    assert because in status["ended_because"] and status["state"] == "ended"
    assert 1 <= status["trials"]["complete"] <= at_most + 4
    assert status["trials"]["waiting"] > 0
    # Every study has the head alone as a reference, however early it ends.
    [head] = [view for view in session.ledger.trials("tiny") if view.kind == "reference"]
    assert head.state == "complete"


def test_the_reference_is_trained_though_the_terminator_ends_the_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.worker.ending.Terminator.is_over", lambda *arguments: True)
    session = begin(folder, search=SMALL, train={"epochs": 1}, budget={"trials": 9, "terminator": EAGER})
    work(session, Options("cpu", pack=1), threading.Event())
    head, *trials = session.ledger.trials("tiny")
    assert (head.kind, head.state) == ("reference", "complete")
    assert [view.state for view in trials] == ["complete", *["waiting"] * 8]
    assert session.row.ended_because == "the terminator saw little left to gain after 1 complete trial"


def test_a_warm_start_learns_from_an_earlier_study_and_says_what_it_left(folder: Path) -> None:
    earlier = begin(folder, search=SMALL, sampler="random", train={"epochs": 1}, budget={"trials": 5})
    run(earlier)
    narrow = SMALL | {"bottleneck_dim": [2], "layers": ["all", [0]]}
    session = begin(
        folder, study="later", search=narrow, warm_start=["tiny"], train={"epochs": 1}, budget={"trials": 1}
    )
    fitting = [
        view
        for view in earlier.ledger.trials("tiny")
        if view.kind == "search" and view.params["bottleneck_dim"] == 2 and view.params["layers"] == "all"
    ]
    (note,) = warm_notes(session.home, session.study)
    assert note.startswith(f"warm start from tiny: {len(fitting)} trials taken; left ")
    assert len(fitting) + sum(_left(note)) == 5
    seen = Trials(session.home, session.study)._optuna.get_trials()
    assert [(trial.params, trial.value) for trial in seen] == [
        ({name: view.params[name] for name in ("activation", "layers")}, view.objective) for view in fitting
    ]
    run(session)
    # They are none of its own: trial 0 is the default configuration, and nothing else is in the store.
    assert [trial.number for trial in optuna_trials(session)] == [0]
    with pytest.raises(UsageError, match="no earlier study 'gone'; it has"):
        begin(folder, study="third", search=narrow, warm_start=["gone"])


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_the_first_draw_learns_from_a_warm_start_and_limits_end_no_study(folder: Path, sampler: str) -> None:
    search = SMALL | {"bottleneck_dim": [2, 32], "learning_rate": {"from": 1.0e-4, "to": 1.0e-2, "log": True}}
    run(begin(folder, search=search, sampler="random", train={"epochs": 1}, budget={"trials": 4}))
    first = {}
    for study, earlier in (("cold", None), ("warm", ["tiny"])):
        session = begin(
            folder,
            study=study,
            search=search,
            sampler={"name": sampler, "n_startup_trials": 4},
            limits={"trainable_parameters": 10**9, "flops_per_token": LIMIT},
            warm_start=earlier,
            train={"epochs": 1},
            budget={"trials": 4},
        )
        run(session)
        assert session.ledger.status(study)["trials"]["complete"] == 4
        first[study] = next(trial.params for trial in optuna_trials(session) if trial.number == 1)
        # A Gaussian process takes the constraints of all trials in their order, whatever their names.
        seen = Trials(session.home, session.study)._optuna.get_trials()
        assert {tuple(trial.constraints) for trial in seen} == {("flops_per_token", "trainable_parameters")}
    # Nothing else than the earlier trials can make a difference: the seeds are the same.
    assert first["cold"] != first["warm"]


def test_a_warm_start_of_several_methods_takes_what_each_would_have_trained(folder: Path) -> None:
    lora = {"method": "lora", "rank": [2, 4], "learning_rate": 1.0e-2}
    for name, search, count in (("one", SMALL, 3), ("two", lora, 2)):
        earlier = begin(
            folder, study=name, search=search, sampler="grid", train={"epochs": 1}, budget={"trials": count}
        )
        run(earlier)
    ones = [view.params for view in earlier.ledger.trials("one") if view.kind == "search"]
    fitting = [params for params in ones if params["activation"] == "relu" and params["layers"] == "all"]
    both = {
        "method": {"bottleneck": {"bottleneck_dim": [2, 4]}, "lora": {"rank": [2, 4]}},
        "learning_rate": 1.0e-2,
    }
    later = {"study": "later", "search": both, "warm_start": ["one", "two"], "train": {"epochs": 1}}
    sampler = {"name": "gp", "n_startup_trials": 2}
    session = begin(folder, **later, budget={"trials": 2}, sampler=sampler)
    trials = Trials(session.home, session.study)._optuna.get_trials()
    seen = [trial.params for trial in trials]
    # What a Gaussian process draws from: of no method alone.
    assert list(intersection_search_space(trials)) == ["method"]
    # What the several methods do not name is at its default: a gelu is no point of that space.
    assert seen[: len(fitting)] == [
        {"method": "bottleneck", "bottleneck.bottleneck_dim": params["bottleneck_dim"]} for params in fitting
    ]
    assert [params["method"] for params in seen[len(fitting) :]] == ["lora", "lora"]
    assert {params["lora.rank"] for params in seen[len(fitting) :]} == {2, 4}
    run(session)
    assert session.ledger.status("later")["trials"]["complete"] == 2
    gone = write_study(folder, **{**later, "study": "another", "warm_start": ["one", "gone"]})
    checked = CommandLine(folder)("check", str(gone), "--no-measure")
    assert (
        checked.returncode == 2 and "warm_start[1]: the store has no earlier study 'gone'" in checked.stderr
    )


def _left(note: str) -> list[int]:
    return [int(count) for count in re.findall(r"left (\d+):", note)]


def test_a_sampler_learns_from_the_trials_that_ended_since_the_last_draw(folder: Path) -> None:
    search = {**SMALL, "learning_rate": {"from": 1.0e-4, "to": 1.0e-2, "log": True}}
    drawn = {}
    for sampler in ({"name": "tpe", "n_startup_trials": 3}, {"name": "random"}):
        session = begin(
            folder, study=f"by-{sampler['name']}", search=search, sampler=sampler, budget={"trials": 7}
        )
        run(session)
        drawn[sampler["name"]] = [view.params for view in session.ledger.trials(session.name) if view.params]
    tpe, random = drawn["tpe"], drawn["random"]
    assert tpe[:3] == random[:3]
    assert not any(one == other for one, other in zip(tpe[4:], random[4:], strict=True))
