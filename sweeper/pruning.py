"""Who goes on at a rung, decided from the ledger's values alone.

Everything is counted in evaluations, from 1. A decision needs no trial to wait for another: it compares with
what the others have reported so far. With one objective the decisions are those of Optuna's pruners of the
same names; with several, which Optuna refuses, a non-dominated sort takes the place of the order.
"""

from __future__ import annotations

import math
import statistics
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from sweeper.front import Point, ranked, upward
from sweeper.study import Pruner

Curves = Mapping[int, Sequence[float]] | Mapping[int, Sequence[Point]]
_Upward = dict[int, list[Point]]


@dataclass(frozen=True)
class Others:
    """What some pruners ask of a study's trials besides their curves.

    Args:
        study: its name. It and the numbers of the trials decide the brackets of ``hyperband``.
        numbers: of the trials, by place; a place that is not there has itself for a number.
        complete: the places of trials that were trained to their end, with which ``median`` compares; None
            for all but the trial in question.
    """

    study: str = ""
    numbers: Mapping[int, int] = field(default_factory=dict)
    complete: Collection[int] | None = None


def should_prune(
    pruner: Pruner,
    direction: str | Sequence[str],
    curves: Curves,
    place_id: int,
    others: Others | None = None,
) -> bool:
    """Whether a trial ends at its latest evaluation.

    Args:
        pruner: ``none``, ``successive_halving``, ``hyperband`` or ``median``, with its options.
        direction: ``maximize`` or ``minimize``, or one of them for each of several objectives.
        curves: the objective at each evaluation so far, of every trial of the study, by place; for several
            objectives a tuple of all of them.
        place_id: the trial in question; its latest value is the last of its curve.
        others: see there.

    Raises:
        ValueError: no such pruner; or ``median`` with several objectives, which have no median.
    """
    others = others or Others()
    if not decides(pruner, len(curves[place_id]), others.study, others.numbers.get(place_id, place_id)):
        return False
    points = _points(direction, curves)
    if pruner.name == "median":
        complete = set(points) if others.complete is None else set(others.complete)
        return _below_median(points, place_id, complete - {place_id}, int(pruner.options["n_startup_trials"]))
    brackets = _Brackets.of(pruner)
    mine = brackets.bracket(others.study, others.numbers.get(place_id, place_id))
    of_mine = {
        place: curve
        for place, curve in points.items()
        if brackets.bracket(others.study, others.numbers.get(place, place)) == mine
    }
    return _halved(of_mine, place_id, brackets.factor)


def decides(pruner: Pruner, evaluation: int, study: str = "", number: int = 0) -> bool:
    """Whether a pruner may end a trial at an evaluation; where not, nobody has to ask what others reported.

    Args:
        study, number: the study's name and the trial's number.

    Raises:
        ValueError: no such pruner.
    """
    if pruner.name == "none":
        return False
    if pruner.name == "median":
        return evaluation >= int(pruner.options["minimum"])
    brackets = _Brackets.of(pruner)
    return _is_rung(evaluation, brackets.first_rung(study, number), brackets.factor)


def _points(direction: str | Sequence[str], curves: Curves) -> _Upward:
    directions = (direction,) if isinstance(direction, str) else tuple(direction)
    return {
        place: [upward(value if isinstance(value, tuple) else (value,), directions) for value in curve]
        for place, curve in curves.items()
    }


def _halved(curves: _Upward, place_id: int, factor: int) -> bool:
    """Asynchronous successive halving (Li et al. 2020): at a rung the best of ``1 / factor`` go on.

    The rungs are at ``minimum * factor ** k`` evaluations. The best trial so far always goes on, and so do
    those that equal one that does. With several objectives the best are the first of a non-dominated sort
    (MO-ASHA, Schmucker et al. 2021).
    """
    evaluation = len(curves[place_id])
    rung = [curve[evaluation - 1] for _, curve in sorted(curves.items()) if len(curve) >= evaluation]
    going_on = ranked(rung)[: max(1, len(rung) // factor)]
    return curves[place_id][-1] not in {rung[position] for position in going_on}


def _is_rung(evaluation: int, minimum: int, factor: int) -> bool:
    rung = minimum
    while rung < evaluation:
        rung *= factor
    return rung == evaluation


@dataclass(frozen=True)
class _Brackets:
    """The brackets of Hyperband (Li et al. 2018), each a successive halving that begins a rung later.

    Args:
        minimum, maximum: evaluations before the first rung, and of a whole trial; a successive halving alone
            has a single bracket, and no maximum.
        factor: of the halving.
    """

    minimum: int
    maximum: int | None
    factor: int

    @classmethod
    def of(cls, pruner: Pruner) -> _Brackets:
        options = pruner.options
        if pruner.name not in ("successive_halving", "hyperband"):
            raise ValueError(f"no pruner is named {pruner.name!r}")
        maximum = int(options["maximum"]) if pruner.name == "hyperband" else None
        return cls(int(options["minimum"]), maximum, int(options["reduction_factor"]))

    def first_rung(self, study: str, number: int) -> int:
        """The evaluation at which a trial is first decided on."""
        rung: int = self.minimum * self.factor ** self.bracket(study, number)
        return rung

    def bracket(self, study: str, number: int) -> int:
        """The bracket of a trial, drawn from its number in proportion to what the brackets cost alike."""
        if self.maximum is None:
            return 0
        count = math.floor(math.log(self.maximum / self.minimum, self.factor)) + 1
        shares = [
            math.ceil(count * self.factor ** (count - 1 - bracket) / (count - bracket))
            for bracket in range(count)
        ]
        left = zlib.crc32(f"{study}_{number}".encode()) % sum(shares)
        for bracket, share in enumerate(shares):
            left -= share
            if left < 0:
                return bracket
        raise AssertionError("the shares add up to their sum")


def _below_median(curves: _Upward, place_id: int, complete: Collection[int], startup: int) -> bool:
    """The median rule (Golovin et al. 2017): worse, at its best, than the median of the others at this point.

    Nothing is pruned before ``startup`` other trials were complete.
    """
    own = curves[place_id]
    if len(own[0]) > 1:
        raise ValueError("several objectives have no median: use successive_halving or hyperband")
    evaluation = len(own)
    reached = [
        curves[place][evaluation - 1][0]
        for place in complete
        if place in curves and len(curves[place]) >= evaluation
    ]
    if not reached or len(complete) < startup:
        return False
    return max(own)[0] < statistics.median(reached)
