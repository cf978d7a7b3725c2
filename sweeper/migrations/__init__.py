"""The versions of the ledger's tables. Alembic runs them; a version that was released is never changed."""
