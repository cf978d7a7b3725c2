"""The metrics of each kind of task, by kept libraries, over a whole split.

Outputs that are not finite make every metric nan.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    "multi_label": {
        "f1_micro": "maximize",
        "f1_macro": "maximize",
        "subset_accuracy": "maximize",
        "loss": "minimize",
    },
    "token_classification": {
        "entity_f1": "maximize",
        "entity_precision": "maximize",
        "entity_recall": "maximize",
        "accuracy": "maximize",
        "loss": "minimize",
    },
    "causal_lm": {"perplexity": "minimize", "loss": "minimize"},
}
"""Every metric of a kind of task, and the direction in which it is better."""
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("accuracy", "subset_accuracy", "f1_macro", "f1_micro"), (0.0, 1.0)),
    **dict.fromkeys(("entity_f1", "entity_precision", "entity_recall"), (0.0, 1.0)),
    **dict.fromkeys(("matthews", "pearson", "spearman"), (-1.0, 1.0)),
    **dict.fromkeys(("loss", "mean_squared_error"), (0.0, math.inf)),
    "perplexity": (1.0, math.inf),
}
"""Where each metric lies, its ends included."""
KNOWN_BEFORE = {"trainable_parameters": "minimize", "flops_per_token": "minimize"}
"""What a configuration costs, known before it is trained: for further objectives, and for limits."""


def in_words(cost: str) -> str:
    """The name of such a cost as people say it: ``FLOPs per token``."""
    return cost.replace("_", " ").replace("flops", "FLOPs")


_CHUNK_TAG = re.compile(r"O|[BIES]-.+")


def classification(outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of class numbers.

    F1 is averaged over the labels that occur, as scikit-learn does, and is 0 for one that is never predicted.

    Args:
        outputs: ``[texts, classes]``, of any float dtype, on the CPU or not.
        labels: int64 ``[texts]``.
    """
    import torch.nn.functional as functional
    from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

    exact = _exact(outputs)
    if exact is None:
        return _all_nan("classification")
    truth, predicted = labels.cpu().numpy(), exact.argmax(-1).numpy()
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "f1_macro": float(f1_score(truth, predicted, average="macro")),
        "matthews": float(matthews_corrcoef(truth, predicted)),
        "loss": functional.cross_entropy(exact, labels.cpu()).item(),
    }


