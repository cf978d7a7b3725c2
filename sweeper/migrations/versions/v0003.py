"""The id of the store."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    made = op.create_table("sweeper_store", sa.Column("id", sa.String(length=32), primary_key=True))
    op.bulk_insert(made, [{"id": secrets.token_hex(16)}])
