"""The section ``search`` of a study file: which values each field of the adapter and its training may take.

What a single value may be is decided by AdapterConfig and TrainConfig alone; here a list, a range and a
scalar are told apart, and every value of theirs is put to those two.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from decimal import Decimal
from typing import Any

from adapters.config import METHODS, AdapterConfig, Part, fields_of
from adapters.errors import AdapterError
from adapters.fields import DEFAULTS, POSITIVE_FIELDS, REQUIRED, SHARE_FIELDS
from adapters.fields import WHOLE_FIELDS as WHOLE_ADAPTER_FIELDS
from adapters.placements import PLACEMENTS
from sweeper.errors import UsageError
from sweeper.study.layerbits import bits_of, is_bit, read_bits
from sweeper.study.node import Node
from sweeper.study.schema import BIT, Choice, Fixed, Range, Spec, Value
from sweeper.trainconfig import TrainConfig, TrainConfigError
from sweeper.words import nearest, short

PARTS_FIELD = "adapters"
"""The field of a composition that names the frozen adapters it is made of, by their folders."""
_LEAST: Mapping[str, Any] = {
    PARTS_FIELD: tuple(Part(AdapterConfig(bottleneck_dim=units)) for units in (1, 2)),
    "bottleneck_dim": 1,
}
ADAPTER_FIELDS = tuple(field.name for field in fields(AdapterConfig))
FIXED_TRAIN_FIELDS = ("max_length", "evaluations_per_epoch", "dtype", "keep")
"""Keys of ``train`` that are the same in all trials: tokens, rungs and what is compared depend on them."""
TRAIN_FIELDS = tuple(f.name for f in fields(TrainConfig) if f.name not in FIXED_TRAIN_FIELDS)
SEARCH_FIELDS = (*ADAPTER_FIELDS, *TRAIN_FIELDS)
WHOLE_FIELDS = (*WHOLE_ADAPTER_FIELDS, "epochs", "batch_size")
NUMBER_FIELDS = (
    *POSITIVE_FIELDS,
    *SHARE_FIELDS,
    "learning_rate",
    "warmup",
    "weight_decay",
    "max_grad_norm",
)


def read_search(
    node: Node, placements: Mapping[str, str] | None = None, layers: Callable[[], int] | None = None
) -> dict[str, Spec]:
    """The search space in drawing order: the method, its fields, then those of the training.

    Of one method every field is there, with its default if the file does not name it. Of several there are
    those that the file names: one that is written under its method is called ``METHOD.FIELD`` and is of that
    method alone, others are of all methods that have such a field. A bit a layer is a key for each of them,
    such as ``layers.3``.

    Args:
        placements: of the study's own, by name.
        layers: how many the backbone has; None where that cannot be known.

    Raises:
        UsageError: an unknown key, an illegal value, or a range that cannot be drawn from as it is written.
    """
    elsewhere = dict.fromkeys(FIXED_TRAIN_FIELDS, "train")
    node.mapping(SEARCH_FIELDS, elsewhere)
    method, own = _methods(node)
    methods = method_names(method)
    _check_meaning(node, methods, own)
    search: dict[str, Spec] = {"method": method}
    named = placements or {}
    for name in ADAPTER_FIELDS[1:]:
        if name in node.value:
            search |= _specs(node.child(name), name, name, named, layers)
        elif len(methods) == 1 and name in DEFAULTS[methods[0]] and name not in own.get(methods[0], {}):
            search[name] = Fixed(DEFAULTS[methods[0]][name])
    for of, fields_node in own.items():
        for name in fields_node:
            key = name if len(methods) == 1 else f"{of}.{name}"
            search |= _specs(fields_node[name], name, key, named, layers)
    for name in TRAIN_FIELDS:
        if name in node.value:
            search[name] = _spec(node.child(name), name)
    return search


def method_names(spec: Spec) -> tuple[str, ...]:
    """The methods of a space."""
    assert not isinstance(spec, Range)
    return tuple(str(value) for value in (spec.values if isinstance(spec, Choice) else (spec.value,)))


def key_of(search: Mapping[str, Spec], method: str, field: str) -> str | None:
    """The key of a space that a field of a method is drawn by, or None if it is the method's default.

    Layers that are bits have none: they have one each, see ``layerbits.bits_of``.
    """
    if field == "layers" and bits_of(search, method):
        return None
    return next((key for key in (f"{method}.{field}", field) if key in search), None)


def field_of(key: str) -> str:
    """The field that a key of a space is a value of: ``lora.rank`` is one of ``rank``."""
    return "layers" if is_bit(key) else key.rpartition(".")[2]


def keys_of(search: Mapping[str, Spec], method: str) -> tuple[str, ...]:
    """The keys of a space that mean something to a method, the method's own among them, in drawing order."""
    wanted = {key_of(search, method, field) for field in fields_of(method)}
    wanted |= set(bits_of(search, method).values())
    return tuple(key for key in search if key in wanted or key in TRAIN_FIELDS)


