"""What each kind of task has to say of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

    from sweeper.data import Split
    from sweeper.data.rows import Rows
    from sweeper.errors import UsageError
    from sweeper.study import Study
    from sweeper.study.schema import Task

Names = tuple[str, ...] | None
"""The names of the labels, by number; None where nothing has a name."""
Fault = Callable[[int, str], "UsageError"]
"""Makes the error about a row, counted from 0, out of what is wrong with it."""

IGNORED = -100
"""The label of a token that is not read, as in transformers."""


@dataclass(frozen=True)
class Tokens:
    """What became of the rows of a table.

    Args:
        split: their tokens and labels.
        full_lengths: tokens of each row before any was cut.
        truncated: how many rows were cut.
        facts: what else people should know of them, by name, for the report on the data.
        parts: how many texts of the split each row became.
        words: how many words each row has, for kinds that label words; ``kept``: which of them were not cut.
    """

    split: Split
    full_lengths: list[int]
    truncated: int
    facts: dict[str, int] = field(default_factory=dict)
    parts: list[int] = field(default_factory=list)
    words: list[int] = field(default_factory=list)
    kept: list[range] = field(default_factory=list)


@dataclass(frozen=True)
class TaskKind:
    """One kind of task.

    Args:
        name: what the study file calls it.
        metrics: every metric, and the direction in which it is better.
        reads: which hidden states it reads, for people; None if ``task.pooling`` says that.
        reading: the same for the program, in place of a pooling: ``words`` or ``next``.
        pairs: a text may be two columns.
        label_columns: how many columns of labels there may be, at most.
        separator: the default of ``task.separator``; None if several labels are never in one field.
        stratified: a fraction drawn of the rows has its share of each label.
        has_names: labels are names; otherwise numbers, or nothing.
        least_names: fewer names in all of train leave nothing to learn.
        read_text: a column of texts, checked; any hashable value a row.
        read_line: the same value of a line of a file of texts.
        read_labels: the labels of all rows, checked.
        names_in: the names that the label of one row holds.
        tokenise: columns of texts, their labels (None if they are not known), the names, the tokenizer, the
            maximal length and what makes an error about a row, to tokens.
        width: how many numbers the head puts out.
        loss: outputs and labels of a batch, and the backbone, to the mean loss, a scalar.
        measure: outputs and labels of a whole split, to every metric.
        predict: outputs of a whole split to a prediction for each row.
        check: refuses what the backbone or the study file cannot do.
        language_head: the backbone comes with its language modelling head.
    """

    name: str
    metrics: Mapping[str, str]
    read_text: Callable[[Rows, str], list[Any]]
    read_labels: Callable[[Rows, Task], list[Any]]
    names_in: Callable[[Any], Iterable[str]]
    tokenise: Callable[
        [Sequence[Sequence[Any]], Sequence[Any] | None, Names, PreTrainedTokenizerBase, int, Fault], Tokens
    ]
    width: Callable[[Names], int]
    loss: Callable[[Tensor, Tensor, nn.Module | None], Tensor]
    measure: Callable[[Tensor, Split, Names], dict[str, float]]
    predict: Callable[[Tensor, Tokens, Names], list[dict[str, Any]]]
    read_line: Callable[[str], Any] = lambda line: line
    reads: str | None = None
    reading: str | None = None
    pairs: bool = True
    label_columns: int = 1
    stratified: bool = False
    has_names: bool = True
    separator: str | None = None
    least_names: int = 2
    check: Callable[[Study, PretrainedConfig], None] = lambda study, config: None
    language_head: bool = False

    def read_by(self, pooling: str) -> str:
        """Which hidden states are read, for people."""
        return self.reads or f"{pooling} pooling"


def text_tokens(encode: Callable[[Sequence[Any], Names], Tensor]) -> Any:
    """The ``tokenise`` of kinds that label whole texts.

    Args:
        encode: labels, and the names of all that there are, as a tensor with one row a text.
    """

    def tokenise(
        columns: Sequence[Sequence[Any]],
        labels: Sequence[Any] | None,
        names: Names,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
        fault: Fault,
    ) -> Tokens:
        import torch

        from sweeper.data.tokens import tokenise as tokens_of

        known = torch.zeros(len(columns[0])) if labels is None else encode(labels, names)
        split, full_lengths = tokens_of(columns, known, tokenizer, max_length, fault)
        truncated = sum(length > max_length for length in full_lengths)
        return Tokens(split, full_lengths, truncated, parts=[1] * len(full_lengths))

    return tokenise


def class_numbers(labels: Sequence[Any], names: Names) -> Tensor:
    """Class numbers, int64, of class names."""
    import torch

    numbers = {name: number for number, name in enumerate(names or ())}
    return torch.tensor([numbers[str(label)] for label in labels], dtype=torch.int64)


def width_of_names(names: Names) -> int:
    """One output a label.

    Raises:
        ValueError: no names were given.
    """
    if not names:
        raise ValueError("a head needs the names of its labels")
    return len(names)
