"""Who goes on at a rung, decided from the ledger's values alone.

Everything is counted in evaluations, from 1. A decision needs no trial to wait for another: it compares with
what the others have reported so far.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from sweeper.study import Pruner

Curves = Mapping[int, Sequence[float]]


def should_prune(pruner: Pruner, direction: str, curves: Curves, place_id: int) -> bool:
    """Whether a trial ends at its latest evaluation.

    Args:
        pruner: ``none``, ``successive_halving`` or ``median``, with its options.
        direction: ``maximize`` or ``minimize``.
        curves: the objective at each evaluation so far, of every trial of the study, by place.
        place_id: the trial in question; its latest value is the last of its curve.
    """
    if pruner.name == "none":
        return False
    sign = 1.0 if direction == "maximize" else -1.0
    upward = {place: [sign * value for value in curve] for place, curve in curves.items()}
    if pruner.name == "successive_halving":
        minimum, factor = pruner.options["minimum"], pruner.options["reduction_factor"]
        return _halved(upward, place_id, minimum, factor)
    if pruner.name == "median":
        minimum, startup = pruner.options["minimum"], pruner.options["n_startup_trials"]
        return _below_median(upward, place_id, minimum, startup)
    raise ValueError(f"no pruner is named {pruner.name!r}")


def _halved(curves: Curves, place_id: int, minimum: int, factor: int) -> bool:
    """Asynchronous successive halving (Li et al. 2020): at each rung the best of ``1 / factor`` go on.

    The rungs are at ``minimum * factor ** k`` evaluations. The best trial so far always goes on, and so do
    those that equal the last one that does.
    """
    evaluation = len(curves[place_id])
    if not _is_rung(evaluation, minimum, factor):
        return False
    rung = sorted(
        (curve[evaluation - 1] for curve in curves.values() if len(curve) >= evaluation), reverse=True
    )
    going_on = max(1, len(rung) // factor)
    return curves[place_id][-1] < rung[going_on - 1]


def _is_rung(evaluation: int, minimum: int, factor: int) -> bool:
    rung = minimum
    while rung < evaluation:
        rung *= factor
    return rung == evaluation


def _below_median(curves: Curves, place_id: int, minimum: int, startup: int) -> bool:
    """The median rule (Golovin et al. 2017): worse, at its best, than the median of the others at this point.

    Nothing is pruned before ``minimum`` evaluations, nor before ``startup`` other trials got as far.
    """
    own = curves[place_id]
    evaluation = len(own)
    others = [
        curve[evaluation - 1]
        for place, curve in curves.items()
        if place != place_id and len(curve) >= evaluation
    ]
    if evaluation < minimum or not others or len(others) < startup:
        return False
    return max(own) < statistics.median(others)
