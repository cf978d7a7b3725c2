"""The texts of an export: the card (``README.md``) and the configuration (``adapter.yaml``). Only text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from sweeper.console import one_line
from sweeper.terminal import number, percent

if TYPE_CHECKING:
    from sweeper.study.schema import Task

TRAIN_KEYS_OF_SEARCH = ("learning_rate",)


def configuration_yaml(title: str, adapter: Mapping[str, Any], train: Mapping[str, Any]) -> str:
    """``search`` and ``train`` sections of a study file that hold this configuration and no other.

    Args:
        title: of the adapter, for the comment.
        adapter: every field of the adapter; a list of layers becomes a choice of one (a list is a choice).
        train: every fixed setting of ``train``.
    """
    search = {key: [value] if isinstance(value, list) else value for key, value in adapter.items()}
    search |= {key: train[key] for key in TRAIN_KEYS_OF_SEARCH if key in train}
    rest = {key: value for key, value in train.items() if key not in TRAIN_KEYS_OF_SEARCH}
    comment = f"# {title}.\n# Put these two sections into a study file to train it again.\n"
    return comment + yaml.safe_dump({"search": search, "train": rest}, sort_keys=False, allow_unicode=True)


def snippet(folder: Path, study_file: Path | None, metric: str, task: Task) -> str:
    """Five lines of Python that load the adapter, predict, and print the validation result."""
    example = (
        repr("A text of your own.") if len(task.text) == 1 else repr(("One text.", "And the one beside it."))
    )
    lines = [
        "from sweeper import load_exported",
        f"predictor = load_exported({str(folder)!r})",
        f"print(predictor.predict([{example}]))",
    ]
    if study_file is not None:
        lines.append(f'result = predictor.evaluate({str(study_file)!r}, split="validation")')
        lines.append(f"print(result[{metric!r}])")
    return "\n".join(lines)


def card(facts: Mapping[str, Any], code: str) -> str:
    """The card of an exported adapter, in Markdown.

    Args:
        facts: what ``metrics.json`` holds.
        code: the snippet.
    """
    trial, objective, backbone, data = facts["trial"], facts["objective"], facts["backbone"], facts["data"]
    metric = objective["metric"]
    rows = data["rows"]["validation"]
    share = percent(trial["trainable_percent"])
    lines = [
        f"# trial-{trial['number']:04d} of the study {facts['study']}",
        "",
        f"A {facts['configuration']['adapter']['method']} adapter and its head for a frozen backbone: "
        f"**{metric} {trial['objective']!r}** on {rows:,} validation rows, with "
        f"{number(trial['trainable_parameters'])} trained parameters ({share} of the backbone's).",
        *_unfinished(facts),
        "",
        "## Use it",
        "",
        "```python",
        code,
        "```",
        "",
        "For a file of texts: `sweeper predict DIR FILE`, with DIR this folder. It needs the backbone below. "
        "Where this folder or the backbone has moved, name both: `load_exported(DIR, backbone=BACKBONE)`, or "
        "`sweeper predict DIR FILE --backbone BACKBONE`.",
        "",
        "## Result",
        "",
        *_table(
            ("on the validation rows", ""), [(key, repr(value)) for key, value in trial["metrics"].items()]
        ),
        "",
        f"Objective: {metric}, {objective['direction']}. These rows chose between the trials of the study, "
        "so expect a little less on rows that nobody has seen.",
        *_confirmed(metric, facts.get("confirmed")),
        "",
        "## Parameters",
        "",
        *_table(
            ("part", "parameters"),
            [
                ("adapter", number(trial["adapter_parameters"])),
                ("head", number(trial["head_parameters"])),
                ("trained in all", number(trial["trainable_parameters"])),
                ("backbone, frozen", number(backbone["parameters"])),
                ("trained, of the backbone's", share),
            ],
        ),
        "",
        "## Configuration",
        "",
        *_table(("key", "value"), [(key, _shown(value)) for key, value in _configuration(facts)]),
        "",
        "## Backbone",
        "",
        *_table(
            ("", ""), [(key, _shown(backbone[key])) for key in ("model", "revision", "path", "fingerprint")]
        ),
        "",
        "## Data",
        "",
        *_table(("", ""), _data(facts)),
        "",
        "## Files",
        "",
        *_table(("file", "what it holds"), list(FILES.items())),
        "",
    ]
    return "\n".join(lines)


def _unfinished(facts: Mapping[str, Any]) -> list[str]:
    """What a reader must know of a trial that was ended early."""
    trial = facts["trial"]
    if trial["state"] == "complete":
        return []
    kept, why = facts["configuration"]["train"].get("keep", "last"), _shown(trial["reason"])
    return [
        "",
        f"The trial was {trial['state']} before its end ({why}): this is what its {kept} evaluation gave.",
    ]


def _confirmed(metric: str, found: Mapping[str, Any] | None) -> list[str]:
    """What its configuration reached on the test rows, trained anew."""
    if found is None:
        return []
    test = found["test"]
    sd = "" if test["sd"] is None else f" (standard deviation {test['sd']:.4f})"
    return [
        "",
        f"Trained anew under {found['seeds']} fresh seeds, this configuration reaches a mean {metric} of "
        f"{test['mean']:.4f} on the test rows{sd}.",
    ]


FILES = {
    "README.md": "this card",
    "adapter.yaml": "the configuration, as sections of a study file",
    "adapter.safetensors": "the adapter's weights and configuration",
    "head.safetensors": "the head's weights, its labels, and which backbone it belongs to",
    "metrics.json": "all of the above as data, with the digests of the files",
}


def _configuration(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    configuration = facts["configuration"]
    adapter = dict(configuration["adapter"])
    if "frozen" in configuration:
        named = zip(configuration["frozen"], adapter["adapters"], strict=True)
        adapter["adapters"] = ", ".join(f"{folder} (sha256 {part['weights']})" for folder, part in named)
    return [*adapter.items(), *configuration["train"].items(), ("seed", facts["seed"])]


def _data(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, task = facts["data"], facts["task"]
    rows = [(f"{split} rows", number(count)) for split, count in data["rows"].items() if count is not None]
    rows += [
        (f"{split} from", _shown(source)) for split, source in data["sources"].items() if source is not None
    ]
    rows += [("text", ", ".join(task["text"])), ("label", ", ".join(task["label"]) or "-")]
    if task["label_names"] is not None:
        rows.append(("labels", ", ".join(task["label_names"])))
    return [*rows, ("fingerprint", data["fingerprint"])]


def _table(header: tuple[str, str], rows: Sequence[tuple[str, Any]]) -> list[str]:
    body = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    return [f"| {header[0]} | {header[1]} |", "|---|---|", *body]


def _cell(value: Any) -> str:
    return one_line(value).replace("|", "\\|")


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    return one_line(value)
