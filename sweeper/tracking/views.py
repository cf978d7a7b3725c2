"""The view that a study opens with in MLflow's pages: every trial a row, sorted, with sizes and parameters.

By itself the page shows one row and no column that matters. A view saved there is a tag of the experiment,
``mlflow.sharedViewState.KEY``, and opens in any browser by its key. Its value, as the pages of MLflow 3.16
and 3.17 write it, is JSON: ``{"name", "createdAt", "updatedAt", "state"}``, where ``state`` is ``deflate;``
and the base64 of the zlib-compressed JSON of what the page holds.

Runs sorted by a metric are listed flat, children beside their parent: so all trials are seen at once. (Which
parents are expanded is no part of a saved view.)
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

NAME = "Adapters"
KEY = "sweeper"
TAG = f"mlflow.sharedViewState.{KEY}"
OBJECTIVE = "objective"
SIZES = ("trainable_parameters", "trainable_percent", "adapter_parameters")
STATE_TAG = "sweeper.state"
"""``best``, or how the trial stands: a trial that was pruned early may be above the best in the table."""

_DEFLATE = "deflate;"
_RUN_NAME = "attributes.`Run Name`"
# Columns that the page always shows; their names in it are not those of other columns.
_CREATED, _DURATION = "runDateAndNestInfo", "duration"
_PIXELS = {_RUN_NAME: 150, _CREATED: 132, _DURATION: 80}
_PIXELS_A_LETTER, _PIXELS_AROUND = 6, 24
_PIXELS_OF_AN_ICON = 18


def column(kind: str, name: str) -> str:
    """MLflow's name of a column. ``kind`` is ``metrics``, ``params`` or ``tags``."""
    return f"{kind}.`{name}`"


def state(
    searched: Sequence[str], direction: str, shown: Sequence[str] = (OBJECTIVE, *SIZES)
) -> dict[str, Any]:
    """What the page holds: which columns, how wide, sorted by what.

    Args:
        searched: the parameters that vary, in the order of their columns.
        direction: of the objective, ``maximize`` or ``minimize``; the best is at the top either way.
        shown: the metrics that are columns; the first is that by which runs are sorted.
    """
    metrics = [column("metrics", name) for name in shown]
    columns = [column("tags", STATE_TAG), *metrics, *(column("params", name) for name in searched)]
    widths = {**_PIXELS, **{name: _width(name) for name in columns}}
    widths[metrics[0]] += _PIXELS_OF_AN_ICON  # the arrow of the column that sorts
    return {
        "searchFilter": "",
        "orderByKey": metrics[0],
        "orderByAsc": direction == "minimize",
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
        "columnOrder": [_RUN_NAME, _CREATED, *columns, _DURATION],
        "columnWidths": widths,
        "runsHiddenMode": "FIRST_20_RUNS",
        "viewMaximized": False,
        "runListHidden": False,
        "isAccordionReordered": False,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
        "groupBy": None,
        "groupsExpanded": {},
    }


def _width(name: str) -> int:
    letters = len(name) - name.index("`") - 2
    return max(90, _PIXELS_AROUND + _PIXELS_A_LETTER * letters)


def encode(view: dict[str, Any], created_at: float, name: str = NAME) -> str:
    """The value of the experiment's tag; the same view gives the same value.

    Args:
        created_at: seconds since 1970.
    """
    packed = base64.b64encode(zlib.compress(json.dumps(view, separators=(",", ":")).encode())).decode()
    milliseconds = round(created_at * 1000)
    envelope = {
        "name": name,
        "createdAt": milliseconds,
        "updatedAt": milliseconds,
        "state": _DEFLATE + packed,
    }
    return json.dumps(envelope, separators=(",", ":"))


def root(server: str) -> str:
    """The address of MLflow's pages; empty for links within them."""
    return f"{server.rstrip('/')}/" if server else ""


def link(server: str, experiment_id: str, key: str = KEY) -> str:
    """The address that opens a study on its view.

    Args:
        server: such as ``http://127.0.0.1:5000``; a slash at its end does no harm.
    """
    page = f"#/experiments/{quote(experiment_id, safe='')}/runs"
    return f"{root(server)}{page}?workflowType=machine_learning&viewStateShareKey={key}"
