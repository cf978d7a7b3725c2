"""What a study is, once its file has been read: frozen, complete, and JSON in and out.

Every default is filled in, so that what is stored goes on to mean the same when a default changes.
The canonical form of :meth:`Study.to_dict` has the shape of the study file itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from adapters.config import Part
from sweeper.study.layerbits import collapsed
from sweeper.study.raysection import RaySettings
from sweeper.trainconfig import TrainConfig

POOLINGS = ("cls", "mean", "last")
DTYPES = ("auto", "float32", "bfloat16", "float64")
Scalar = str | int | float
Value = Scalar | tuple[int, ...] | tuple[str, ...]
"""One value of a search key; a tuple is an explicit set of layers, or of adapters by their folders."""


@dataclass(frozen=True)
class Fixed:
    """A search key that is the same in every trial."""

    value: Value

    def to_json(self) -> Any:
        # A list in a study file is a choice, so an explicit set of layers is written as a choice of one.
        return [list(self.value)] if isinstance(self.value, tuple) else self.value


@dataclass(frozen=True)
class Choice:
    """A search key that takes one of two or more values."""

    values: tuple[Value, ...]

    def to_json(self) -> Any:
        return [list(value) if isinstance(value, tuple) else value for value in self.values]


@dataclass(frozen=True)
class Range:
    """A search key that takes any number from ``low`` to ``high``, both included.

    Args:
        step: the distance between neighbours; None means every number (every whole number, for ints).
        log: draw the logarithm evenly; never together with a step.
    """

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    def to_json(self) -> Any:
        spec: dict[str, Any] = {"from": self.low, "to": self.high}
        if self.log:
            spec["log"] = True
        if self.step is not None:
            spec["step"] = self.step
        return spec


Spec = Fixed | Choice | Range
BIT = Choice((False, True))
"""Whether one layer carries a module; see ``layerbits``."""


@dataclass(frozen=True)
class Backbone:
    """The frozen model: a hub name with its commit, or a directory.

    Args:
        model: as written in the study file.
        revision: 40 hex digits for a hub name; None for a directory.
        path: the directory, absolute; None for a hub name.
        sites: where adapters go, for a family that is not in the table; see `Architecture.from_dict`.
    """

    model: str
    revision: str | None
    path: Path | None
    sites: Mapping[str, Any] | None = None

    @property
    def is_directory(self) -> bool:
        return self.path is not None

    def to_dict(self) -> dict[str, Any]:
        named = {"model": self.model, "revision": self.revision}
        return named if self.sites is None else {**named, "sites": dict(self.sites)}


@dataclass(frozen=True)
class Task:
    """What is predicted from which columns.

    Args:
        text: one column, or two for sentence pairs.
        label: one column, or several where each is a label of its own; none where nothing is labelled.
        pooling: which hidden state stands for a text; ``words`` or ``next`` for kinds that read more of them.
        separator: between the labels of a text, where several are in one field of a table.
    """

    kind: str
    text: tuple[str, ...]
    label: tuple[str, ...]
    pooling: str = "cls"
    separator: str | None = None

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"kind": self.kind, "text": _one_or_list(self.text)}
        if self.label:
            found["label"] = _one_or_list(self.label)
        if self.pooling in POOLINGS:
            found["pooling"] = self.pooling
        return found if self.separator is None else {**found, "separator": self.separator}


def _one_or_list(columns: tuple[str, ...]) -> str | list[str]:
    return columns[0] if len(columns) == 1 else list(columns)


@dataclass(frozen=True)
class Source:
    """Where the rows of one split come from: a local file, or a split of a hub data set at a commit.

    Args:
        written: the file's path as the study file has it; None for the hub.
        path: the same, absolute.
        hub, config, split, revision: the hub data set; ``config`` may be None.
        rows: a subset of this many rows, drawn with the study's seed; None for all.
    """

    written: str | None = None
    path: Path | None = None
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    rows: int | None = None

    @property
    def suffix(self) -> str:
        """The format of the file, by the name that is written: a link may lead to any other."""
        return Path(self.written or "").suffix.lower()

    def to_dict(self) -> dict[str, Any]:
        if self.hub is not None:
            where = {"hub": self.hub, "config": self.config, "split": self.split, "revision": self.revision}
        else:
            where = {"path": self.written}
        return {**where, "rows": self.rows}


@dataclass(frozen=True)
class Data:
    """The rows. ``validation`` and ``test`` are sources of their own, or fractions of the rows of train.

    Fractions are taken from what ``train`` has after its own ``rows``; the rest is trained on.
    ``test`` may be None.
    """

    train: Source
    validation: Source | float
    test: Source | float | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            name: split.to_dict() if isinstance(split, Source) else split
            for name, split in (("train", self.train), ("validation", self.validation), ("test", self.test))
        }


@dataclass(frozen=True)
class TrainSettings(TrainConfig):
    """What is fixed about training. A key that varies in ``search`` holds its default here, and is not used.

    Args:
        max_length: texts are cut to this many tokens, special tokens included.
        dtype: what the backbone computes in; ``auto`` is decided by a measurement when the study begins.
    """

    max_length: int = 128
    dtype: str = "auto"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_whole_number("max_length")
        self._check_name("dtype", DTYPES)


@dataclass(frozen=True)
class Objective:
    """The metric that decides, and the direction that is better."""

    metric: str
    direction: str

    def to_dict(self) -> dict[str, Any]:
        return {"metric": self.metric, "direction": self.direction}


@dataclass(frozen=True)
class Limits:
    """Configurations past a limit are never trained.

    Args:
        trainable_parameters: of adapter and head.
        flops_per_token: of a training step, in closed form; see ``adapters.flops``.
    """

    trainable_parameters: int | None = None
    flops_per_token: int | None = None

    @property
    def given(self) -> dict[str, int]:
        """Those that the study file gives."""
        return {name: limit for name, limit in self.to_dict().items() if limit is not None}

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plugin:
    """A sampler, a pruner or a terminator: its name, and all its options with their defaults filled in.

    An option that is None is decided by Optuna.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, **self.options}


