"""What came of a study that was done something to: the figures that the tests assert and the soak prints."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from optuna.trial import TrialState
from sqlalchemy import select

from sweeper.ledger.schema import metrics, places, results
from sweeper.session import Session
from tests.agreement import check_agrees, optuna_trials


@dataclass(frozen=True)
class Tally:
    """Figures of one scenario.

    Args:
        tries: how often the fault was made to happen, in ``unit`` s.
        wanted, results: trials of the budget, and those that have a result.
        lost: results that are missing.
        duplicates: results, values told to Optuna, or evaluations of an attempt that are there twice.
        failed: of the results, those that are failures; where none was asked for, the fault's.
        wrong: whatever else must not be: stale rows, leases taken from the living, other bits.
        said: what is worth knowing besides.
    """

    fault: str
    unit: str
    tries: int
    wanted: int
    results: int
    lost: int
    duplicates: int
    failed: int = 0
    wrong: int = 0
    said: str = ""

    @property
    def is_right(self) -> bool:
        return self.results == self.wanted and self.lost == self.duplicates == self.failed == self.wrong == 0

    @property
    def bound(self) -> float:
        """Where nothing went wrong in n tries, it does so in at most this part of them, at 95 % (3/n)."""
        return 1.0 if self.tries == 0 else min(1.0, 3.0 / self.tries)


def tally(
    session: Session, fault: str, unit: str, tries: int, wanted: int, wrong: int = 0, said: str = ""
) -> Tally:
    """Count what the tables have of a study that has ended; raises where ledger and Optuna disagree."""
    check_agrees(session, wanted)
    mine = select(places.c.id).where(places.c.study == session.name, places.c.kind == "search")
    with session.ledger.database.engine.connect() as connection:
        mine_ids = [row.id for row in connection.execute(mine)]
        found = connection.execute(select(results).where(results.c.place_id.in_(mine_ids))).all()
        rows = connection.execute(select(metrics).where(metrics.c.place_id.in_(mine_ids))).all()
    told = Counter(
        trial.user_attrs["place"]
        for trial in optuna_trials(session)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and "past_limits" not in trial.user_attrs
    )
    evaluations = Counter((row.place_id, row.attempt, row.evaluation, row.key) for row in rows)
    again = [count - 1 for counts in (told, evaluations) for count in counts.values()]
    duplicates = len(found) - len({row.place_id for row in found}) + sum(again)
    return Tally(
        fault, unit, tries, wanted, len(found), wanted - len({row.place_id for row in found}), duplicates,
        sum(row.state == "failed" for row in found), wrong, said,
    )  # fmt: skip
