"""The next token: texts alone, a decoder with its own frozen language modelling head, and perplexity.

Every text begins with the tokenizer's token for a beginning, where it has one, and is cut into pieces of at
most the maximal length. A piece begins with the last token of the one before it, so that every token but the
first is predicted once. Logits are computed for the tokens that predict another one alone, and some rows at a
time where the vocabulary is large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sweeper.errors import UsageError
from sweeper.metrics import METRICS, language, perplexity
from sweeper.tasks.columns import read_texts
from sweeper.tasks.kind import IGNORED, Fault, Names, TaskKind, Tokens

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from sweeper.data import Split
    from sweeper.study import Study

LOGITS_AT_ONCE = 2**24
"""So many logits are held at a time, by a gradient as by an evaluation."""
_SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier")


def _tokenise(
    columns: Sequence[Sequence[Any]],
    labels: Sequence[Any] | None,
    names: Names,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    fault: Fault,
) -> Tokens:
    from sweeper.data.tokens import TEXTS_AT_ONCE, flat_row, flat_split

    pieces: list[list[int]] = []
    full_lengths: list[int] = []
    parts: list[int] = []
    texts, begin = columns[0], tokenizer.bos_token_id
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        chunk = list(texts[start : start + TEXTS_AT_ONCE])
        made = tokenizer(chunk, truncation=False, padding=False, return_attention_mask=False, verbose=False)[
            "input_ids"
        ]
        for row, ids in enumerate(made, start=start):
            if begin is not None and ids[:1] != [begin]:
                ids = [begin, *ids]
            if len(ids) < 2:
                raise fault(row, "the tokenizer makes fewer than two tokens of this text: nothing follows")
            # Each piece takes the last token of the one before it along.
            own = [ids[at : at + max_length] for at in range(0, len(ids) - 1, max_length - 1)]
            full_lengths.append(len(ids))
            parts.append(len(own))
            pieces += own
    following = flat_row([*piece[1:], IGNORED] for piece in pieces)
    facts = {"pieces": len(pieces), "predicted": sum(full_lengths) - len(full_lengths)}
    return Tokens(flat_split(pieces, [], following), full_lengths, 0, facts, parts)


def token_losses(hidden_states: Tensor, labels: Tensor, backbone: nn.Module) -> Tensor:
    """The negative log-likelihood of the token after each, ``[tokens]``, in fp32 or fp64.

    Args:
        hidden_states: the last ones, ``[tokens, hidden_size]``.
        labels: the tokens that follow, ``[tokens]``.
        backbone: with its language modelling head.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    head = backbone.get_output_embeddings()  # type: ignore[operator]
    vocabulary = head.weight.shape[0]
    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(labels) <= rows:
        return _losses(hidden_states, labels, backbone)
    pairs = zip(hidden_states.split(rows), labels.split(rows), strict=True)
    return torch.cat([checkpoint(_losses, *pair, backbone, use_reentrant=False) for pair in pairs])


def _losses(hidden_states: Tensor, labels: Tensor, backbone: nn.Module) -> Tensor:
    import torch
    import torch.nn.functional as functional

    head: Any = backbone.get_output_embeddings()  # type: ignore[operator]
    logits = head(hidden_states.to(head.weight.dtype))
    cap = getattr(backbone.config, "final_logit_softcapping", None)
    if cap is not None:  # Gemma 2
        logits = torch.tanh(logits / cap) * cap
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return functional.cross_entropy(wide, labels.long(), reduction="none")


def _loss(outputs: Tensor, labels: Tensor, backbone: nn.Module | None) -> Tensor:
    assert backbone is not None
    return token_losses(outputs, labels, backbone).mean()


def _measure(outputs: Tensor, split: Split, names: Names) -> dict[str, float]:
    return language(outputs[split.labels != IGNORED])


def _predict(outputs: Tensor, tokens: Tokens, names: Names) -> list[dict[str, Any]]:
    """The perplexity of each text, over how many of its tokens, and their mean loss."""
    split = tokens.split
    read = split.labels != IGNORED
    sums = [own.double().sum().item() for own in (outputs[:, 0] * read).split(split.lengths.tolist())]
    counts = (split.lengths - 1).tolist()
    rows, at = [], 0
    for pieces in tokens.parts:
        count = sum(counts[at : at + pieces])
        mean = sum(sums[at : at + pieces]) / count
        rows.append({"perplexity": perplexity(mean), "loss": mean, "tokens": count})
        at += pieces
    return rows


def _check(study: Study, config: PretrainedConfig) -> None:
    from adapters.architectures import architecture_of

    row = architecture_of(config)
    line = study.line("task", "kind") or study.line("task")
    if not row.causal or row.decoder is not None:
        raise UsageError(
            f"causal_lm predicts the next token from those before it, and a {config.model_type} sees those "
            "after it as well: take a decoder, such as GPT-2 or Llama",
            file=study.path,
            line=line,
        )
    scaled = [name for name in _SCALES if getattr(config, name, None) not in (None, 1, 1.0)]
    if scaled:
        raise UsageError(
            f"this {config.model_type} scales its logits by {scaled[0]}, which causal_lm does not know",
            file=study.path,
            line=line,
        )
    methods = study.search["method"].to_json() if "method" in study.search else "bottleneck"
    if "head" in ([methods] if isinstance(methods, str) else list(methods)):
        raise UsageError(
            "method: head trains nothing here: the head of causal_lm is the backbone's own, and frozen. Name "
            "a method with an adapter",
            file=study.path,
            line=study.line("search", "method"),
        )


KIND = TaskKind(
    name="causal_lm",
    metrics=METRICS["causal_lm"],
    read_text=read_texts,
    read_labels=lambda rows, task: [None] * len(rows),
    names_in=lambda label: (),
    tokenise=_tokenise,
    width=lambda names: 0,
    loss=_loss,
    measure=_measure,
    predict=_predict,
    reads="every token that another follows",
    reading="next",
    pairs=False,
    label_columns=0,
    has_names=False,
    check=_check,
    language_head=True,
)
