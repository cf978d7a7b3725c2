"""What is exported and compared: a case is an adapter, a head, and what the row of the table is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from adapters import AdapterConfig
from adapters.architectures import ARCHITECTURES
from adapters.interop.adapterhub_bottleneck import ACTIVATIONS
from adapters.interop.hubnames import ROWS as HUB_FAMILIES
from adapters.interop.naming import PEFT as PEFT_FAMILIES

REAL = "all-MiniLM-L6-v2"
HIDDEN = 384
PLACEMENTS = (
    "houlsby", "pfeiffer", "attention", "parallel", "pfeiffer_original", "attention:parallel",
    "attention:after+ffn:parallel", "attention:after+ffn:norm_inside", "attention:parallel+ffn:parallel",
    "attention:parallel+ffn:after", "attention:parallel+ffn:norm_inside",
)  # fmt: skip
SLIDING = ("mistral",)
"""Of the tiny models, those of a window so short that a prefix is refused."""
DIMENSIONS = (1, 2, 3, 5, 7, 13, 16, 24, 48, 77, 100, 128, 191, 192, 193, 255, 256, 300, 383, 384)


@dataclass(frozen=True)
class Case:
    """One adapter that goes over.

    Args:
        format: "adapterhub" or "peft".
        row: of the table.
        model: `REAL`, or a family, of which a tiny model is made.
        config: what it is.
        pooling: of its head; None without a head: then hidden states are compared.
    """

    format: str
    row: str
    model: str
    config: AdapterConfig
    pooling: str | None = "mean"
    extra: dict[str, Any] = field(default_factory=dict)


def _bottleneck(row: str, pooling: str = "mean", model: str = REAL, **fields: Any) -> Case:
    config = AdapterConfig(**{"bottleneck_dim": 24, "initialization": "normal", **fields})
    return Case("adapterhub", row, model, config, pooling)


def _lora(format: str, row: str, model: str = REAL, pooling: str | None = "mean", **fields: Any) -> Case:
    config = AdapterConfig(**{"method": "lora", "rank": 6, "initialization": "normal", **fields})
    return Case(format, row, model, config, pooling)


def hub_cases() -> list[Case]:
    """What AdapterHub is to load."""
    found = [_bottleneck(f"bottleneck, placement {one}", placement=one) for one in PLACEMENTS]
    found += [_bottleneck(f"bottleneck, activation {one}", activation=one) for one in ACTIVATIONS]
    found += [_bottleneck("bottleneck, 20 dimensions of 1 to 384", bottleneck_dim=one) for one in DIMENSIONS]
    found += [
        _bottleneck("bottleneck, layer sets", layers=one) for one in ("upper_half", "upper_third", (0, 2, 5))
    ]
    found += [
        _bottleneck("bottleneck, scaling 4", scaling=4.0, placement="parallel"),
        _bottleneck("bottleneck, a factor a channel", learned_scaling="channel", scaling=2.0),
        _bottleneck("head, first token", "cls"),
        _bottleneck("head, mean of tokens"),
        _bottleneck("head, last token", "last"),
        _lora("adapterhub", "LoRA, query and value"),
        _lora(
            "adapterhub", "LoRA, all that they reach", targets="query+key+value+ffn_up+ffn_down", alpha=13.0
        ),
        _lora("adapterhub", "LoRA, three of six layers", layers=(1, 2, 4), targets="ffn_up"),
    ]
    for layers in ("all", (0, 3)):
        config = AdapterConfig(method="prefix", prefix_length=12, layers=layers)
        found.append(Case("adapterhub", "prefix", REAL, config))
    for family in HUB_FAMILIES:
        row = f"family {family}"
        found.append(_bottleneck(row, model=family, bottleneck_dim=5, placement="houlsby", layers=(0, 2)))
        if HUB_FAMILIES[family].prefixes is not None:
            found.append(Case("adapterhub", row, family, AdapterConfig(method="prefix", prefix_length=5)))
        if family != "gpt2":
            found.append(
                _lora("adapterhub", row, family, targets="query+value+ffn_up+ffn_down", layers=(0, 1))
            )
    return found


def peft_cases() -> list[Case]:
    """What PEFT is to load."""
    found = []
    for method in ("lora", "dora"):
        name = {"lora": "LoRA", "dora": "DoRA"}[method]
        for targets in ("query_value", "attention", "ffn", "all", "attention_output+ffn_down"):
            found.append(
                _lora("peft", f"{name}, targets {targets}", method=method, targets=targets, alpha=11.0)
            )
        found.append(_lora("peft", f"{name}, three of six layers", method=method, layers=(1, 2, 4)))
    for targets in ("key_value_ffn", "all"):
        found.append(Case("peft", "IA3", REAL, AdapterConfig(method="ia3", targets=targets)))
    found.append(Case("peft", "IA3", REAL, AdapterConfig(method="ia3", layers=(0, 5))))
    for length in (1, 12):
        config = AdapterConfig(method="prefix", prefix_length=length)
        found.append(Case("peft", "prefix, called with position ids", REAL, config))
        behind = AdapterConfig(method="prefix", prefix_length=length, positions="after_prefix")
        found.append(Case("peft", "prefix, positions after it", REAL, behind))
        found.append(Case("peft", "prompt", REAL, AdapterConfig(method="prompt", prompt_length=length)))
    for pooling, what in (("cls", "first token"), ("mean", "mean of tokens"), ("last", "last token")):
        found.append(_lora("peft", f"head, {what}", pooling=pooling))
    found.append(_lora("peft", "no head", pooling=None))
    for family, names in PEFT_FAMILIES.items():
        row, pooling = f"family {family}", "mean" if names.token_head else None
        for method in ("lora", "dora", "ia3"):
            ours = {"targets": "all"} if method == "ia3" else {"targets": "all", "rank": 3, "alpha": 5.0}
            found.append(
                Case("peft", row, family, AdapterConfig(method=method, layers=(0, 2), **ours), pooling)
            )
        if names.cache and family not in SLIDING:
            learned = ARCHITECTURES[family].position_table is not None
            positions = {"positions": "after_prefix"} if learned else {}
            config = AdapterConfig(method="prefix", prefix_length=5, **positions)
            found.append(Case("peft", f"prefix, family {family}", family, config, pooling))
    return found
