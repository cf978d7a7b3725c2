"""Studies that are paused or stopped, and places that were enqueued or are retries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("sweeper_studies", sa.Column("control", sa.String(length=16)))
    op.add_column("places", sa.Column("budgeted", sa.Boolean(), server_default=sa.true(), nullable=False))
    op.add_column("places", sa.Column("retry_of", sa.BigInteger()))
    op.add_column("places", sa.Column("request", sa.String(length=32)))
    op.drop_index("ix_places_state", table_name="places")
    op.create_index("ix_places_state", "places", ["study", "state", "budgeted", "position"], unique=False)
