"""URLs, versions, migrations and errors of the store."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from psycopg.adapt import Dumper
from sqlalchemy import Connection, Executable, column, insert, select, table, text

from sweeper import check, doctor
from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.home import Home
from sweeper.ledger import Ledger, shown_url, store_file
from sweeper.ledger import database as database_module
from sweeper.ledger.database import Database, now_seconds
from sweeper.ledger.migrate import configuration, upgrade
from sweeper.ledger.schema import VERSION, VERSION_TABLE, metadata
from sweeper.study import load_study
from sweeper.tracking.address import database_file, shown_uri
from tests.stores import new_ledger, postgresql_url, sqlite_url
from tests.tiny_folder import write_study


def test_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    database = Database(url)
    upgrade(database)
    upgrade(database)
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_name": lambda name, kind, parents: kind != "table" or name in metadata.tables,
            },
        )
        assert compare_metadata(context, metadata) == []
    assert ScriptDirectory.from_config(configuration()).get_current_head() == VERSION


def test_a_migration_for_a_change_can_be_made(tmp_path: Path) -> None:
    """``alembic revision`` finds nothing to change: the configuration of the migrations is complete."""
    database = Database(sqlite_url(tmp_path))
    upgrade(database)
    with database.engine.begin() as connection:
        command.check(configuration(connection))


def test_the_clock_is_the_database_s_and_counts_in_seconds(url: str) -> None:
    with Database(url).engine.connect() as connection:
        first, second = (connection.execute(select(now_seconds())).scalar_one() for _ in range(2))
    assert isinstance(first, float) and abs(first - time.time()) < 60.0
    assert second >= first


def test_tables_of_another_version_are_refused(url: str) -> None:
    ledger = new_ledger(url)
    with ledger.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(SweeperError, match=r"tables of version 9999, .* install the version"):
        Ledger(url).studies()
    with pytest.raises(SweeperError, match="tables of version 9999, this program of"):
        Ledger(url).create()
    with ledger.database.engine.begin() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0000'"))
    with pytest.raises(SweeperError, match="brings it up to date"):
        Ledger(url).studies()


def test_looking_for_a_store_does_not_make_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no study yet"):
        Ledger(sqlite_url(tmp_path)).studies()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense:hunter2", "is no SQLAlchemy URL"),
        ("mysql://me:hunter2@host/db", "names the database 'mysql'"),
        ("postgresql://me:hunter2@host:port/db", "is no SQLAlchemy URL"),
        ("postgresql://me:an@hunter2@host/db", "write one that belongs to the password as %40"),
        ("postgresql://me:an@/hunter2@host/db", "write one that belongs to the password as %40"),
        ("sqlite://", "names no file"),
        ("sqlite:///:memory:", "names no file"),
    ],
)
def test_urls_that_cannot_be_a_store(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        Ledger(url)
    assert "hunter2" not in str(caught.value)


def test_a_file_is_a_file_whatever_driver_the_url_names(tmp_path: Path) -> None:
    url = f"sqlite+pysqlite:///{tmp_path / 'store.db'}"
    assert store_file(url) == tmp_path / "store.db"
    assert shown_url(url) == f"sqlite:///{tmp_path / 'store.db'}"


def test_a_server_without_its_driver_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(UsageError, match=r"psycopg cannot be loaded .*: pip install 'psycopg\[binary\]'"):
        Ledger("postgresql://me@host/db")


def test_passwords_are_not_shown() -> None:
    for url in ("postgresql://me:hunter2@host/db", "postgres://me:hunter2@host/db"):
        assert shown_url(url) == "postgresql+psycopg://me:***@host/db"
        assert store_file(url) is None
    for options in ("password=hunter2&user=me", "sslpassword=hunter2&user=me"):
        assert shown_url(f"postgresql://host/db?{options}") == "postgresql+psycopg://host/db?user=me"


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hunter2@host/there",
        "http://me:an@hunter2@host/there",
        "postgresql://me:an/hunter2@host/there",
        "postgresql://host/there?sslPassword=hunter2&user=me",
    ],
)
def test_passwords_of_tracking_uris_are_not_shown(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_uri(f"cannot reach ({uri}) now")
    assert "hunter2" not in shown and "host/there" in shown and shown.startswith("cannot reach (")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 0.01)
    found = [finding.found for finding in doctor._tracking()]
    assert len(found) == 1 and "host/there" in found[0] and "hunter2" not in found[0]


def test_doctor_calls_a_tracking_uri_broken_that_run_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///there/mlruns")
    [finding] = doctor._tracking()
    assert finding.state == "broken" and "must be the address of an MLflow server" in finding.found


def test_a_store_without_tables_knows_no_study(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``check`` comes before the first run: a server's database is there then, but empty."""
    monkeypatch.setenv("SWEEPER_STORE", url)
    study = load_study(write_study(tmp_path))
    assert check._known(study) == (None, None)
    [before] = doctor._store()
    assert before.state == "good" and "made by the first run" in before.found
    Ledger(url).create()
    assert check._known(study) == (None, None)
    [after] = doctor._store()
    assert after.state == "good" and after.found.endswith(": 0 studies")