def shared_keys(search: Mapping[str, Spec], keys: Iterable[str]) -> tuple[str, ...]:
    """Those keys of a space that every trial has a value for, whatever its method."""
    known = [{"method", *keys_of(search, method)} for method in method_names(search["method"])]
    return tuple(key for key in keys if all(key in each for each in known))


def _methods(node: Node) -> tuple[Fixed | Choice, dict[str, dict[str, Node]]]:
    """The methods, and the fields that are written under each of them."""
    if not node.has("method"):
        return Fixed(METHODS[0]), {}
    method = node.child("method")
    if isinstance(method.value, str):
        return Fixed(method.one_of(METHODS)), {}
    if isinstance(method.value, list):
        found = _spec(method, "method")
        assert not isinstance(found, Range)
        return found, {}
    if not isinstance(method.value, dict):
        method.fail(f"must be the name of a method, a list of names, or a mapping, not {method.described()}")
    method.mapping(METHODS)
    if not method.value:
        method.fail("names no method; write one, such as {lora: {rank: [4, 8]}}")
    own: dict[str, dict[str, Node]] = {}
    for name in method.value:
        fields_node = method.child(name)
        if fields_node.value is None:
            continue
        fields_node.mapping(fields_of(name)[1:])
        own[name] = {field: fields_node.child(field) for field in fields_node.value}
    names = tuple(method.value)
    return (Choice(names) if len(names) > 1 else Fixed(names[0])), own


def _check_meaning(node: Node, methods: tuple[str, ...], own: Mapping[str, Mapping[str, Node]]) -> None:
    """Fail at the line of a key that means nothing to any method, and where a method lacks what it needs."""
    for name in ADAPTER_FIELDS[1:]:
        if not node.has(name):
            continue
        if not any(name in DEFAULTS[method] for method in methods):
            node.child(name).fail(f"means nothing to the method {', '.join(methods)}; remove it")
        if all(name in own.get(method, {}) for method in methods if name in DEFAULTS[method]):
            node.child(name).fail("is written under each method as well; keep it in one of them")
    for method in methods:
        if DEFAULTS[method].get("bottleneck_dim") is REQUIRED and "bottleneck_dim" not in own.get(method, {}):
            wanted = "the size of the bottleneck, such as 24 or {from: 4, to: 256, log: true}"
            node.required("bottleneck_dim", wanted)
        if PARTS_FIELD in DEFAULTS[method] and PARTS_FIELD not in own.get(method, {}):
            node.required(PARTS_FIELD, "folders that `sweeper export` wrote, such as [best-a, best-b]")


def _specs(
    node: Node, name: str, key: str, placements: Mapping[str, str], layers: Callable[[], int] | None
) -> dict[str, Spec]:
    """What a field is in the space, under its key; of a bit a layer, one for each layer."""
    bits = read_bits(node, layers) if name == "layers" else None
    if bits is not None:
        return {f"{key}.{layer}": BIT for layer in bits}
    return {key: _spec(node, name, placements)}


def _spec(node: Node, name: str, placements: Mapping[str, str] | None = None) -> Spec:
    if node.value is None:
        node.fail("has no value; write one, or a list of them, or remove the key")
    if name == PARTS_FIELD:
        return _sets(node)
    if isinstance(node.value, dict):
        return _range(node, name)
    if not isinstance(node.value, list):
        return Fixed(_value(node, name, placements))
    if not node.value:
        node.fail("the list is empty; a list is a choice, and needs a value")
    if name == "layers" and all(isinstance(item, int) and not isinstance(item, bool) for item in node.value):
        node.fail(f"a list is a choice; for one set of layers write a list in the list: {[node.value]}")
    values: list[Value] = []
    for index in range(len(node.value)):
        item = node.child(index)
        value = _value(item, name, placements)
        if value in values:
            item.fail(f"{short(item.value)} is listed twice")
        values.append(value)
    return Choice(tuple(values)) if len(values) > 1 else Fixed(values[0])


def _sets(node: Node) -> Fixed | Choice:
    """The folders of frozen adapters: one set of them, or a list of sets, which is a choice."""
    if not isinstance(node.value, list) or not node.value:
        node.fail(f"must be a list of folders that `sweeper export` wrote, not {node.described()}")
    if not any(isinstance(item, list) for item in node.value):
        return Fixed(_set(node))
    sets: list[tuple[str, ...]] = []
    for index in range(len(node.value)):
        item = node.child(index)
        if not isinstance(item.value, list) or not item.value:
            item.fail("a choice among sets is a list of lists of folders, none of them empty")
        found = _set(item)
        if found in sets:
            item.fail(f"{list(found)} is listed twice")
        sets.append(found)
    return Choice(tuple(sets)) if len(sets) > 1 else Fixed(sets[0])


