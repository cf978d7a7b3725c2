"""How other libraries name the modules of each family: `make interop` shows every row of these tables."""

from __future__ import annotations

import re
from typing import NamedTuple

from adapters.architectures import architecture_of
from adapters.errors import AdapterError
from adapters.fields import TARGET_SETS
from adapters.interop.common import Place
from adapters.points import Point, target_linears
from adapters.shape import Shape


class Names(NamedTuple):
    """What transformers calls the parts of a model with a head on it.

    Args:
        prefix: the attribute that holds the backbone (`base_model_prefix`).
        token_head: the attribute that holds the linear head of the class ``…ForTokenClassification``; None
            where there is no such class, or its head has more layers than a linear one.
        cache: whether its models take keys and values of earlier tokens, as which PEFT hands a prefix over.
    """

    prefix: str
    token_head: str | None
    cache: bool = True


PEFT: dict[str, Names] = {
    "bert": Names("bert", "classifier"),
    "roberta": Names("roberta", "classifier"),
    "xlm-roberta": Names("roberta", "classifier"),
    "electra": Names("electra", "classifier"),
    "deberta-v2": Names("deberta", "classifier", cache=False),
    "mpnet": Names("mpnet", "classifier", cache=False),
    "distilbert": Names("distilbert", "classifier", cache=False),
    "modernbert": Names("model", None, cache=False),
    "gpt2": Names("transformer", "classifier"),
    "opt": Names("model", None),
    "gpt_neox": Names("gpt_neox", "classifier"),
    "llama": Names("model", "score"),
    "mistral": Names("model", "score"),
    "qwen2": Names("model", "score"),
    "qwen3": Names("model", "score"),
    "phi3": Names("model", "score"),
}
"""PEFT names a module by its path in the model, which the table of families has: all that is needed is "
"this."""


def names_of(model_type: str) -> Names:
    """The names of a family in PEFT; AdapterError if it was never tried."""
    if model_type not in PEFT:
        raise AdapterError(
            f"exchange with PEFT is not shown for the family {model_type!r}, so it is not offered; it is for "
            f"{', '.join(PEFT)}"
        )
    return PEFT[model_type]


def linear_path(shape: Shape, place: Point) -> str:
    """Path of a linear from `model.base_model`."""
    return f"{architecture_of(shape).part(place.layer, shape).path}.{place.path}"


def place_of(key: str, shape: Shape, prefix: str) -> Place | None:
    """Which linear of which layer a weight's name means.

    Args:
        key: the path of the weight from the model, with or without `prefix` in front.
        shape: of the backbone.
        prefix: of its family.

    Returns:
        None if it lies in no layer of the backbone.

    Raises:
        AdapterError: it lies in a layer, but at no linear that the family's row names.
    """
    row = architecture_of(shape)
    pattern = rf"(?:{re.escape(prefix)}\.)?{re.escape(row.layers)}\.(\d{{1,4}})\.(.+)"
    found = re.fullmatch(pattern, key)
    if found is None:
        return None
    layer, rest = int(found[1]), found[2]
    for name, path in row.linears.items():
        if rest.startswith(f"{path}."):
            return Place(layer, name, rest[len(path) + 1 :])
    raise AdapterError(
        f"it changes {key!r}, and the row of {row.model_type!r} names no such linear; it has: "
        f"{', '.join(row.linears)}",
        "targets",
    )


def targets_of(linears: list[str], shape: Shape) -> str:
    """`AdapterConfig.targets` of some linears of a family: the name of their set, if it has one."""
    row = architecture_of(shape)
    for name in TARGET_SETS:
        if set(target_linears(name, row)) == set(linears):
            return name
    return "+".join(sorted(linears, key=list(row.linears).index))
