"""Whether a worker may begin another trial: every part of the budget but the number of trials."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeper.asktell import Trials
from sweeper.budget import Terminator, why_over
from sweeper.session import Session
from sweeper.study import Study

PAST_LIMITS_IN_A_ROW = 100
"""So many configurations past the limits, one after the other, end a study."""


@dataclass
class Ending:
    """Looks at the budget of a study before each trial.

    Args:
        session: the study, as it was when the worker began.
        trials: its trials in Optuna.
    """

    session: Session
    trials: Trials
    _terminator: Terminator | None = field(default=None, init=False)
    _judged: int = field(default=0, init=False)
    _said: str | None = field(default=None, init=False)

    def why(self, study: Study) -> str | None:
        """Why no further trial of the budget may begin, as a sentence; None if one may.

        Args:
            study: as the store has it now: its budget may have grown.
        """
        ledger, name = self.session.ledger, self.session.name
        budget = study.budget
        if budget.hours is not None and ledger.hours_used(name) >= budget.hours:
            return f"the {budget.hours:g}-hour budget is used up"
        if budget.failures is not None and (failed := ledger.count(name, "failed")) >= budget.failures:
            said = "1 trial failed" if failed == 1 else f"{failed} trials failed"
            return f"{said}, and budget.failures is {budget.failures}"
        if ledger.past_limits_in_a_row(name) >= PAST_LIMITS_IN_A_ROW:
            return f"{PAST_LIMITS_IN_A_ROW} configurations in a row were past the limits"
        if budget.target is not None or budget.patience is not None:
            why = why_over(study, ledger.trials(name))
            if why is not None:
                return why
        return self._terminated() if budget.terminator is not None else None

    def _terminated(self) -> str | None:
        """Asked once for each complete trial: a fit takes a while."""
        complete = self.session.ledger.count(self.session.name, "complete")
        if complete == self._judged:
            return self._said
        self._judged, self._said = complete, None
        if self._terminator is None:
            self._terminator = Terminator(self.session.study)
        if self._terminator.is_over(self.trials.finished()):
            after = "1 complete trial" if complete == 1 else f"{complete} complete trials"
            self._said = f"the terminator saw little left to gain after {after}"
        return self._said