def _set(node: Node) -> tuple[str, ...]:
    names: list[str] = []
    for index in range(len(node.value)):
        name = node.child(index).text()
        if name in names:
            node.child(index).fail(f"names the folder {short(name)} a second time")
        names.append(name)
    return tuple(names)


def _value(node: Node, name: str, placements: Mapping[str, str] | None = None) -> Value:
    """One legal value of a field, as its class keeps it; one of `placements` by its name."""
    value = node.value
    if name == "placement" and isinstance(value, str) and ":" not in value and placements:
        known = (*PLACEMENTS, *placements)
        if value not in known:
            node.fail(f"unknown placement {short(value)}{nearest(value, known)}")
        return value
    if isinstance(value, dict) or value is None:
        node.fail(f"must be a value, not {node.described()}")
    if isinstance(value, list):
        if name not in ("layers", "placement"):
            node.fail("a list in the list; write one list of values")
        if not value and name == "layers":
            node.fail("the set of layers is empty; name a layer, such as [0, 2, 4], or write all")
    if isinstance(value, str) and len(value) > 100:
        node.fail(f"{short(value)} is not known")
    if name in NUMBER_FIELDS:
        value = node.number()
    if name in WHOLE_FIELDS:
        value = node.integer(minimum=1)
    kept = check_value(node, name, value)
    if name == "placement" and placements:
        return next((own for own, pairs in placements.items() if pairs == kept), kept)
    return kept


def check_value(node: Node, name: str, value: Any) -> Value:
    """Put a value to AdapterConfig or TrainConfig; return it as they keep it, or fail at the node's line."""
    try:
        if name in ADAPTER_FIELDS:
            config: AdapterConfig | TrainConfig = AdapterConfig.from_dict(_smallest(name, value))
        else:
            config = TrainConfig.from_dict({name: value})
    except AdapterError as error:
        said = str(error) if str(error).startswith(name) else f"{node.name}: {error}"
        raise UsageError(said, node.path, node.line) from error
    except TrainConfigError as error:
        node.fail(str(error))
    kept: Value = getattr(config, name)
    return kept


def _smallest(name: str, value: Any) -> dict[str, Any]:
    """A configuration with one field: of a method that has such a field, and with what that method needs."""
    if name == "method":
        method = value if isinstance(value, str) and value in METHODS else METHODS[0]
    else:
        method = next(method for method in METHODS if name in DEFAULTS[method])
    needed = {field: _LEAST[field] for field, default in DEFAULTS[method].items() if default is REQUIRED}
    return {"method": method, **needed, name: value}


def _range(node: Node, name: str) -> Range:
    if name not in WHOLE_FIELDS + NUMBER_FIELDS:
        node.fail("takes a name or a list of names; only numbers have a range")
    node.mapping(("from", "to", "log", "step"))
    low = _end(node.required("from", "a range is written as {from: LOW, to: HIGH}"), name)
    high = _end(node.required("to", "a range is written as {from: LOW, to: HIGH}"), name)
    if low == high:
        node.fail(f"the range holds only {short(low)}; write {name}: {short(low)}")
    if low > high:
        node.fail(f"the range is turned round; write {{from: {short(high)}, to: {short(low)}}}")
    log_node, step_node = node.optional("log"), node.optional("step")
    log = log_node.boolean() if log_node else False
    if log and low <= 0:
        node.child("from").fail(f"must be above 0 on a logarithmic scale, not {short(low)}")
    if step_node is None:
        return Range(low, high, log)
    if log:
        step_node.fail("a range has a logarithmic scale or a step, not both; remove one of them")
    return Range(low, high, step=_step(step_node, name, low, high))


def _end(node: Node, name: str) -> int | float:
    value = check_value(node, name, node.integer(minimum=1) if name in WHOLE_FIELDS else node.number())
    assert isinstance(value, (int, float))
    return value


def _step(node: Node, name: str, low: int | float, high: int | float) -> int | float | None:
    step = node.integer(minimum=1) if name in WHOLE_FIELDS else node.number()
    if step <= 0:
        node.fail(f"must be above 0, not {short(step)}")
    # Decimals of the shortest notation, as Optuna reckons: 0.3 is three steps of 0.1 here, but not in floats.
    wide, each = Decimal(str(high)) - Decimal(str(low)), Decimal(str(step))
    if wide / each > 10**9:
        node.fail(f"{short(step)} is too small for a range from {short(low)} to {short(high)}")
    if wide % each:
        last = Decimal(str(low)) + wide // each * each
        node.fail(
            f"steps of {short(step)} from {short(low)} never reach {short(high)}; "
            f"the last one before it is {short(last)}: write 'to: {short(last + each)}', or another step"
        )
    return step if step != 1 or name not in WHOLE_FIELDS else None  # whole numbers go by 1 anyway


def encode(value: Value) -> str | int | float:
    """A value as Optuna keeps it: a set of layers or adapters is a JSON string, such as ``"[0, 2, 4]"``."""
    return json.dumps(list(value)) if isinstance(value, tuple) else value
