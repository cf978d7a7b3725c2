"""What a backbone can be asked: the table of task kinds, a module each.

A kind says how rows become texts and labels, labels numbers, hidden states a loss, and outputs metrics and
predictions. All of it is in its :class:`~sweeper.tasks.kind.TaskKind`; the rest of the program asks that.
Importing it loads neither torch nor the data's libraries.
"""

from __future__ import annotations

from sweeper.tasks import causal_lm, classification, multi_label, regression, token_classification
from sweeper.tasks.kind import TaskKind, Tokens

__all__ = ["KINDS", "TaskKind", "Tokens", "task_of"]

KINDS: dict[str, TaskKind] = {
    kind.name: kind
    for kind in (
        classification.KIND,
        regression.KIND,
        multi_label.KIND,
        token_classification.KIND,
        causal_lm.KIND,
    )
}
"""Every kind of task, by the name that a study file has for it."""


def task_of(kind: str) -> TaskKind:
    """The task kind of a name that a study file may have."""
    return KINDS[kind]
