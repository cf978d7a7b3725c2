"""Places, leases, attempts, metrics and results in SQL: the truth that all else can be replayed from."""

from sweeper.ledger.database import shown_url, store_file
from sweeper.ledger.history import AttemptRow, Evaluation
from sweeper.ledger.ledger import LEASE_SECONDS, Ledger
from sweeper.ledger.processes import this_worker
from sweeper.ledger.records import (
    Attached,
    Claim,
    LeaseLost,
    MetricRow,
    NewStudy,
    Result,
    StudyGone,
    StudyRow,
    TrialView,
    Untold,
    WorkerIdentity,
)

__all__ = [
    "LEASE_SECONDS",
    "Attached",
    "AttemptRow",
    "Claim",
    "Evaluation",
    "LeaseLost",
    "Ledger",
    "MetricRow",
    "NewStudy",
    "Result",
    "StudyGone",
    "StudyRow",
    "TrialView",
    "Untold",
    "WorkerIdentity",
    "shown_url",
    "store_file",
    "this_worker",
]
