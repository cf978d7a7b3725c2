"""What both sides of `benchmarks.inference` do in a round: a model bare and with an adapter, batch by batch.

Needs torch alone, so that both environments run the same lines.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

PASSES = {1: 16, 32: 2}
"""How often a round goes through its batches, by the size of a batch."""
BATCHES = 4


def turns(
    bare: Any, adapted: Any, tokenizer: Any, texts: list[str], batch_size: int, max_length: int
) -> dict[str, float]:
    """Milliseconds of processor time a batch takes, and what the adapter adds.

    Each batch is run bare and adapted, one after the other, with the first changing: what is said to be added
    is the median of the differences of such pairs, so that what else the machine does counts for both alike.
    """
    batches = []
    for start in range(0, BATCHES * batch_size, batch_size):
        part = texts[start : start + batch_size]
        options = {"padding": True, "truncation": True, "max_length": max_length, "return_tensors": "pt"}
        batches.append(dict(tokenizer(part, **options)))
    pairs = []
    with torch.inference_mode():
        for batch in batches[:1]:
            bare(**batch), adapted(**batch)
        for number in range(PASSES.get(batch_size, 4)):
            for batch in batches:
                if number % 2:
                    pairs.append((_milliseconds(bare, batch), _milliseconds(adapted, batch)))
                else:
                    with_adapter = _milliseconds(adapted, batch)
                    pairs.append((_milliseconds(bare, batch), with_adapter))
    tokens = statistics.mean(batch["input_ids"].shape[1] for batch in batches)
    return {
        "bare": statistics.median(one for one, _ in pairs),
        "adapted": statistics.median(other for _, other in pairs),
        "added": statistics.median(other - one for one, other in pairs),
        "tokens": tokens,
    }


def _milliseconds(model: Any, batch: dict[str, torch.Tensor]) -> float:
    began = time.process_time()
    model(**batch)
    return 1000 * (time.process_time() - began)
