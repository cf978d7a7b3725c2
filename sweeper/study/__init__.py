"""The study file: what is searched, on what, within which budget. Read, checked, compared.

    study = load_study("studies/sst2.yaml")
    study.search["activation"]          # Choice(values=("relu", "gelu"))
    study.line("search", "activation")  # 14

Everything that can be known without opening the backbone or the data is checked here; what needs the
backbone's configuration is checked by ``corners.check_space``, and the rows by ``data.read_tables``. One
thing needs it here: ``layers: bits`` is a parameter for each layer that the backbone has.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sweeper.errors import UsageError
from sweeper.study import yamlfile
from sweeper.study.files import read_backbone, read_data
from sweeper.study.frozen import read_frozen, stored_frozen
from sweeper.study.node import SECTIONS, Node
from sweeper.study.placing import read_placements
from sweeper.study.plugins import read_pruner, read_sampler
from sweeper.study.raysection import RaySettings, read_ray
from sweeper.study.rules import (
    read_budget,
    read_limits,
    read_objectives,
    read_task,
    read_train,
    read_warm_start,
)
from sweeper.study.schema import (
    Backbone,
    Budget,
    Choice,
    Data,
    Fixed,
    Limits,
    Objective,
    Pruner,
    Range,
    Sampler,
    Source,
    Spec,
    Study,
    Task,
    TrainSettings,
)
from sweeper.study.search import ADAPTER_FIELDS, TRAIN_FIELDS, read_search
from sweeper.words import short

__all__ = [
    "Backbone",
    "Budget",
    "Choice",
    "Data",
    "Fixed",
    "Limits",
    "Objective",
    "Pruner",
    "Range",
    "RaySettings",
    "Sampler",
    "Source",
    "Spec",
    "Study",
    "Task",
    "TrainSettings",
    "difference",
    "from_dict",
    "in_order_of",
    "load_study",
    "only_budget_grew",
]

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}\Z")
# Keys that are often written at the top of the file, and where they belong.
_ELSEWHERE = {
    **dict.fromkeys(ADAPTER_FIELDS, "search"),
    **dict.fromkeys(TRAIN_FIELDS, "train"),
    **dict.fromkeys(("max_length", "evaluations_per_epoch", "dtype", "keep"), "train"),
    **{key: section for section, keys in SECTIONS.items() if section for key in keys},
}


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Returns:
        the study, complete with all defaults; its ``path`` is absolute.

    Raises:
        UsageError: anything is wrong with the file or with a file that it names; the message says what to do.
    """
    text = yamlfile.read_text(path)
    data, lines = yamlfile.parse(text, path)
    if data is None:
        raise UsageError("the file is empty; start from one of the files in studies/", path, 1)
    return _study(Node(data, (), Path(path), lines), text, check_files=True)


def from_dict(data: Mapping[str, Any], path: str | Path, text: str = "") -> Study:
    """The study that ``to_dict`` gave. ``path`` is its file, which need not be there any more.

    Raises:
        UsageError: the data is no study. Files that it names are not looked for.
    """
    return _study(Node(dict(data), (), Path(path), {}), text, check_files=False)


def _study(node: Node, text: str, check_files: bool) -> Study:
    known = SECTIONS[""] if check_files else (*SECTIONS[""], "frozen")
    node.mapping(known, {key: home for key, home in _ELSEWHERE.items() if key not in SECTIONS[""]})
    name = _name(node)
    backbone = read_backbone(node.required("backbone", "the model, such as {model: FOLDER}"), check_files)
    task = read_task(node.required("task", "its kind, and the columns of text and label"))
    data = read_data(node.required("data", "the files of train and validation"), check_files)
    placements = read_placements(node.optional("placements"))
    space = node.required("search", "at least bottleneck_dim")
    search = read_search(space, placements, (lambda: _layers(backbone, space)) if check_files else None)
    frozen = read_frozen(space, search, backbone) if check_files else stored_frozen(node.optional("frozen"))
    train = read_train(node.optional("train"), search)
    at = node.required("objective", "a metric, such as {metric: accuracy}")
    objectives = read_objectives(at, task.kind)
    seed = node.optional("seed")
    return Study(
        name=name,
        backbone=backbone,
        task=task,
        data=data,
        search=search,
        train=train,
        objectives=objectives,
        limits=read_limits(node.optional("limits")),
        budget=read_budget(
            node.required("budget", "how many trials to run, such as {trials: 30}"), objectives, check_files
        ),
        sampler=read_sampler(node.optional("sampler"), search),
        pruner=read_pruner(node.optional("pruner"), train, search, objectives),
        warm_start=read_warm_start(node.optional("warm_start")),
        seed=seed.integer(minimum=0) if seed else 0,
        ray=read_ray(node.optional("ray")),
        path=node.path.absolute(),
        text=text,
        lines=dict(node.lines),
        placements=placements,
        frozen=frozen,
    )


def _layers(backbone: Backbone, at: Node) -> int:
    """How many layers the backbone has, by its configuration, which is opened for a bit a layer alone."""
    from adapters.architectures import layer_count
    from adapters.errors import AdapterError
    from sweeper.backbone import load_config

    try:
        return layer_count(load_config(backbone))
    except AdapterError as error:
        raise UsageError(str(error), at.path, at.line) from error


def _name(node: Node) -> str:
    name = node.required("study", "the name of the study, such as sst2")
    if isinstance(name.value, (dict, list)):
        name.fail(f"must be the name of the study, not {name.described()}")
    if not _NAME.match(name.text()):
        allowed = "up to 64 of a-z, 0-9, - and _, not starting with - or _"
        name.fail(f"{short(name.value)} cannot be a name; use {allowed}")
    return name.text()


def difference(old: Study | Mapping[str, Any], new: Study | Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """What differs between two studies, or two of their dicts: (``section.key``, old value, new value) each.

    A key that one of them lacks has the value None there. Comments and the order of keys do not count.
    """
    before, after = _flat(old), _flat(new)
    keys = [*before, *(key for key in after if key not in before)]
    return [
        (key, before.get(key), after.get(key)) for key in keys if not _same(before.get(key), after.get(key))
    ]


def in_order_of(old: Any, new: Any) -> Any:
    """A study's dict with its keys in the order of another's: a choice among them keeps its order."""
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        return new
    keys = [*(key for key in old if key in new), *(key for key in new if key not in old)]
    return {key: in_order_of(old.get(key), new[key]) for key in keys}


def only_budget_grew(old: Study | Mapping[str, Any], new: Study | Mapping[str, Any]) -> bool:
    """Whether all that differs is a larger budget: more trials, hours, failures or patience, a target that is
    harder to reach, or a limit of it taken away."""
    larger = ("budget.trials", "budget.hours", "budget.failures", "budget.patience")
    ending = (*larger, "budget.target", "budget.terminator")
    maximized = _flat(new).get("objective.direction") == "maximize"

    def grew(key: str, before: Any, after: Any) -> bool:
        if before is None or after is None:
            return before is not None and key in ending
        if key == "budget.target":
            return bool(after > before) if maximized else bool(after < before)
        return key in larger and after > before

    return all(grew(*change) for change in difference(old, new))


def _flat(study: Study | Mapping[str, Any]) -> dict[str, Any]:
    data = study.to_dict() if isinstance(study, Study) else study
    flat: dict[str, Any] = {}
    for section, value in data.items():
        if isinstance(value, Mapping):
            flat.update({f"{section}.{key}": item for key, item in value.items()})
        else:
            flat[section] = value
    return flat


def _same(one: Any, other: Any) -> bool:
    return bool(one == other) and isinstance(one, bool) == isinstance(other, bool)
