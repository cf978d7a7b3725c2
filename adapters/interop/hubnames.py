"""How AdapterHub's `adapters` names the parts of each family: `make interop` shows every row."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from adapters.errors import AdapterError

_INNER = MappingProxyType({"ffn_up": "intermediate_lora", "ffn_down": "output_lora"})


class HubNames(NamedTuple):
    """One row.

    Args:
        model_class: of their models with heads.
        prefix: the attribute that holds the backbone.
        attention, ffn: path, inside a layer, of what holds the bottlenecks of a sublayer, with a dot behind.
        lora: linears of the FFN that they change, and the key of `LoRAConfig` that says so.
        prefixes: what they call the prefixes of self-attention; None where theirs compute something else than
            those of this library.
    """

    model_class: str
    prefix: str
    attention: str = "attention_adapters."
    ffn: str = "output_adapters."
    lora: Mapping[str, str] = _INNER
    prefixes: str | None = None


def _bert_like(model_class: str, prefix: str) -> HubNames:
    return HubNames(model_class, prefix, "attention.output.", "output.", prefixes="self_prefix")


# In their Llama and Mistral the two names of the FFN's linears are the other way round.
_SWAPPED = MappingProxyType({"ffn_down": "intermediate_lora", "ffn_up": "output_lora"})
ROWS: Mapping[str, HubNames] = {
    "bert": _bert_like("BertAdapterModel", "bert"),
    "roberta": _bert_like("RobertaAdapterModel", "roberta"),
    "xlm-roberta": _bert_like("XLMRobertaAdapterModel", "roberta"),
    "electra": _bert_like("ElectraAdapterModel", "electra"),
    "distilbert": HubNames("DistilBertAdapterModel", "distilbert"),
    "gpt2": HubNames("GPT2AdapterModel", "transformer"),
    "llama": HubNames("LlamaAdapterModel", "model", lora=_SWAPPED),
    "mistral": HubNames("MistralAdapterModel", "model", lora=_SWAPPED),
}


def hub_names(model_type: str) -> HubNames:
    """The row of a family; AdapterError if it was never tried."""
    if model_type not in ROWS:
        raise AdapterError(
            f"exchange with AdapterHub is not shown for the family {model_type!r}, so it is not offered; it "
            "is for "
            f"{', '.join(ROWS)}"
        )
    return ROWS[model_type]
