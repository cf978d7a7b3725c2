"""Writes docs/adapters.md from the tables of methods and families; with --check, fails if it is out of date.

What goes together is run, not declared: every method in a tiny model of every family. What came of it is
written to docs/adapter_pairs.json, from which the page has its ticks; the tests run them again and compare.

Its name is not the page's: `docs/adapters.py` would hide the package from every script beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    # The tiny models of the tests are in no installed package.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from transformers import BertConfig

from adapters.architectures import ARCHITECTURES, is_flat
from adapters.config import METHODS, AdapterConfig, fields_of, shares_step
from adapters.count import parameters_in
from adapters.errors import AdapterError
from adapters.fields import DEFAULTS, REQUIRED
from adapters.methods import METHODS as ROWS
from adapters.methods import check
from adapters.pairs import default_of
from tests.laws import PASSED, verdicts
from tests.tiny_models import tiny_config

PAGE = Path(__file__).with_name("adapters.md")
RECORD = Path(__file__).with_name("adapter_pairs.json")
BOTTLENECK_DIM = 24
HEADER = """\
# Methods and families

Made by `make docs` from the tables in `adapters/`. What the fields mean is in `adapters/config.py`; what of
its paper a method follows, and where it differs, at the top of its file.
"""
MINILM = BertConfig(
    hidden_size=384,
    num_hidden_layers=6,
    num_attention_heads=12,
    intermediate_size=1536,
    max_position_embeddings=512,
    vocab_size=30522,
)


def page() -> str:
    """The whole page."""
    configs = {family: tiny_config(family, layers=2) for family in ARCHITECTURES}
    found = _recorded()
    return "\n".join(
        [HEADER, *_methods(), "", *_counts(), "", *_table(found), "", *_families(found, configs), ""]
    )


def _recorded() -> dict[tuple[str, str], str | None]:
    """What came of each pair when it was last run: None, or why the two do not go together."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    return {
        (method, family): None if said == PASSED else said
        for family, verdicts in record.items()
        for method, said in verdicts.items()
    }


def _methods() -> list[str]:
    lines = [
        "## Methods",
        "",
        "A method that shares a step is trained with others, in packs; one that does not is a pack of one.",
        "",
        *_head("method", "paper", "fields and defaults", "shares a step", "changes nothing at the start"),
    ]
    for method in METHODS:
        config, defaults = default_of(method, BOTTLENECK_DIM), DEFAULTS[method]
        fields = [_field(name, defaults[name]) for name in fields_of(method)[1:]]
        cells = [
            f"`{method}`",
            ROWS[method].paper,
            ", ".join(fields) or "none",
            _yes(shares_step(config)),
            _yes(ROWS[method].identity),
        ]
        lines.append(_row(cells))
    return lines


def _field(name: str, default: object) -> str:
    return f"`{name}` (to be given)" if default is REQUIRED else f"`{name}` {default}"


def _counts() -> list[str]:
    lines = [
        "## Counts",
        "",
        "Parameters of each method's default in the shape of all-MiniLM-L6-v2: BERT, 6 layers, hidden 384,",
        f"FFN 1536. A bottleneck dimension that has to be given is {BOTTLENECK_DIM}. The task's head is not",
        "counted, and neither is what a composition holds frozen: `fuse` has two bottlenecks, `stack` one.",
        "",
        *_head("method", "parameters", "of the layers'"),
    ]
    whole = _layer_parameters(MINILM)
    for method in METHODS:
        count = parameters_in(default_of(method, BOTTLENECK_DIM), MINILM)
        lines.append(_row([f"`{method}`", f"{count:,}", f"{count / whole:.3%}"]))
    return lines


def _layer_parameters(config: BertConfig) -> int:
    """Parameters of BERT's layers, without its embeddings and its pooler."""
    width, inner = config.hidden_size, config.intermediate_size
    attention, ffn, norms = 4 * (width * width + width), 2 * width * inner + inner + width, 4 * width
    return int(config.num_hidden_layers * (attention + ffn + norms))


def _table(found: dict[tuple[str, str], str | None]) -> list[str]:
    lines = [
        "## Methods × families",
        "",
        "A tick stands where the method's default was put into a tiny model of the family, and passed:",
        "nothing is changed at the start where promised, gradients reach the adapter's parameters",
        "and nothing else, the count is the closed form, and removal restores the outputs bit for bit",
        "(`tests/laws.py`). `make docs` runs every pair and records what came of it in",
        "[adapter_pairs.json](adapter_pairs.json), refusals with their reasons; the tests run every",
        "pair again and compare. Whether there are biases for `bitfit`, or word embeddings as wide as",
        "the layers for `prompt`, depends on the model: those of the tiny ELECTRA and ALBERT are narrow.",
        "",
        *_head("family", *(f"`{method}`" for method in METHODS)),
    ]
    for family in ARCHITECTURES:
        ticks = ["✓" if found[method, family] is None else "" for method in METHODS]
        lines.append(_row([family, *ticks]))
    return lines


def _families(found: dict[tuple[str, str], str | None], configs: dict[str, object]) -> list[str]:
    lines = [
        "## Families",
        "",
        "Flat: many trials train at once on one run of tokens without padding. Padded: one trial after the",
        "other, on padded texts. The linears are the names that `targets` takes. Nothing acts inside the",
        "cross-attention of a decoder, whose linears and biases stay as they are.",
        "",
        *_head("family", "runs", "linears", "placement `pfeiffer_original`", "refused, and why"),
    ]
    for family, row in ARCHITECTURES.items():
        reasons: dict[str, list[str]] = {}
        for method in METHODS:
            if (reason := found[method, family]) is not None:
                reasons.setdefault(_why(reason), []).append(f"`{method}`")
        refused = "; ".join(f"{', '.join(names)}: {why}" for why, names in reasons.items())
        runs = "flat" if is_flat(configs[family]) else "padded"
        linears = ", ".join(f"`{name}`" for name in row.linears)
        lines.append(_row([family, runs, linears, _yes(_takes_original(configs[family])), refused]))
    return lines


def _takes_original(backbone: object) -> bool:
    try:
        check(AdapterConfig(bottleneck_dim=8, placement="pfeiffer_original"), backbone)
    except AdapterError:
        return False
    return True


def _why(reason: str) -> str:
    """What an error says after "'gemma2' takes no adapter of the method mam: "."""
    return reason.split(": ", 1)[-1]


def _head(*names: str) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: tuple[str, ...] | list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def main() -> int:
    """Write or check the page; the exit code."""
    if sys.argv[1:] != ["--check"]:
        RECORD.write_text(json.dumps(verdicts(), indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(), encoding="utf-8")
        return 0
    if not RECORD.is_file() or not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print(f"error: {PAGE.name} is not what the tables say: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
