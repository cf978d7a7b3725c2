"""Making the tables and bringing them up to date, by Alembic."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, column, exc, inspect, select, table

import sweeper.migrations
from sweeper.errors import SweeperError
from sweeper.ledger.database import WRITES, Database, store_file
from sweeper.ledger.schema import VERSION, VERSION_TABLE


def upgrade(database: Database, revision: str = "head") -> None:
    """Run the migrations that are missing.

    Raises:
        UnreachableError: the database fails.
        SweeperError: its tables are of a version that this program does not know.
    """
    file = store_file(database.url)
    try:
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        with database.engine.connect() as plain:
            connection = plain.execution_options(**{WRITES: True})
            with connection.begin():
                _refuse_later(connection, database)
                command.upgrade(configuration(connection), revision)
    except exc.DBAPIError as error:
        raise database.unreachable(error) from error
    except OSError as error:
        raise SweeperError(f"the folder of the store cannot be made: {error}") from error


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration, for a connection inside its transaction."""
    config = Config()
    # A percent sign would be read as a variable.
    folder = str(Path(next(iter(sweeper.migrations.__path__)))).replace("%", "%%")
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


def _refuse_later(connection: Connection, database: Database) -> None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return
    found = connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()
    if found is not None and found > VERSION:
        raise SweeperError(
            f"the store {database.shown} has tables of version {found}, this program of {VERSION}: install "
            "the version of adapter-sweeper that made it, or a newer one"
        )