def test_doctor_calls_an_empty_file_no_broken_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store.db").touch()
    monkeypatch.setenv("SWEEPER_STORE", sqlite_url(tmp_path))
    [finding] = doctor._store()
    assert finding.state == "good" and "tables are made by the first run" in finding.found


def test_who_is_alone_stays_it_longer_than_a_transaction_may_stand_still(postgresql: Path) -> None:
    """The lock is held for as long as a backbone takes to load; the server ends idle transactions."""
    url = postgresql_url(postgresql)
    holder = text(
        "SELECT state FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted"
    )
    with Database(url).alone(), Database(url).engine.connect() as connection:
        assert connection.execute(holder).scalars().all() == ["idle"]
        taken = text("SELECT pg_try_advisory_lock(:key)")
        assert connection.execute(taken, {"key": database_module._LOCK}).scalar_one() is False


def test_who_is_no_longer_alone_is_told(postgresql: Path) -> None:
    database = Database(postgresql_url(postgresql))
    end = text(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with database.alone() as check_held:
        check_held()
        with Database(database.url).engine.connect() as connection:
            assert connection.execute(end).scalars().all() == [True]
        with pytest.raises(UnreachableError, match="run the same command again"):
            check_held()
    with database.alone() as check_held:
        check_held()


class Stuck:
    """A value that is not sent before ``goes_on``: a process that stands still in the midst of many rows."""

    goes_on: threading.Event


class StuckDumper(Dumper):
    def dump(self, value: Any) -> bytes:
        value.goes_on.wait(60)
        return b"0.5"


@pytest.mark.parametrize(
    "many",
    [
        text("UPDATE sent SET value = :value WHERE name = :name"),
        insert(table("sent", column("name"), column("value"))),
    ],
    ids=["update", "insert"],
)
def test_who_stands_still_in_the_midst_of_many_rows_keeps_nobody_from_them(
    postgresql: Path, monkeypatch: pytest.MonkeyPatch, many: Executable
) -> None:
    """To the server a pipeline of psycopg is no idle transaction: its locks would be held for ever."""
    monkeypatch.setattr(database_module, "STALLED_SECONDS", 0.2)
    url = postgresql_url(postgresql)
    ledger = new_ledger(url)
    with ledger.database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE sent (name text, value double precision)"))
        connection.execute(text("INSERT INTO sent VALUES ('one', 0)"))
    stuck, reached = Stuck(), threading.Event()
    stuck.goes_on = threading.Event()

    def stall(connection: Connection) -> None:
        connection.execute(text("SELECT name FROM sent FOR UPDATE"))
        connection.connection.dbapi_connection.adapters.register_dumper(Stuck, StuckDumper)
        reached.set()
        connection.execute(many, [{"name": "one", "value": value} for value in (0.25, stuck, 0.75)])

    stalled = threading.Thread(target=lambda: caught.append(_raised(lambda: ledger.database.write(stall))))
    caught: list[BaseException | None] = []
    stalled.start()
    try:
        assert reached.wait(60), caught
        other = Database(url)
        with other.engine.begin() as connection:
            connection.execute(text("SET lock_timeout = 30000"))
            assert connection.execute(text("SELECT value FROM sent FOR UPDATE")).scalars().all() == [0.0]
    finally:
        stuck.goes_on.set()
        stalled.join()
    assert [type(error) for error in caught] == [UnreachableError]
    with other.engine.connect() as connection:
        assert connection.execute(text("SELECT value FROM sent")).scalars().all() == [0.0]


def _raised(call: Callable[[], object]) -> BaseException | None:
    try:
        call()
    except Exception as error:
        return error
    return None


@pytest.mark.parametrize("name", ["two words", "größe", "what?now", "100%25", "a#b@c&d=e"])
def test_a_home_may_have_any_name(tmp_path: Path, name: str) -> None:
    home = Home.from_environment({"SWEEPER_HOME": str(tmp_path / name)})
    assert store_file(home.store_url) == tmp_path / name / "store.db"
    assert database_file(home.tracking_uri) == tmp_path / name / "mlflow.db"
    Ledger(home.store_url).create()
    assert sorted(path.name for path in tmp_path.iterdir()) == [name]
    assert (tmp_path / name / "store.db").is_file()


def test_a_server_that_does_not_answer_is_unreachable() -> None:
    ledger = Ledger("postgresql://me:hunter2@127.0.0.1:1/db")
    with pytest.raises(UnreachableError, match="check that its server runs") as caught:
        ledger.studies()
    assert "hunter2" not in str(caught.value) and caught.value.exit_code == 4


def test_a_store_that_is_locked_for_too_long_is_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_url(tmp_path)
    new_ledger(url).close()
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        ledger = Ledger(url)
        assert ledger.studies() == ["one"]
        with pytest.raises(UnreachableError, match="another process holds it for too long"):
            ledger.end_over_budget("one", "because")
    finally:
        other.close()


def test_those_who_work_on_a_study_outlast_a_writer_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sqlite_url(tmp_path)
    new_ledger(url).close()
    monkeypatch.setattr(database_module, "BUSY_SECONDS", 0.01)
    ledger = Ledger(url, patience_seconds=60.0)
    assert ledger.studies() == ["one"]
    other = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    refused, passes = [], Database._passes

    def seen(self: Database, error: BaseException) -> bool:
        refused.append(error)
        if len(refused) == 2:
            other.rollback()
        return passes(self, error)

    monkeypatch.setattr(Database, "_passes", seen)
    assert ledger.end_over_budget("one", "because")
    other.close()
    assert len(refused) == 2 and ledger.study("one").ended_because == "because"


def test_a_damaged_store_says_so(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"this is no database, but long enough to be looked at" * 100)
    with pytest.raises(UnreachableError, match="its file is damaged"):
        Ledger(sqlite_url(tmp_path)).studies()


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    ledger = new_ledger(sqlite_url(tmp_path))

    def fill(connection: object) -> None:
        connection.exec_driver_sql("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]
        connection.exec_driver_sql("CREATE TABLE large (x)")  # type: ignore[attr-defined]
        connection.exec_driver_sql("INSERT INTO large VALUES (zeroblob(10000000))")  # type: ignore[attr-defined]

    with pytest.raises(UnreachableError, match="its disk is full"):
        ledger.database.write(fill)
    assert ledger.studies() == ["one"]


def test_home_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home.from_environment({})
    assert home.root == tmp_path / "sweeps"
    assert home.store_url == f"sqlite:///{tmp_path}/sweeps/store.db"
    assert home.artifacts == tmp_path / "sweeps" / "artifacts"
    assert home.checkpoints == tmp_path / "sweeps" / "checkpoints"
    moved = Home.from_environment(
        {
            "SWEEPER_HOME": "here",
            "SWEEPER_STORE": "postgresql://host/db",
            "MLFLOW_TRACKING_URI": "http://host:5000",
            "SWEEPER_ARTIFACTS": "/shared",
        }
    )
    assert moved.root == tmp_path / "here" and moved.checkpoints == Path("/shared/checkpoints")
    assert (moved.store_url, moved.tracking_uri) == ("postgresql://host/db", "http://host:5000")
    assert Home.from_environment(moved.environment()) == moved
    assert Home.from_environment(home.environment()) == home
    assert os.listdir(tmp_path) == []
