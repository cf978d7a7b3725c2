"""The heads that PEFT saves with an adapter: of transformers' classes, as each family has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from adapters.errors import AdapterError
from adapters.interop.common import Folder
from adapters.interop.heads import POOLINGS, Head
from adapters.interop.naming import Names


class _Class(NamedTuple):
    """How a class ``…ForSequenceClassification`` puts its head together: see `Head`."""

    pooling: str
    linears: tuple[str, ...]
    between: Callable[[Tensor], Tensor] | None = None


_TWO = ("classifier.dense", "classifier.out_proj")
_TANH = _Class("cls", _TWO, torch.tanh)
_POOLED = _Class("pooler", ("classifier",))
_LAST = _Class("last", ("score",))
_SEQUENCE: Mapping[str, _Class] = {
    "bert": _POOLED,
    "roberta": _TANH,
    "xlm-roberta": _TANH,
    "electra": _Class("cls", _TWO, functional.gelu),
    "distilbert": _Class("cls", ("pre_classifier", "classifier"), partial(functional.relu)),
    "mpnet": _TANH,
    "gpt2": _LAST,
    "opt": _LAST,
    "llama": _LAST,
    "mistral": _LAST,
    "qwen2": _LAST,
    "qwen3": _LAST,
}


def head_in(folder: Folder, weights: Mapping[str, Tensor], model_type: str, names: Names) -> Head | None:
    """The head that was saved with an adapter; None without one.

    Args:
        folder: what was read.
        weights: of the head, by their names in the model.
        model_type, names: of the backbone.

    Raises:
        AdapterError: the head is of a class that is not known, or lacks a weight.
    """
    if not weights:
        return None
    task, kind = folder.config.get("task_type"), folder.config["peft_type"]
    if task == "TOKEN_CLS" and names.token_head is not None:
        found = _Class(_own_pooling(folder), (names.token_head,))
    elif task == "SEQ_CLS" and model_type in _SEQUENCE:
        found = _SEQUENCE[model_type]
        if kind == "PROMPT_TUNING" and found.pooling != "last":
            raise AdapterError(
                "its head reads the first token, which in PEFT is the prompt's first vector, and here the "
                "text's "
                "own: load the adapter without its head"
            )
    else:
        raise AdapterError(
            f"its head is of the task {task!r}, which for {model_type!r} is not known here; load the adapter "
            "without it"
        )
    layers, used = [], set()
    for linear in found.linears:
        weight, bias = weights.get(f"{linear}.weight"), weights.get(f"{linear}.bias")
        if weight is None:
            raise AdapterError(f"its head lacks {linear}.weight, which was left as it was drawn (PEFT)")
        layers.append((weight, bias))
        used |= {f"{linear}.weight", f"{linear}.bias"}
    if beyond := sorted(weights.keys() - used):
        raise AdapterError(f"its head has {beyond[0]!r}, which the {task} class of {model_type!r} has not")
    return Head(tuple(layers), found.pooling, between=found.between)


def _own_pooling(folder: Folder) -> str:
    """What `to_peft` wrote; a head of PEFT's own reads each token by itself."""
    pooling = folder.metadata.get("pooling", "tokens")
    if pooling not in POOLINGS:
        raise AdapterError(
            f"its weights file names the pooling {pooling[:40]!r}; known: {', '.join(POOLINGS)}"
        )
    return pooling
