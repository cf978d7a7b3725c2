"""The saved view and its link. That MLflow's page understands them is seen by the browser test."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from sweeper.tracking import charts, views

SEARCHED = ("bottleneck_dim", "activation", "initialization", "placement", "layers", "learning_rate")
# A view saved by hand in the pages of MLflow 3.17.2: sorted by objective, with four columns ticked.
BY_HAND = (
    '{"name":"my view","createdAt":1795477771548,"updatedAt":1795477771548,"state":"deflate;'
    "eJxtUsFOG0EM/RU054jCNbclhRaRUCmhFAlVYTLjZE09M6uxJ02K8u94d2kSEEc/+9nv2X4xDDa7+gpJIJuhMQOTsod8sb2B"
    "rcYBJKPj06e0eAYnuIanQ0nFzgyXlhgGhsVmucMASqrGYy0iXILbOoJ986proClvxTII/888/h6YkDzQPWTGFA8MopNpiawc"
    "BlIB4EeJSlBk+GisqLhFEVB9s1Sy68Qdo5O2KX9Ev/bjW/hzf43NNii4SCIEEdyfucdwnCFdW8S4mmcr8K7R2hKqP3XxhRLr"
    "bPXmOs0/2q31ZnvgF3qp1cnLbmCyuvyO3kNsNav1q+vp7G5+fjaf/ryd6YA1wt+J3WDAf+D3a1faGFl65h5FrpzTI6mIKXTH"
    "OqIUhm85lQb8vaUCfB1Htd5OdUgumq/Rw2VoZPseXrWcC/2JWIjeQr7cNDb6tnnrYUVpYWmMETrqKMUlrjRlNtUGuX8oFmi6"
    "54gwCylJHYF1xtnhwA9t8aRbZ08xu90r5+LzWg=="
    '"}'
)


def decode(value: str) -> dict[str, Any]:
    """What MLflow's page reads from the tag."""
    return json.loads(zlib.decompress(base64.b64decode(json.loads(value)["state"].removeprefix("deflate;"))))


def test_a_view_saved_in_the_page_is_understood() -> None:
    saved = decode(BY_HAND)
    assert saved["orderByKey"] == views.column("metrics", "objective")
    assert views.column("params", "learning_rate") in saved["selectedColumns"]
    assert set(views.state(SEARCHED, "maximize")) <= set(saved)


def test_a_view_survives_its_encoding() -> None:
    state = views.state(SEARCHED, "maximize")
    assert decode(views.encode(state, 1795477771.5)) == state
    assert views.encode(state, 1.0) == views.encode(state, 1.0)


@pytest.mark.parametrize(("direction", "ascending"), [("maximize", False), ("minimize", True)])
def test_the_best_is_at_the_top(direction: str, ascending: bool) -> None:
    assert views.state(SEARCHED, direction)["orderByAsc"] is ascending


def test_the_columns_are_the_state_the_objective_the_sizes_and_what_was_searched() -> None:
    state = views.state(SEARCHED, "maximize")
    metrics = [views.column("metrics", name) for name in ("objective", *views.SIZES)]
    params = [views.column("params", name) for name in SEARCHED]
    assert state["selectedColumns"] == [views.column("tags", views.STATE_TAG), *metrics, *params]
    assert set(state["columnOrder"]) == set(state["columnWidths"]) >= set(state["selectedColumns"])


def test_a_view_of_every_parameter_fits_into_a_tag() -> None:
    everything = [
        *SEARCHED,
        "scaling",
        "dropout",
        "epochs",
        "batch_size",
        "warmup",
        "weight_decay",
        "schedule",
    ]
    assert len(views.encode(views.state(everything, "minimize"), 2e9)) < 5000  # MLflow's limit


def test_the_link_opens_the_runs_on_the_view() -> None:
    wanted = (
        "http://127.0.0.1:5000/#/experiments/12/runs?workflowType=machine_learning&viewStateShareKey=sweeper"
    )
    assert views.link("http://127.0.0.1:5000", "12") == wanted
    assert views.link("http://127.0.0.1:5000/", "12") == wanted


def test_the_charts_stand_in_sections_that_are_there_and_show_what_was_searched() -> None:
    state = charts.state(SEARCHED, SEARCHED, "maximize")
    assert decode(views.encode(state, 1.0, charts.NAME)) == state
    cards = {card["type"]: card for card in state["compareRunCharts"]}
    assert set(cards) == {"SCATTER", "LINE", "PARALLEL"}
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {card["metricSectionId"] for card in cards.values()} == sections
    assert cards["PARALLEL"]["selectedParams"] == list(SEARCHED)
    assert (cards["SCATTER"]["xaxis"]["key"], cards["SCATTER"]["yaxis"]["key"]) == (
        "trainable_parameters",
        "objective",
    )


def test_the_links_of_a_study() -> None:
    assert charts.link("http://127.0.0.1:5000/", "12") == (
        "http://127.0.0.1:5000/#/experiments/12/runs?workflowType=machine_learning"
        "&viewStateShareKey=sweeper-charts&compareRunsMode=CHART"
    )
    assert charts.compare_link("", "12", ["a", "b"]) == (
        "#/compare-runs?runs=%5B%22a%22%2C%22b%22%5D&experiments=%5B%2212%22%5D"
    )
