"""What a warm start makes of a trial: what was measured, and its costs over this study's own backbone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

from adapters.count import parameters_in
from adapters.flops import flops_per_token
from sweeper import space
from sweeper.ledger import TrialView
from sweeper.limits import Limits
from sweeper.study import load_study
from sweeper.warmstart import _measured
from tests.tiny_folder import write_study
from tests.tiny_models import tiny_config

OUTPUTS, HEAD = 5, 5 * (32 + 1)


def test_costs_are_those_of_this_study(tmp_path: Path) -> None:
    path = write_study(
        tmp_path,
        objective=[
            {"metric": "accuracy", "direction": "maximize"},
            {"metric": "trainable_parameters", "direction": "minimize"},
        ],
        limits={"trainable_parameters": 500, "flops_per_token": 10_000},
    )
    study, config = load_study(path), tiny_config("bert")
    params = space.default_params(study, 32)
    adapter = space.configuration(study, params).adapter
    own = parameters_in(adapter, config) + HEAD
    metrics = {"accuracy": 0.5, "flops_per_token": 7.0, "trainable_parameters": 7.0}
    view = cast(TrialView, SimpleNamespace(metrics=metrics, trainable_parameters=7, head_parameters=66))
    assert _measured(Limits(study, config, OUTPUTS), params, view) == {
        "params": params,
        "values": [0.5, float(own)],
        "excess": {
            "trainable_parameters": own - 500,
            "flops_per_token": flops_per_token(adapter, config) - 10_000,
        },
    }
    bare = cast(TrialView, SimpleNamespace(metrics={}, trainable_parameters=7, head_parameters=66))
    lacks = _measured(Limits(study, config, OUTPUTS), params, bare)
    assert lacks == "they lack an objective of this study"
