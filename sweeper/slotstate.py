"""A trial in the middle of its training, out of its slot: all that it needs to go on in another one.

Nothing is rounded on the way: who goes on from a state computes what the uninterrupted trial would have.
"""

from __future__ import annotations

from torch import Tensor

from sweeper.batches import Order
from sweeper.slot import Kept, Slot, SlotState, dropout_state

_NUMBERS = (
    "step", "seconds", "training_seconds", "device_seconds", "examples", "losses", "evaluation", "metrics",
)  # fmt: skip


def snapshot(slot: Slot) -> SlotState:
    """Copies of all that a slot needs to go on elsewhere; taken between two steps."""
    assert isinstance(slot.batches, Order)
    epoch_began, taken = slot.batches.state()
    tensors = {"order": epoch_began, "loss_sum": slot.loss_sum}
    for name, module in (("adapter", slot.adapter), ("head", slot.head)):
        if module is not None:
            tensors |= {f"{name}.{key}": value for key, value in module.state_dict().items()}
    for index, parameter in enumerate(slot.parameters):
        moments = slot.optimizer.state.get(parameter, {})
        tensors |= {f"optimizer.{index}.{key}": value for key, value in moments.items()}
    if (dropout := dropout_state(slot)) is not None:
        tensors["dropout"] = dropout
    numbers = {name: getattr(slot, name) for name in _NUMBERS} | {"taken": taken}
    if slot.best is not None:
        numbers["best"] = {"evaluation": slot.best.evaluation, "metrics": slot.best.metrics}
        for name, weights in (("adapter", slot.best.adapter or {}), ("head", slot.best.head)):
            tensors |= {f"best.{name}.{key}": value for key, value in weights.items()}
    copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
    return SlotState(copies, {**numbers, "metrics": dict(slot.metrics)})


def restore(slot: Slot, state: SlotState) -> None:
    """Put a fresh slot where :func:`snapshot` was taken.

    Raises:
        ValueError, KeyError, RuntimeError: the state is not one of this trial.
    """
    tensors, numbers = state.tensors, state.numbers
    for name, module in (("adapter", slot.adapter), ("head", slot.head)):
        if module is not None:
            module.load_state_dict(_under(tensors, name))
    for index, parameter in enumerate(slot.parameters):
        moments = _under(tensors, f"optimizer.{index}")
        if moments:
            # AdamW counts its steps on the CPU unless it is fused; the weights decide where the moments are.
            where = slot.device if slot.device.type == "cuda" else parameter.device
            slot.optimizer.state[parameter] = {
                key: value.to(where, copy=True) for key, value in moments.items()
            }
    if dropout_state(slot) is not None and slot.adapter is not None and slot.adapter.generator is not None:
        slot.adapter.generator.set_state(tensors["dropout"])
    assert isinstance(slot.batches, Order)
    slot.batches.restore(tensors["order"], numbers["taken"])
    slot.loss_sum = tensors["loss_sum"].to(slot.device, copy=True)
    for name in _NUMBERS:
        setattr(slot, name, numbers[name])
    slot.metrics = dict(slot.metrics)
    if "best" in numbers:
        adapter = _under(tensors, "best.adapter") if slot.adapter is not None else None
        best = numbers["best"]
        slot.best = Kept(best["evaluation"], dict(best["metrics"]), adapter, _under(tensors, "best.head"))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix and a dot, by the rest of their names."""
    start = f"{prefix}."
    return {name[len(start) :]: value for name, value in tensors.items() if name.startswith(start)}
