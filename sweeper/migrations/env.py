"""How Alembic runs the migrations: on the connection that ``sweeper.ledger.migrate`` gives it."""

from __future__ import annotations

from alembic import context

from sweeper.ledger.schema import VERSION_TABLE, metadata

# Optuna's tables, in the same database, have migrations of their own.
context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    include_name=lambda name, kind, parents: kind != "table" or name in metadata.tables,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
