"""The metrics of each kind of task, by kept libraries, over a whole split."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

METRICS: dict[str, dict[str, str]] = {
    "classification": {
        "accuracy": "maximize",
        "f1_macro": "maximize",
        "matthews": "maximize",
        "loss": "minimize",
    },
    "regression": {
        "pearson": "maximize",
        "spearman": "maximize",
        "mean_squared_error": "minimize",
        "loss": "minimize",
    },
}
"""Every metric of a kind of task, and the direction in which it is better."""
RANGES: dict[str, tuple[float, float]] = {
    "accuracy": (0.0, 1.0),
    "f1_macro": (0.0, 1.0),
    "matthews": (-1.0, 1.0),
    "pearson": (-1.0, 1.0),
    "spearman": (-1.0, 1.0),
    "loss": (0.0, math.inf),
    "mean_squared_error": (0.0, math.inf),
}
"""Where a metric lies, its ends included; one that is not here may be any number."""
KNOWN_BEFORE = {"trainable_parameters": "minimize", "flops_per_token": "minimize"}
"""What a configuration costs, known before it is trained: for further objectives, and for limits."""


def metrics(kind: str, logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Every metric of a kind of task over a split.

    A correlation of predictions or labels that are all equal does not exist: it is nan, and nan is not turned
    into a number. Logits that are not finite make every metric nan. F1 is averaged over the labels that
    occur, as scikit-learn does, and is 0 for one that is never predicted.

    Args:
        kind: "classification" or "regression".
        logits: ``[examples, outputs]``, of any float dtype, on the CPU or not.
        labels: ``[examples]``, int64 class numbers or floats.
    """
    import torch
    import torch.nn.functional as functional

    exact = logits.detach().to("cpu", torch.float64)
    truth = labels.detach().to("cpu")
    if not torch.isfinite(exact).all():
        return dict.fromkeys(METRICS[kind], math.nan)
    if kind == "classification":
        values = _classification(truth.numpy(), exact.argmax(-1).numpy())
        return values | {"loss": functional.cross_entropy(exact, truth).item()}
    values = _regression(truth.double().numpy(), exact[:, 0].numpy())
    return values | {"loss": values["mean_squared_error"]}


def _classification(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1_macro": float(f1_score(truth, predicted, average="macro")),
        "matthews": float(matthews_corrcoef(truth, predicted)),
    }


def _regression(truth: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    correlated = all(values.min() < values.max() for values in (truth, predicted))
    return {
        "pearson": float(pearsonr(truth, predicted).statistic) if correlated else math.nan,
        "spearman": float(spearmanr(truth, predicted).statistic) if correlated else math.nan,
        "mean_squared_error": float(mean_squared_error(truth, predicted)),
    }
