"""How one trial is trained. Frozen, validated, JSON in and out; what it means is in train.py."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sweeper.words import nearest, short

SCHEDULES = ("linear", "cosine", "constant")
KEEPS = ("last", "best")
MOST_EPOCHS = 100_000


class TrainConfigError(ValueError):
    """A value that training cannot use. ``field`` names the field at fault."""

    def __init__(self, message: str, field: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class TrainConfig:
    """How one trial is trained.

    Args:
        learning_rate: the peak rate of AdamW, above 0.
        epochs: passes over the training rows, 1 to 100,000.
        batch_size: rows a step, 1 or more; the last batch of an epoch may be smaller.
        warmup: share of all steps in which the rate rises linearly from 0, in [0, 1).
        weight_decay: AdamW's decoupled decay, 0 or more.
        max_grad_norm: the norm of the trial's whole gradient is clipped to this, above 0.
        schedule: what the rate does after the warm-up: ``linear`` or ``cosine`` to 0, or ``constant``.
        evaluations_per_epoch: evaluations on the validation rows in each epoch, evenly spaced, 1 or more.
        keep: whose weights count: those of the ``last`` evaluation or of the ``best``.

    Raises:
        TrainConfigError: a value has the wrong type or is out of its range.
    """

    learning_rate: float = 1e-3
    epochs: int = 3
    batch_size: int = 32
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    schedule: str = "linear"
    evaluations_per_epoch: int = 1
    keep: str = "last"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluations_per_epoch"):
            self._check_whole_number(name)
        if self.epochs > MOST_EPOCHS:
            raise TrainConfigError(f"must be {MOST_EPOCHS:,} or less, not {short(self.epochs)}", "epochs")
        for name in ("learning_rate", "max_grad_norm"):
            self._check_number(name)
            if not getattr(self, name) > 0:
                raise TrainConfigError(f"must be above 0, not {short(getattr(self, name))}", name)
        for name in ("warmup", "weight_decay"):
            self._check_number(name)
            if getattr(self, name) < 0:
                raise TrainConfigError(f"must be 0 or more, not {short(getattr(self, name))}", name)
        if self.warmup >= 1:
            raise TrainConfigError(
                f"must be below 1 (a share of all steps), not {short(self.warmup)}", "warmup"
            )
        self._check_name("schedule", SCHEDULES)
        self._check_name("keep", KEEPS)

    def _check_whole_number(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int):
            raise TrainConfigError(f"must be a whole number, not {short(value)}", name)
        if value < 1:
            raise TrainConfigError(f"must be 1 or more, not {short(value)}", name)

    def _check_number(self, name: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TrainConfigError(f"must be a number, not {short(value)}", name)
        if abs(value) > 1e300 or not math.isfinite(
            value
        ):  # compared first: isfinite() overflows on huge ints
            raise TrainConfigError(f"must be a finite number, not {short(value)}", name)
        object.__setattr__(self, name, float(value))

    def _check_name(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise TrainConfigError(f"{short(value)} is not known{nearest(value, known)}", name)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """The configuration that :meth:`to_dict` gave.

        Raises:
            TrainConfigError: an unknown key, or a value out of its range.
        """
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise TrainConfigError(f"there is no field {short(key)}{nearest(key, known)}", str(key))
        return cls(**data)

    @property
    def evaluations(self) -> int:
        """How many evaluations a trial has that trains to its end."""
        return self.epochs * self.evaluations_per_epoch
