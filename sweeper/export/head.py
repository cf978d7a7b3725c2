"""``head.safetensors`` of an export: the head's weights, and in the metadata what they belong to."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.study.schema import DTYPES, POOLINGS, Task
from sweeper.tasks import KINDS, task_of
from sweeper.words import short

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "adapter-sweeper-head/1"


@dataclass(frozen=True)
class HeadFacts:
    """What ``head.safetensors`` says of itself: all that predicting needs, beside the two files of weights.

    Args:
        kind: of the task.
        text, label: the columns of the data.
        label_names: by number; None where labels have no names.
        pooling, separator, max_length, dtype: as in training.
        backbone: ``model``, ``revision``, ``path`` (of a directory), ``fingerprint``, and ``sites`` if the
            study file names them.
        data_fingerprint: of the splits that the adapter was trained and chosen on.
    """

    kind: str
    text: tuple[str, ...]
    label: tuple[str, ...]
    label_names: tuple[str, ...] | None
    pooling: str
    max_length: int
    dtype: str
    backbone: dict[str, Any]
    data_fingerprint: str
    separator: str | None = None

    @property
    def task(self) -> Task:
        """The section of the study file."""
        return Task(self.kind, self.text, self.label, self.pooling, self.separator)

    def to_metadata(self) -> dict[str, str]:
        """The text that goes into the file."""
        return {"format": FORMAT, "facts": json.dumps(asdict(self), sort_keys=True, ensure_ascii=False)}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], path: Path) -> HeadFacts:
        """Raises UsageError if the file is none of ours or from a later version."""
        if metadata.get("format") != FORMAT:
            found = metadata.get("format", "nothing")
            raise UsageError(f"is no exported head: its format should be {FORMAT}, and is {found}", path)
        try:
            facts = json.loads(metadata["facts"])
            if not isinstance(facts, dict):
                raise TypeError("its facts are no JSON object")
            if isinstance(facts["label"], str):  # one column was once written as its name alone
                facts["label"] = [facts["label"]]
            lists = {key: _names(facts, key) for key in ("text", "label")}
            names = None if facts["label_names"] is None else _names(facts, "label_names")
            made = cls(**{**facts, **lists, "label_names": names})
            made.check()
            return made
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise UsageError(f"does not say what it belongs to ({error}): export it again", path) from error

    def check(self) -> None:
        """Raise ValueError unless every fact is one that an export writes."""
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise ValueError(f"its kind of task is {short(self.kind)}")
        kind = KINDS[self.kind]
        allowed = POOLINGS if kind.reading is None else (kind.reading,)
        if self.pooling not in allowed:
            raise ValueError(f"its pooling is {short(self.pooling)}")
        if self.dtype not in DTYPES or self.dtype == "auto":
            raise ValueError(f"its dtype is {short(self.dtype)}")
        if type(self.max_length) is not int or self.max_length < 1:
            raise ValueError(f"its max_length is {short(self.max_length)}")
        if not 1 <= len(self.text) <= (2 if kind.pairs else 1):
            raise ValueError(f"it names {len(self.text)} columns of text")
        if kind.has_names != bool(self.label_names):
            raise ValueError("it names no labels" if kind.has_names else "it names labels")
        if not isinstance(self.separator, str | None):
            raise ValueError(f"its separator is {short(self.separator)}")
        where = self.backbone if isinstance(self.backbone, dict) else {}
        texts = [where.get(key) for key in ("model", "fingerprint")]
        optional = [where.get(key) for key in ("revision", "path")]
        sites = where.get("sites")
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(isinstance(text, str | None) for text in optional)
            or not isinstance(sites, dict | None)
        ):
            raise ValueError("its backbone is not named")


def _names(facts: dict[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts among the facts."""
    found = facts[key]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise TypeError(f"its {key} is {short(found)}, no list of names")
    return tuple(found)


def head_bytes(tensors: dict[str, Tensor], facts: HeadFacts) -> bytes:
    """The content of the file: ``weight`` ``[outputs, hidden_size]`` and ``bias`` ``[outputs]``."""
    from safetensors.torch import save

    return save(tensors, facts.to_metadata())


def load_head(path: Path) -> tuple[nn.Linear, HeadFacts]:
    """An exported head and what it says of itself.

    Raises:
        UsageError: the file is missing, damaged or no head of ours.
    """
    from safetensors import SafetensorError, safe_open

    from adapters.files import FLOATING
    from sweeper.task import linear

    if not path.is_file():
        raise UsageError("there is no such file: is this a folder that `sweeper export` wrote?", path)
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"cannot be read as safetensors: {error}", path) from error
    facts = HeadFacts.from_metadata(metadata, path)
    outputs = task_of(facts.kind).width(facts.label_names)
    weight, bias = tensors.get("weight"), tensors.get("bias")
    if (
        weight is None
        or bias is None
        or weight.ndim != 2
        or weight.shape[0] != outputs
        or bias.shape != (outputs,)
    ):
        raise UsageError(f"holds no linear layer with {outputs} outputs, as its labels ask for", path)
    if weight.dtype != bias.dtype or weight.dtype not in FLOATING:
        found = f"{weight.dtype} and {bias.dtype}"
        raise UsageError(f"holds weights of {found}, not of one floating dtype: export it again", path)
    if not all(own.isfinite().all() for own in (weight, bias)):
        raise UsageError("holds weights that are not finite numbers: export it again", path)
    return linear(weight, bias).eval(), facts


def adapter_folder(folder: Path) -> Path:
    """The folder of one exported adapter: this one, or the only ``trial-0007`` in it.

    Raises:
        UsageError: it holds none, or several, or one in the format of another library.
    """
    if not folder.is_dir():
        raise UsageError("there is no such folder", folder)
    if (folder / "head.safetensors").exists():
        return folder
    if (folder / "adapter_config.json").exists():
        raise UsageError(
            "is in the format of AdapterHub or PEFT, which does not say how texts become predictions: export "
            "the trial once more without --format, or load it in Python as docs/interop.md shows",
            folder,
        )
    inside = sorted(entry for entry in folder.glob("trial-*") if (entry / "head.safetensors").is_file())
    if not inside:
        raise UsageError("holds no exported adapter: is this a folder that `sweeper export` wrote?", folder)
    if len(inside) > 1:
        raise UsageError(f"holds several adapters: name one of {', '.join(map(str, inside))}", folder)
    return inside[0]