@dataclass(frozen=True)
class Budget:
    """What the study may cost; whatever is used up first ends it.

    Args:
        trials: how many trials are run, including pruned and failed ones.
        hours: no trial is started after this time; None for no limit.
        failures: this many failed trials end the study; None for no limit.
        repeats: train a configuration again that was trained before, instead of taking its result.
        target: a complete trial whose objective is as good as this ends the study.
        patience: so many trials in a row that ended without a better one (or, with several objectives,
            without a new point of the front) end the study.
        terminator: a rule of Optuna's that ends the study once little is left to be gained.
    """

    trials: int
    hours: float | None = None
    failures: int | None = None
    repeats: bool = False
    target: float | None = None
    patience: int | None = None
    terminator: Plugin | None = None

    def to_dict(self) -> dict[str, Any]:
        terminator = None if self.terminator is None else self.terminator.to_dict()
        return {**asdict(self), "terminator": terminator}


Sampler = Plugin
Pruner = Plugin


@dataclass(frozen=True)
class FrozenAdapter:
    """An exported adapter that compositions of a study are made of.

    Args:
        part: its configuration and the digest of its weights.
        backbone: fingerprint of the backbone that it was trained in.
        path: its weights, absolute; None if the study came out of the store.
    """

    part: Part
    backbone: str
    path: Path | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        return {**self.part.to_dict(), "backbone": self.backbone}


@dataclass(frozen=True)
class Study:
    """A study file, read and checked. ``search`` has every field of the adapter, fixed or not.

    Args:
        warm_start: names of earlier studies whose trials the sampler learns from.
        placements: those of the study's own, by name: (sublayer, wiring) pairs as one text.
        path: the study file; the paths in it are relative to its folder.
        text: the file as it was written.
        lines: the line of each key by its path, such as ``("search", "activation")``.
        ray: where it is trained, which makes no study another one: it is neither stored nor compared.
        frozen: the adapters that ``search.adapters`` names, by their folders as they are written.
    """

    name: str
    backbone: Backbone
    task: Task
    data: Data
    search: Mapping[str, Spec]
    train: TrainSettings
    objectives: tuple[Objective, ...]
    limits: Limits
    budget: Budget
    sampler: Sampler
    pruner: Pruner
    warm_start: tuple[str, ...]
    seed: int
    path: Path
    text: str = field(default="", compare=False, repr=False)
    lines: Mapping[tuple[str | int, ...], int] = field(default_factory=dict, compare=False, repr=False)
    ray: RaySettings = field(default_factory=RaySettings, compare=False)
    placements: Mapping[str, str] = field(default_factory=dict)
    frozen: Mapping[str, FrozenAdapter] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        """The ``dtype`` of the section ``train``: auto, float32, bfloat16 or float64."""
        return self.train.dtype

    @property
    def objective(self) -> Objective:
        """The first objective: the one that is, where only one can be shown or compared."""
        return self.objectives[0]

    @property
    def searched(self) -> tuple[str, ...]:
        """The search keys that differ between trials, in the order in which they are drawn."""
        return tuple(name for name, spec in self.search.items() if not isinstance(spec, Fixed))

    def _search(self) -> dict[str, Any]:
        """The section ``search``; fields of one of several methods under their method."""
        flat = collapsed(self.search)
        search = {name: value for name, value in flat.items() if "." not in name}
        own = [name.split(".") for name in flat if "." in name]
        if own:
            search["method"] = {
                of: {name: flat[f"{of}.{name}"] for method, name in own if method == of}
                for of in search["method"]
            }
        return search

    def line(self, *keys: str | int) -> int | None:
        """The line of a key, or of the nearest key around it; None if the study came from no file."""
        for end in range(len(keys), 0, -1):
            if keys[:end] in self.lines:
                return self.lines[keys[:end]]
        return None

    def to_dict(self) -> dict[str, Any]:
        """The whole study as plain JSON data, in the shape of a study file.

        ``sweeper.study.from_dict`` reads it back. Neither the folder nor the text of the file is in it,
        nor the section ``ray``.
        """
        train = {key: value for key, value in self.train.to_dict().items() if key not in self.search}
        objectives = [objective.to_dict() for objective in self.objectives]
        return {
            "study": self.name,
            "backbone": self.backbone.to_dict(),
            "task": self.task.to_dict(),
            "data": self.data.to_dict(),
            "placements": dict(self.placements),
            "search": self._search(),
            "train": train,
            "objective": objectives if len(objectives) > 1 else objectives[0],
            "limits": self.limits.to_dict(),
            "budget": self.budget.to_dict(),
            "sampler": self.sampler.to_dict(),
            "pruner": self.pruner.to_dict(),
            "warm_start": list(self.warm_start) or None,
            "seed": self.seed,
            **({"frozen": {name: own.to_dict() for name, own in self.frozen.items()}} if self.frozen else {}),
        }
