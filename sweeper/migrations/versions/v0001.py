"""Studies, places, attempts, metrics and results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_JSON = sa.JSON(none_as_null=True)
_UNSHOWN = sa.column("shown", sa.Boolean()) == sa.false()


def upgrade() -> None:
    op.create_table(
        "sweeper_studies",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("spec", _JSON, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("backbone_fingerprint", sa.Text(), nullable=False),
        sa.Column("backbone_parameters", sa.BigInteger(), nullable=False),
        sa.Column("data_fingerprint", sa.Text(), nullable=False),
        sa.Column("data_report", _JSON, nullable=False),
        sa.Column("label_names", _JSON),
        sa.Column("versions", _JSON, nullable=False),
        sa.Column("command", sa.Text(), nullable=False),
        sa.Column("git_commit", sa.Text()),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("ended_because", sa.Text()),
        sa.Column("past_limits_in_a_row", sa.Integer(), server_default="0", nullable=False),
        sa.Column("experiment_id", sa.Text()),
        sa.Column("run_id", sa.Text()),
        sa.Column("sender", sa.Text()),
        sa.Column("sender_expires", sa.Double()),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "places",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("study", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("label", sa.String(length=64)),
        sa.Column("fixed_params", _JSON),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("attempt", sa.Integer(), server_default="0", nullable=False),
        sa.Column("token", sa.String(length=32)),
        sa.Column("lease_expires", sa.Double()),
        sa.Column("worker", sa.Text()),
        sa.Column("trial_number", sa.Integer()),
        sa.Column("trial_id", sa.BigInteger()),
        sa.Column("params", _JSON),
        sa.Column("configuration", sa.String(length=64)),
        sa.Column("adapter_parameters", sa.BigInteger()),
        sa.Column("head_parameters", sa.BigInteger()),
        sa.Column("told", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("version", sa.Integer(), server_default="0", nullable=False),
        sa.Column("shown", sa.Integer(), server_default="0", nullable=False),
        sa.Column("run_id", sa.Text()),
        sa.ForeignKeyConstraint(["study"], ["sweeper_studies.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("study", "position", name="uq_places_position"),
        sa.UniqueConstraint("study", "trial_number", name="uq_places_trial_number"),
    )
    op.create_index("ix_places_configuration", "places", ["study", "configuration"], unique=False)
    op.create_index("ix_places_state", "places", ["study", "state", "position"], unique=False)
    op.create_table(
        "attempts",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("place_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("token", sa.String(length=32), nullable=False),
        sa.Column("worker", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.BigInteger(), nullable=False),
        sa.Column("process_started", sa.Double(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("trial_number", sa.Integer()),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double()),
        sa.Column("outcome", sa.String(length=16)),
        sa.Column("reason", sa.Text()),
        sa.Column("steps_done", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("steps_total", sa.BigInteger()),
        sa.ForeignKeyConstraint(["place_id"], ["places.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("place_id", "attempt", name="uq_attempts_attempt"),
        sa.UniqueConstraint("token"),
    )
    op.create_table(
        "metrics",
        sa.Column("id", _ID, autoincrement=True, nullable=False),
        sa.Column("place_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("evaluation", sa.Integer(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Double(), nullable=False),
        sa.Column("time", sa.Double(), nullable=False),
        sa.Column("key", sa.String(length=250), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("shown", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.ForeignKeyConstraint(["place_id"], ["places.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("place_id", "attempt", "evaluation", "key", name="uq_metrics_row"),
    )
    op.create_index(
        "ix_metrics_unshown",
        "metrics",
        ["id"],
        unique=False,
        sqlite_where=_UNSHOWN,
        postgresql_where=_UNSHOWN,
    )
    op.create_table(
        "results",
        sa.Column("place_id", _ID, nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("objective", sa.Double()),
        sa.Column("metrics", _JSON, nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("device_seconds", sa.Double(), nullable=False),
        sa.Column("files", _JSON, nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("recorded_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["place_id"], ["places.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("place_id"),
    )
