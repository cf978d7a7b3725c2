"""``--set NAME=VALUE``: values of parameters, checked against the space of a study.

read_assignments(study, ["bottleneck_dim=64", "layers=[0, 2, 4]"])   # as the store keeps them

Where each layer has a bit, ``layers=[0, 2, 4]`` sets all of them, and ``layers.3=false`` one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence

from sweeper.errors import UsageError
from sweeper.space import Params, contains
from sweeper.study import Choice, Fixed, Range, Spec, Study
from sweeper.study.layerbits import bits_of, is_bit
from sweeper.study.search import WHOLE_FIELDS, encode, field_of, keys_of, method_names
from sweeper.words import nearest, short


def read_assignments(study: Study, assignments: Sequence[str]) -> Params:
    """The parameters that are set; those that are not named are left to the sampler.

    Raises:
        UsageError: what is no assignment, a name that does not vary in this study, or a value that its space
            does not hold; the message says what may be there.
    """
    params: Params = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name, text = name.strip(), text.strip()
        if not equals or not name or not text:
            raise UsageError(f"--set takes NAME=VALUE, such as bottleneck_dim=64, not {short(assignment)}")
        bits = [key for key in study.search if is_bit(key) and key.rpartition(".")[0] == name]
        found = _bits(name, bits, text) if bits else {name: _value(name, _spec(study, name), text)}
        for key, value in found.items():
            if key in params:
                raise UsageError(f"--set names {key} twice")
            params[key] = value
    _check_layers(study, params)
    if isinstance(study.search["method"], Choice):
        _check_method(study, params)
    return params


def _bits(name: str, keys: Iterable[str], text: str) -> Params:
    """A set of layers where each has a bit: ``all``, or a list such as [0, 2, 4]."""
    own = {int(key.rpartition(".")[2]): key for key in keys}
    layers = list(own) if text == "all" else json.loads(_layers(text) or "null")
    if layers is None or not all(type(layer) is int and layer in own for layer in layers):
        raise UsageError(
            f"--set: {name} cannot be {short(text)}: each layer has a bit here; write all, a list of "
            f"layers among {', '.join(map(str, own))}, or one bit, such as {next(iter(own.values()))}=false"
        )
    return {key: layer in layers for layer, key in own.items()}


def _check_layers(study: Study, params: Params) -> None:
    """Of a bit a layer, one at least is set, or left to the sampler."""
    for method in method_names(study.search["method"]):
        bits = bits_of(study.search, method).values()
        if bits and not any(params.get(key, True) for key in bits):
            raise UsageError("--set: no layer would carry a module; leave one bit, or set it to true")


def _check_method(study: Study, params: Params) -> None:
    """Of several methods, a parameter that is not of all of them is set together with its method."""
    method = params.get("method")
    methods = method_names(study.search["method"]) if method is None else (str(method),)
    for name in params:
        strangers = [each for each in methods if name not in keys_of(study.search, each)]
        if strangers:
            raise UsageError(
                f"--set: {name} means nothing to the method {', '.join(strangers)}; set the method "
                f"as well, to one "
                "that has it"
            )


def _spec(study: Study, name: str) -> Choice | Range:
    spec = study.search.get(name)
    if spec is None:
        raise UsageError(
            f"--set: {short(name)} is no parameter that varies in this study{nearest(name, study.searched)}"
        )
    if isinstance(spec, Fixed):
        varying = ", ".join(study.searched)
        raise UsageError(
            f"--set: {name} is {encode(spec.value)} in every trial of this study; those that vary: {varying}"
        )
    return spec


def _value(name: str, spec: Spec, text: str) -> str | int | float:
    if isinstance(spec, Choice):
        for value in spec.values:
            if _is_written(encode(value), text):
                return encode(value)
        allowed = [str(encode(value)) for value in spec.values]
        raise UsageError(f"--set: {name} cannot be {short(text)} in this study{nearest(text, allowed)}")
    assert isinstance(spec, Range)
    number = _number(text)
    whole = field_of(name) in WHOLE_FIELDS
    if number is not None and whole and number == int(number):
        number = int(number)
    if number is None or not contains(name, spec, number):
        kind = "a whole number" if whole else "a number"
        steps = f" in steps of {spec.step}" if spec.step is not None else ""
        raise UsageError(
            f"--set: {name} cannot be {short(text)}; it is {kind} from {spec.low} to {spec.high}{steps}"
        )
    return number if whole else float(number)


def _is_written(value: str | int | float, text: str) -> bool:
    """Whether a text means a value of a choice; sets of layers may be written with other spaces."""
    if isinstance(value, str):
        return value in (text, _layers(text))
    if isinstance(value, bool):
        return text.lower() in (("1", "true") if value else ("0", "false"))
    return _number(text) == value


def _layers(text: str) -> str | None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(found) if isinstance(found, list) else None


def _number(text: str) -> int | float | None:
    if "_" in text or not text.isascii():  # Python reads 6_4 as 64, a study file does not
        return None
    for kind in (int, float):
        try:
            number = kind(text)
            return number if math.isfinite(number) else None
        except OverflowError:
            return None
        except ValueError:
            continue
    return None
