"""What benchmarks train on: rows, study files, backbones of given shapes, and the tokens of them all."""

from __future__ import annotations

import argparse
import csv
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from benchmarks.common import PARTS, QUICKSTART, ROOT

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sweeper.data import TaskData
    from sweeper.slot import Problem
    from sweeper.study import Study

Rows = list[list[str]]
STUDY = ROOT / "studies" / "quickstart.yaml"
FILMS_VALIDATION = 0.2
"""Share of the films that validates when all rows are asked for."""
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
_SHAPES: dict[str, dict[str, Any]] = {"bert-base": {}, "bert-large": _LARGE}


def read_rows(path: Path) -> tuple[list[str], Rows]:
    """Header and rows of a TSV file without quoting."""
    with path.open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
    return header, rows


def write_rows(folder: Path, part: str, header: list[str], rows: Rows) -> None:
    """Write ``folder/PART.tsv``."""
    text = "".join("\t".join(row) + "\n" for row in [header, *rows])
    (folder / f"{part}.tsv").write_text(text, encoding="utf-8")


def draw_rows(settings: argparse.Namespace, folder: Path, *, full: bool = False) -> dict[str, int]:
    """Draw the rows with the seed, write train.tsv and validation.tsv, and say how many each holds.

    Raises:
        SystemExit: there are fewer rows than were asked for.
    """
    wanted = {"train": settings.rows, "validation": settings.validation_rows}
    if settings.data:
        parts = {part: read_rows(settings.data / f"{part}.tsv") for part in PARTS}
        for _, rows in parts.values():
            random.Random(settings.seed).shuffle(rows)
    else:
        header, rows = read_rows(QUICKSTART / "films.tsv")
        random.Random(settings.seed).shuffle(rows)
        cut = int(len(rows) * FILMS_VALIDATION) if full else settings.validation_rows
        parts = {"train": (header, rows[cut:]), "validation": (header, rows[:cut])}
    for part, (header, rows) in parts.items():
        if not full and len(rows) < wanted[part]:
            option = {"train": "--rows", "validation": "--validation-rows"}[part]
            raise SystemExit(f"error: {option} {wanted[part]}, but there are {len(rows)}: ask for fewer")
        write_rows(folder, part, header, rows if full else rows[: wanted[part]])
    return {part: len(rows) if full else wanted[part] for part, (_, rows) in parts.items()}


def write_study(
    folder: Path,
    settings: argparse.Namespace,
    *,
    search: Mapping[str, Any] | None = None,
    pooling: str = "mean",
    dtype: str = "float32",
    model: Path | None = None,
    train: Mapping[str, Any] | None = None,
    trials: int | None = None,
) -> Study:
    """The quickstart's study over the rows of ``folder``, one epoch a trial, written there and read again.

    Args:
        search: keys of the search that differ from the quickstart's.
        model: the backbone's directory; None for the one that the settings name.
        train: keys of the training that differ; trials: the budget, if it is another.
    """
    from sweeper.study import load_study

    content = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    content["backbone"] = {"model": str(model or backbone_folder(settings, folder))}
    content["task"]["pooling"] = pooling
    content["data"] = {part: f"{part}.tsv" for part in PARTS}
    content["search"] |= search or {}
    content["train"] |= {"epochs": 1, "max_length": settings.max_length, "dtype": dtype}
    content["train"] |= train or {}
    content["budget"] |= {} if trials is None else {"trials": trials}
    content["seed"] = settings.seed
    del content["pruner"]
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return load_study(folder / "study.yaml")


def backbone_folder(settings: argparse.Namespace, folder: Path) -> Path:
    """Where the backbone lies; one of given shapes is made in ``folder``, with the quickstart's tokenizer."""
    if settings.shapes is None:
        return Path(settings.model)
    made = folder / settings.shapes
    if not made.exists():
        import torch
        from transformers import BertConfig, BertModel

        from sweeper.backbone import quiet

        with torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(0)
            BertModel(BertConfig(**_SHAPES[settings.shapes]), add_pooling_layer=False).save_pretrained(made)
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
            shutil.copy(QUICKSTART / "backbone" / file, made)
    return made


@dataclass(frozen=True)
class Material:
    """A study, its tokens, and what its trials are trained for; the backbone is loaded when asked for."""

    study: Study
    data: TaskData
    problem: Problem
    device: str

    def load_backbone(self, dtype: str = "float32") -> PreTrainedModel:
        """The frozen backbone, on the device."""
        from sweeper.backbone import load_backbone

        return load_backbone(self.study.backbone, dtype, self.device)


def prepare_material(study: Study, device: str, folder: Path) -> Material:
    """Read and tokenise the rows of a study; ``folder`` keeps the tokens."""
    from sweeper import backbone, task
    from sweeper.data import prepare, read_tables
    from sweeper.slot import Problem

    data = prepare(study, read_tables(study), backbone.load_tokenizer(study.backbone), folder / "cache")
    outputs = task.outputs(study.task.kind, data.label_names)
    return Material(
        study, data, Problem(study.task.kind, study.task.pooling, outputs, "accuracy", True), device
    )