def regression(outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of numbers.

    A correlation of predictions or labels that are all equal does not exist: it is nan, and nan is not turned
    into a number.

    Args:
        outputs: ``[texts, 1]``.
        labels: ``[texts]``, floats.
    """
    from scipy.stats import pearsonr, spearmanr
    from sklearn.metrics import mean_squared_error

    exact = _exact(outputs)
    if exact is None:
        return _all_nan("regression")
    truth, predicted = labels.cpu().double().numpy(), exact[:, 0].numpy()
    correlated = all(values.min() < values.max() for values in (truth, predicted))
    error = float(mean_squared_error(truth, predicted))
    return {
        "pearson": float(pearsonr(truth, predicted).statistic) if correlated else math.nan,
        "spearman": float(spearmanr(truth, predicted).statistic) if correlated else math.nan,
        "mean_squared_error": error,
        "loss": error,
    }


def multi_label(outputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of labels that each text has or has not, given from a probability of a half on.

    F1 is over all decisions (micro), or averaged over the labels that occur in truth or prediction (macro);
    where nothing is right it is 0. ``subset_accuracy`` counts the texts of which every label is right.

    Args:
        outputs: ``[texts, labels]``.
        labels: ``[texts, labels]``, 1 where a text has a label.
    """
    import torch.nn.functional as functional
    from sklearn.metrics import f1_score

    exact = _exact(outputs)
    if exact is None:
        return _all_nan("multi_label")
    truth, predicted = labels.cpu().numpy() > 0, exact.numpy() >= 0
    occurs = (truth | predicted).any(0)
    micro = macro = 0.0
    if occurs.any():
        own = (truth[:, occurs], predicted[:, occurs])
        # One column would be taken for classes of a single label each.
        micro = float(f1_score(own[0].ravel(), own[1].ravel(), zero_division=0))
        each = [f1_score(*column, zero_division=0) for column in zip(own[0].T, own[1].T, strict=True)]
        macro = float(sum(each) / len(each))
    return {
        "f1_micro": micro,
        "f1_macro": macro,
        "subset_accuracy": float((truth == predicted).all(1).mean()),
        "loss": functional.binary_cross_entropy_with_logits(exact, labels.cpu().double()).item(),
    }


def tagging(outputs: Tensor, labels: Tensor, words: Sequence[int], names: Sequence[str]) -> dict[str, float]:
    """Metrics of a tag for each word.

    An entity counts as found if its type and its first and last word are right. Without tags of entities (see
    :func:`marks_entities`) the metrics of entities do not exist: they are nan.

    Args:
        outputs: ``[words, tags]``.
        labels: int64 ``[words]``.
        words: how many of them each text has.
        names: of the tags, by number.
    """
    import torch.nn.functional as functional

    exact = _exact(outputs)
    if exact is None:
        return _all_nan("token_classification")
    truth, predicted = labels.cpu(), exact.argmax(-1)
    found = dict.fromkeys(("entity_f1", "entity_precision", "entity_recall"), math.nan)
    if marks_entities(names):
        found = entities(*(_by_text(tags, words, names) for tags in (truth, predicted)))
    return {
        **found,
        "accuracy": (truth == predicted).double().mean().item(),
        "loss": functional.cross_entropy(exact, truth).item(),
    }


def language(losses: Tensor) -> dict[str, float]:
    """The mean loss of all tokens that were predicted, and the perplexity: its exponential.

    Args:
        losses: of each, ``[tokens, 1]``.
    """
    exact = _exact(losses)
    if exact is None:
        return _all_nan("causal_lm")
    loss = exact.mean().item()
    return {"perplexity": perplexity(loss), "loss": loss}


def perplexity(loss: float) -> float:
    """The exponential of a mean loss; infinite where that is beyond all numbers."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def marks_entities(names: Sequence[str]) -> bool:
    """Whether tags are of IOB2 or IOBES: ``O``, and a type behind ``B-``, ``I-``, ``E-`` or ``S-``."""
    return all(_CHUNK_TAG.fullmatch(name) for name in names)


def entities(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """Precision, recall and F1 of whole entities, over all types together, as seqeval has them.

    A wrong sequence of tags is read as conlleval does: an I- after O, or of another type, begins an entity.

    Args:
        truth, predicted: the tags of each text, IOB2 or IOBES.
    """
    from nervaluate import Evaluator

    both = [[_iob2(tags) for tags in texts] for texts in (truth, predicted)]
    types = sorted({tag[2:] for texts in both for tags in texts for tag in tags if tag != "O"})
    found = Evaluator(*both, tags=types, loader="list").evaluate()["overall"]["strict"]
    return {"entity_f1": found.f1, "entity_precision": found.precision, "entity_recall": found.recall}


def _by_text(tags: Tensor, words: Sequence[int], names: Sequence[str]) -> list[list[str]]:
    return [[names[tag] for tag in text.tolist()] for text in tags.split(list(words))]


def _iob2(tags: Sequence[str]) -> list[str]:
    """The same entities in IOB2, which nervaluate reads: after an E- or S- another one begins."""
    found = []
    for before, tag in zip(["O", *tags], tags, strict=False):
        begins = tag[0] in "BS" or before[0] in "ES"
        found.append(tag if tag == "O" else f"{'B' if begins else 'I'}-{tag[2:]}")
    return found


def _exact(outputs: Tensor) -> Tensor | None:
    """On the CPU in fp64; None if something of it is not finite."""
    import torch

    exact = outputs.detach().to("cpu", torch.float64)
    return exact if torch.isfinite(exact).all() else None


def _all_nan(kind: str) -> dict[str, float]:
    return dict.fromkeys(METRICS[kind], math.nan)
