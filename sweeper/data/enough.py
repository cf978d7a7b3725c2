"""Whether the rows are enough for what the study file asks: told before anything is started."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sweeper.errors import UsageError
from sweeper.study.plugins import largest

if TYPE_CHECKING:
    from sweeper.study import Study


def check_evaluations(study: Study, rows: int) -> None:
    """Refuse more evaluations in an epoch than it has steps: some would be left out, and rungs with them.

    Args:
        rows: of train.
    """
    wanted, batch_size = study.train.evaluations_per_epoch, largest("batch_size", study.search, study.train)
    steps = math.ceil(rows / batch_size)
    if wanted > steps:
        raise UsageError(
            f"train.evaluations_per_epoch is {wanted}, but {rows} rows at batch_size {batch_size} "
            f"are {steps} step{'s' * (steps > 1)} an epoch: lower one of the two",
            file=study.path,
            line=study.line("train", "evaluations_per_epoch"),
        )


def check_objective(study: Study, labels: Sequence[object]) -> None:
    """Refuse a correlation with labels that are all equal: it does not exist, and every trial would diverge.

    Args:
        labels: of validation.
    """
    metric = study.objective.metric
    if metric in ("pearson", "spearman") and len(set(labels)) == 1:
        raise UsageError(
            f"all rows of validation have the same label, so that {metric} does not exist: name "
            "other rows, or another metric, such as mean_squared_error"
            if len(labels) > 1
            else f"validation has one row, so that {metric} does not exist: name more rows",
            file=study.path,
            line=study.line("data", "validation"),
        )
