"""Indexes to what is read most of many evaluations: the objective, and what MLflow does not show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    objective, unshown = sa.text("key = 'objective'"), sa.column("shown") == sa.false()
    op.create_index(
        "ix_metrics_objective",
        "metrics",
        ["place_id", "attempt", "evaluation", "value"],
        sqlite_where=objective,
        postgresql_where=objective,
    )
    op.drop_index("ix_metrics_unshown", table_name="metrics")
    op.create_index(
        "ix_metrics_unshown", "metrics", ["place_id", "id"], sqlite_where=unshown, postgresql_where=unshown
    )
