"""The charts that a study opens with in MLflow's pages, and the page that compares its best trials.

Further saved views beside that of ``views``, in the same form. Its state has ``compareRunCharts``, a card for
each chart, and ``compareRunSections``, the headings under which they stand, with the fields that the pages of
MLflow 3.17 read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sweeper.finalists import LATENCY
from sweeper.tracking import views
from sweeper.tracking.confirmations import KIND
from sweeper.tracking.picture import KIND_TAG

if TYPE_CHECKING:
    from sweeper.ledger import TrialView

NAME = "Adapters, charts"
KEY = "sweeper-charts"
TAG = f"mlflow.sharedViewState.{KEY}"
FINALISTS_NAME, FINALISTS_KEY = "Finalists", "sweeper-finalists"
FINALISTS_TAG = f"mlflow.sharedViewState.{FINALISTS_KEY}"
MOST_COMPARED = 5
_SIZE = "trainable_parameters"
_SECTION, _WIDE = "sweeper", "sweeper-wide"


def state(searched: Sequence[str], shared: Sequence[str], direction: str) -> dict[str, Any]:
    """What the page holds: every run, and three charts.

    Args:
        searched: the parameters that vary.
        shared: those of them that every trial has, whatever its method.
        direction: of the objective, as for ``views.state``.
    """
    return {
        **views.state(searched, direction),
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [
            _scatter(f"{views.OBJECTIVE} against size"),
            _line(f"{views.OBJECTIVE} at every evaluation"),
            _parallel(shared),
        ],
        "compareRunSections": [
            _section(_SECTION, "Adapters", columns=2),
            _section(_WIDE, "Searched parameters", columns=1),
        ],
        "isAccordionReordered": True,
    }


def finalists_state(searched: Sequence[str], metric: str, direction: str) -> dict[str, Any]:
    """What the page of the finalists holds: what ``confirm`` compared, a run each, and three charts.

    Args:
        metric: that of the study, on the test rows.
    """
    mean = f"test/{metric}_mean"
    shown = (mean, *(f"test/{metric}_{name}" for name in ("sd", "low", "high")), *views.SIZES, LATENCY)
    title = f"test {metric}"
    return {
        **views.state(searched, direction, shown),
        "searchFilter": f"{views.column('tags', KIND_TAG)} = '{KIND}'",
        "runsHiddenMode": "SHOWALL",
        "compareRunCharts": [
            _card("BAR", metricKey=mean, displayName=f"{title}, mean"),
            _scatter(f"{title}, mean, against size", mean),
            _line(f"{title} by seed", f"test/{metric}"),
        ],
        "compareRunSections": [_section(_SECTION, "Finalists and references", columns=3)],
        "isAccordionReordered": True,
    }


def link(server: str, experiment_id: str, key: str = KEY) -> str:
    """The address that opens the charts of a study."""
    return f"{views.link(server, experiment_id, key)}&compareRunsMode=CHART"


def links(
    server: str,
    experiment_id: str,
    best: Sequence[TrialView],
    *,
    with_table: bool = True,
    with_finalists: bool = False,
) -> dict[str, str]:
    """The addresses that show a study, by what they show.

    Args:
        server: empty for addresses within MLflow's own pages.
        best: the best trials, best first; what is not drawn yet is left out.
        with_finalists: the study was confirmed.
    """
    runs = [trial.mlflow_run_id for trial in best if trial.mlflow_run_id is not None][:MOST_COMPARED]
    found = {"table": views.link(server, experiment_id)} if with_table else {}
    found["charts"] = link(server, experiment_id)
    if len(runs) > 1:
        found[f"the best {len(runs)} compared"] = compare_link(server, experiment_id, runs)
    if with_finalists:
        found["the finalists"] = link(server, experiment_id, FINALISTS_KEY)
    return found


def report_link(server: str, experiment_id: str, run_id: str) -> str:
    """The address of the report among the parent run's artifacts."""
    page = f"#/experiments/{quote(experiment_id, safe='')}/runs/{run_id}"
    return f"{views.root(server)}{page}/artifacts/report.html"


def compare_link(server: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The address of MLflow's own comparison of runs, the first of which is the best."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")), safe="")
    experiments = quote(json.dumps([experiment_id]), safe="")
    return f"{views.root(server)}#/compare-runs?runs={runs}&experiments={experiments}"


def _section(uuid: str, name: str, columns: int) -> dict[str, Any]:
    shown = {"display": True, "isReordered": False, "deleted": False, "isGenerated": False}
    return {"uuid": uuid, "name": name, "columns": columns, "cardHeight": 360, **shown}


def _card(kind: str, **fields: Any) -> dict[str, Any]:
    return {
        "uuid": f"{_SECTION}-{kind.lower()}",
        "type": kind,
        "runsCountToCompare": 1000,
        "metricSectionId": _SECTION,
        "deleted": False,
        "isGenerated": False,
        **fields,
    }


def _scatter(title: str, metric: str = views.OBJECTIVE) -> dict[str, Any]:
    across, up = ({"key": key, "type": "METRIC"} for key in (_SIZE, metric))
    return _card("SCATTER", xaxis=across, yaxis=up, displayName=title)


def _line(title: str, metric: str = views.OBJECTIVE) -> dict[str, Any]:
    return _card(
        "LINE",
        metricKey=metric,
        selectedMetricKeys=[metric],
        lineSmoothness=0,
        scaleType="linear",
        xAxisScaleType="linear",
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        range={},
        displayPoints=True,
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
        displayName=title,
    )


def _parallel(shared: Sequence[str]) -> dict[str, Any]:
    # Only runs that have every one of these are drawn: all trials of the search, no reference.
    return _card(
        "PARALLEL",
        metricSectionId=_WIDE,
        selectedParams=list(shared),
        selectedMetrics=[views.OBJECTIVE],
        showAllRuns=True,
    )
