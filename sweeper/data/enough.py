"""Whether the rows are enough for what the study file asks: told before anything is started."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sweeper.errors import UsageError
from sweeper.metrics import marks_entities
from sweeper.study.plugins import largest
from sweeper.tasks.kind import Names
from sweeper.words import short

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


def check_objective(study: Study, labels: Mapping[str, Sequence[object]], label_names: Names) -> None:
    """Refuse an objective that does not exist on the rows: every trial would diverge.

    A correlation has labels that differ; entities are marked by tags of IOB2 or IOBES.

    Args:
        labels: of validation; and of test, where there is one: `confirm` compares the first objective there.
    """
    metrics = [each.metric for each in study.objectives]
    entities = next((metric for metric in metrics if metric.startswith("entity_")), None)
    if entities is not None and not marks_entities(label_names or ()):
        other = next(name for name in label_names or () if not marks_entities([name]))
        raise UsageError(
            f"{entities} needs tags of IOB2 or IOBES, such as O, B-PER, I-PER, and {short(other)} is none: "
            "name another metric, such as accuracy",
            file=study.path,
            line=study.line("objective"),
        )
    for metric in metrics:
        _check_correlation(study, metric, "validation", labels["validation"])
    if "test" in labels:
        _check_correlation(study, metrics[0], "test", labels["test"])


def _check_correlation(study: Study, metric: str, split: str, labels: Sequence[object]) -> None:
    # As training has them: of whole numbers above 16 million, some that differ by 1 are one number in fp32.
    if metric in ("pearson", "spearman") and len(set(array("f", labels))) == 1:  # type: ignore[type-var]
        as_kept = "" if len(set(labels)) == 1 else " in fp32"
        raise UsageError(
            f"all rows of {split} have the same label{as_kept}, so that {metric} does not exist: name "
            "other rows, or another metric, such as mean_squared_error"
            if len(labels) > 1
            else f"{split} has one row, so that {metric} does not exist: name more rows",
            file=study.path,
            line=study.line("data", split),
        )
