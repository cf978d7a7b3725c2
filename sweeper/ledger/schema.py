"""The tables of the ledger. They live beside Optuna's in one database; the migrations make them.

Times are seconds since 1970 by the database's clock.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
    literal_column,
    true,
)

VERSION = "0004"
"""The revision of the migrations that these tables are."""
VERSION_TABLE = "sweeper_alembic_version"

ENDED = ("complete", "pruned", "failed", "cancelled")
"""The states of a place that has its result."""

IN_STUDY = ("search", "reference")
"""The kinds of places that a study consists of; the others confirm what came of it, and have no end of it."""

metadata = MetaData()
# SQLite numbers rows by itself only where the key is an INTEGER.
_Id = BigInteger().with_variant(Integer, "sqlite")
_Json = JSON(none_as_null=True)

store = Table(
    "sweeper_store",
    metadata,
    Column("id", String(32), primary_key=True),  # one row
)

studies = Table(
    "sweeper_studies",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("spec", _Json, nullable=False),
    Column("path", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("dtype", String(16), nullable=False),
    Column("backbone_fingerprint", Text, nullable=False),
    Column("backbone_parameters", BigInteger, nullable=False),
    Column("data_fingerprint", Text, nullable=False),
    Column("data_report", _Json, nullable=False),
    Column("label_names", _Json),
    Column("versions", _Json, nullable=False),
    Column("command", Text, nullable=False),
    Column("git_commit", Text),
    Column("created_at", Double, nullable=False),
    Column("ended_at", Double),
    Column("ended_because", Text),
    Column("control", String(16)),  # paused | stopped; stopped ones have ended, too
    Column("past_limits_in_a_row", Integer, nullable=False, server_default="0"),
    Column("experiment_id", Text),
    Column("run_id", Text),
    Column("sender", Text),
    Column("sender_expires", Double),
)

places = Table(
    "places",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("study", ForeignKey(studies.c.name, ondelete="CASCADE"), nullable=False),
    Column("position", Integer, nullable=False),
    Column("kind", String(16), nullable=False),  # search | reference | confirm | full
    Column("label", String(64)),
    Column("fixed_params", _Json),
    Column("state", String(16), nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("token", String(32)),
    Column("lease_expires", Double),
    Column("worker", Text),
    Column("trial_number", Integer),
    Column("trial_id", BigInteger),
    Column("params", _Json),
    Column("configuration", String(64)),
    Column("adapter_parameters", BigInteger),
    Column("head_parameters", BigInteger),
    Column("told", Boolean, nullable=False, server_default=false()),
    Column("version", Integer, nullable=False, server_default="0"),
    Column("shown", Integer, nullable=False, server_default="0"),
    Column("run_id", Text),
    # False for what `enqueue` and `retry` added: that comes before what the budget pays for, and beside it.
    Column("budgeted", Boolean, nullable=False, server_default=true()),
    Column("retry_of", BigInteger),  # the place that this one tries once more
    Column("request", String(32)),  # the call of `enqueue` that added it
    UniqueConstraint("study", "position", name="uq_places_position"),
    UniqueConstraint("study", "trial_number", name="uq_places_trial_number"),
    Index("ix_places_state", "study", "state", "budgeted", "position"),
    Index("ix_places_configuration", "study", "configuration"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("place_id", ForeignKey(places.c.id, ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("token", String(32), nullable=False, unique=True),
    Column("worker", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", BigInteger, nullable=False),
    Column("process_started", Double, nullable=False),
    Column("device", Text, nullable=False),
    Column("trial_number", Integer),
    Column("started_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("ended_at", Double),
    # complete | pruned | failed | cancelled | lost | out_of_memory | raised | handed_back | past_limits
    Column("outcome", String(16)),
    Column("reason", Text),
    Column("steps_done", BigInteger, nullable=False, server_default="0"),
    Column("steps_total", BigInteger),
    UniqueConstraint("place_id", "attempt", name="uq_attempts_attempt"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("id", _Id, primary_key=True, autoincrement=True),
    Column("place_id", ForeignKey(places.c.id, ondelete="CASCADE"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("evaluation", Integer, nullable=False),
    Column("step", BigInteger, nullable=False),
    Column("epoch", Double, nullable=False),
    Column("time", Double, nullable=False),
    Column("key", String(250), nullable=False),
    Column("value", Double, nullable=False),
    Column("shown", Boolean, nullable=False, server_default=false()),
    UniqueConstraint("place_id", "attempt", "evaluation", "key", name="uq_metrics_row"),
)
# Conditions of indexes: a query that is to use one has the same words, and no parameter in them.
UNSHOWN = metrics.c.shown == false()
IS_OBJECTIVE = metrics.c.key == literal_column("'objective'")
Index(
    "ix_metrics_unshown",
    metrics.c.place_id,
    metrics.c.id,
    sqlite_where=UNSHOWN,
    postgresql_where=UNSHOWN,
)
Index(
    "ix_metrics_objective",
    metrics.c.place_id,
    metrics.c.attempt,
    metrics.c.evaluation,
    metrics.c.value,
    sqlite_where=IS_OBJECTIVE,
    postgresql_where=IS_OBJECTIVE,
)

results = Table(
    "results",
    metadata,
    Column("place_id", ForeignKey(places.c.id, ondelete="CASCADE"), primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("objective", Double),
    Column("metrics", _Json, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("device_seconds", Double, nullable=False),
    Column("files", _Json, nullable=False),
    Column("reason", Text),
    Column("recorded_at", Double, nullable=False),
)
