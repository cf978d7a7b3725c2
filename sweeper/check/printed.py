"""What ``check`` prints for people. Everything here only formats what ``check_study`` found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeper.console import Output, one_line
from sweeper.metrics import in_words
from sweeper.terminal import configuration, duration, memory, number, percent

LABELS_SHOWN = 12
FACTS = {
    "words": "words",
    "words_cut": "words past max_length",
    "pieces": "pieces",
    "predicted": "tokens to predict",
}
"""What some kinds of task report of their data beside the rest."""


def print_check(out: Output, result: Mapping[str, Any]) -> None:
    """Everything that would run, section by section."""
    backbone, task = result["backbone"], result["task"]
    text = task["text"] if isinstance(task["text"], str) else " + ".join(task["text"])
    count = len(task["labels"] or ())
    labels = "" if task["labels"] is None else ", 1 label" if count == 1 else f", {count} labels"
    lines = [
        f"{result['file']}: the study {result['study']} can run",
        "",
        f"backbone   {backbone['model']} ({backbone['family']}, {number(backbone['parameters'])} parameters)",
        f"task       {task['kind']} of {text}{labels}, {task['reads']}",
        *_data(result["data"]),
        *_space(result),
        *_sites(result["sites"]),
        f"trial 0    {configuration(result['default']) or 'the only configuration'}",
        f"budget     {_pairs(result['budget'])}",
        f"method     sampler {_named(result['sampler'])}, pruner {_named(result['pruner'])}, "
        f"seed {result['seed']}, {result['dtype']}",
    ]
    if result["known"] is not None:
        lines.append(f"store      has this study, {_known(result)}")
    if result["forecast"] is not None:
        lines += _forecast(result["forecast"])
    out.data("\n".join(lines))


def _known(result: Mapping[str, Any]) -> str:
    """How far the store's study of this name is, and what `sweeper run` would do with it."""
    known = result["known"]
    if known["stopped"]:
        return f"which its user stopped: `sweeper resume {result['study']}` lets it go on"
    if known["state"] == "ended" and not known["budget_grew"]:
        has_ended = f"which has ended ({one_line(known['ended_because'])})"
        if known["unfinished"]:
            return f"{has_ended}, but for what had begun: `sweeper run` finishes that"
        return f"{has_ended}: to go on, raise its budget"
    ended = sum(known["trials"][state] for state in ("complete", "pruned", "failed"))
    paused = known["state"] == "paused"
    way = f"`sweeper resume {result['study']}` lets it go on" if paused else "`sweeper run` goes on with it"
    return f"with {number(ended)} of {number(known['budget']['trials'])} trials ended: {way}"


def _data(data: Mapping[str, Any]) -> list[str]:
    lines = []
    for split, rows in data["rows"].items():
        counts = data["label_counts"].get(split) or {}
        shown = [
            f"{one_line(label)}: {number(count)}" for label, count in list(counts.items())[:LABELS_SHOWN]
        ]
        shown += ["…"] if len(counts) > LABELS_SHOWN else []
        facts = [f"{number(rows)} rows" + (f" ({', '.join(shown)})" if shown else "")]
        facts.append(f"{data['mean_length'][split]:.1f} tokens on average")
        facts.append(f"{number(data['truncated'][split])} truncated")
        facts += [f"{number(data[key][split])} {words}" for key, words in FACTS.items() if key in data]
        same = data["duplicates_of_train"].get(split)
        facts += [f"{number(same)} also in train"] if same is not None else []
        lines.append(f"{split:<10} {', '.join(facts)}")
    return lines


def _space(result: Mapping[str, Any]) -> list[str]:
    space, sizes = result["space"], result["adapter_parameters"]
    size = (
        "without end (a range is continuous)"
        if space["size"] is None
        else f"{number(space['size'])} configurations"
    )
    lines = [f"space      {size}"]
    lines += [f"           {name}: {words}" for name, words in space["searched"].items()]
    low, high = number(sizes["smallest"]), number(sizes["largest"])
    shares = f"{percent(sizes['smallest_percent'])} to {percent(sizes['largest_percent'])} of the backbone"
    lines.append(f"sizes      {low} to {high} adapter parameters ({shares})")
    for name, limit in result["limits"].items():
        if limit is not None:
            lines.append(
                f"limit      {number(limit)} {in_words(name)}; configurations past it are never trained"
            )
    return lines


def _sites(sites: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for place, (name, modules) in enumerate(sites.items()):
        lines.append(f"{'sites' if place == 0 else '':<10} {name}: {'; '.join(folded(modules))}")
    return lines


def folded(modules: Sequence[str]) -> list[str]:
    """Module names that differ in their layer alone as one: ``encoder.layer.{0,1,2}.output.dense``."""
    groups: dict[str, list[str]] = {}
    for module in modules:
        layer = re.search(r"(?<=\.)\d+(?=\.|$)", module)
        assert layer is not None
        groups.setdefault(f"{module[: layer.start()]}{{}}{module[layer.end() :]}", []).append(layer.group())
    return [
        pattern.replace("{}", layers[0] if len(layers) == 1 else "{" + ",".join(layers) + "}")
        for pattern, layers in groups.items()
    ]


def _forecast(forecast: Mapping[str, Any]) -> list[str]:
    speed = f"{forecast['examples_per_second']:.0f} examples a second"
    where = f"{forecast['device']}, {forecast['measured_steps']} steps of trial 0 measured"
    workers = f" by {forecast['workers']} workers" if forecast["workers"] > 1 else ""
    return [
        f"forecast   {speed} ({where})",
        f"           {duration(forecast['seconds_per_trial'])} a trial, "
        f"at most about {duration(forecast['seconds'])} in all{workers}; pruning makes it less",
        f"           {memory(forecast['memory_bytes'])} of memory a worker, "
        f"{memory(forecast['disk_bytes'])} of disk at most, {memory(forecast['disk_free_bytes'])} free",
    ]


def _pairs(values: Mapping[str, Any]) -> str:
    """``trials 30, hours 2, repeats``: what is said, each with its value."""
    said = {key: value for key, value in values.items() if value is not None and value is not False}
    return ", ".join(
        key if value is True else f"{key} {_named(value) if isinstance(value, Mapping) else number(value)}"
        for key, value in said.items()
    )


def _named(plugin: Mapping[str, Any]) -> str:
    options = _pairs({key: value for key, value in plugin.items() if key != "name"})
    return f"{plugin['name']}{f' ({options})' if options else ''}"
