"""The connection to the store: transactions, the database's clock, and errors as sentences."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import (
    Connection,
    Double,
    Engine,
    column,
    create_engine,
    event,
    exc,
    inspect,
    select,
    table,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from sweeper.errors import SweeperError, UnreachableError, UsageError
from sweeper.ledger.schema import VERSION, VERSION_TABLE

BUSY_SECONDS = 30.0
"""How long a statement on SQLite waits for other processes."""
STALLED_SECONDS = 10.0
"""How long a transaction on PostgreSQL may wait for its process. Transactions take milliseconds."""
WRITES = "sweeper_writes"
"""The option of a connection whose transactions write."""
_LIVENESS = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
"""Options of libpq: a machine that vanished sends no word of it."""
_LOCK = 7_239_016_041_122
_Arguments = ParamSpec("_Arguments")
_Answer = TypeVar("_Answer")


class now_seconds(FunctionElement[float]):
    """The database's clock, in seconds since 1970; the time of the statement, not of its transaction."""

    type = Double()
    inherit_cache = True


@compiles(now_seconds, "sqlite")
def _now_on_sqlite(element: now_seconds, compiler: Any, **options: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now_seconds, "postgresql")
def _now_on_postgresql(element: now_seconds, compiler: Any, **options: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def parse_url(url: str | URL) -> URL:
    """The store's URL with its driver.

    Raises:
        UsageError: it is no URL, or of a database that is not supported. It is not shown: it may
            hold a password.
    """
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        raise UsageError(
            "SWEEPER_STORE is no SQLAlchemy URL, such as postgresql://user@host/sweeper"
        ) from None
    backend = parsed.drivername.partition("+")[0]
    # Behind an @ of its own, the rest of a password would pass for the host, and be shown.
    if backend != "sqlite" and "@" in f"{parsed.host}{parsed.database}":
        raise UsageError("SWEEPER_STORE has an @ too many: write one that belongs to the password as %40")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    if backend != "sqlite":
        raise UsageError(f"SWEEPER_STORE names the database {backend!r}; sqlite and postgresql are supported")
    if not parsed.database or parsed.database == ":memory:":
        raise UsageError("SWEEPER_STORE names no file; the store must outlive the process")
    return parsed.set(drivername="sqlite")


def store_file(url: str | URL) -> Path | None:
    """The file of a SQLite store, or None if the store is a server."""
    parsed = parse_url(url)
    return Path(parsed.database).absolute() if parsed.drivername == "sqlite" and parsed.database else None


def shown_url(url: str) -> str:
    """The store's URL without its password, nor those among its options."""
    parsed = parse_url(url)
    secret = [key for key in parsed.query if "password" in key.lower()]
    return parsed.difference_update_query(secret).render_as_string(hide_password=True)


class Database:
    """Transactions on the store, each a function of a connection.

    A function may run more than once: after a lost connection nobody knows whether its commit arrived. It
    must therefore find out by its token what is done already.

    Args:
        patience_seconds: how long a server that cannot be reached, or a file that somebody holds, is tried
            again. It may be changed while somebody waits.
    """

    def __init__(self, url: str, patience_seconds: float = 0.0) -> None:
        self.url = parse_url(url)
        self.shown = shown_url(url)
        self.patience_seconds = patience_seconds
        self.engine = _engine(self.url)
        self._checked = False
        self._checking = threading.Lock()

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Be patient for so many seconds inside, at least."""
        before = self.patience_seconds
        self.patience_seconds = max(before, seconds)
        try:
            yield
        finally:
            self.patience_seconds = before

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def read(
        self,
        function: Callable[Concatenate[Connection, _Arguments], _Answer],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Answer:
        """Run a function that only reads, on one snapshot."""
        self.check_version()
        return self._run(False, function, *arguments, **named)

    def write(
        self,
        function: Callable[Concatenate[Connection, _Arguments], _Answer],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Answer:
        """Run a function in a transaction that writes; on SQLite there is no other one beside it."""
        self.check_version()
        return self._run(True, function, *arguments, **named)

    def check_version(self) -> None:
        """Refuse a store without our tables or with those of another version, once.

        Raises:
            UsageError: there is no store yet.
            SweeperError: its tables are of another version.
        """
        with self._checking:
            if not self._checked:
                found = self._found_version()
                if found is None:
                    raise UsageError(
                        f"the store {self.shown} holds no study yet: start one with `sweeper run FILE`"
                    )
                if found != VERSION:
                    raise SweeperError(
                        f"the store {self.shown} has tables of version {found}, this program of {VERSION}: "
                        + _what_to_do(found)
                    )
                self._checked = True

    def is_made(self) -> bool:
        """Whether our tables are there, of whatever version."""
        return self._found_version() is not None

    def _found_version(self) -> str | None:
        file = store_file(self.url)
        # Connecting would make an empty file.
        return None if file is not None and not file.exists() else self._run(False, _version)

    def _run(self, writes: bool, function: Callable[..., _Answer], *arguments: Any, **named: Any) -> _Answer:
        def once() -> _Answer:
            with self.engine.connect() as plain:
                connection = plain.execution_options(**{WRITES: writes})
                with connection.begin():
                    return function(connection, *arguments, **named)

        return self.patiently(once)

    def patiently(self, call: Callable[[], _Answer], *wrappers: type[Exception]) -> _Answer:
        """Call again while a server is away or a file held, for ``patience_seconds``.

        The call must bear being repeated.

        Args:
            wrappers: what another library raises instead, with the failure as its cause.

        Raises:
            UnreachableError: the database fails, or was away or held for longer.
        """
        began, delay = time.monotonic(), 0.1
        failures: tuple[type[Exception], ...] = (
            exc.DBAPIError, exc.TimeoutError, exc.PendingRollbackError, *wrappers,
        )  # fmt: skip
        while True:
            try:
                return call()
            except exc.IntegrityError:
                raise
            except failures as error:
                cause = error if isinstance(error, exc.SQLAlchemyError) else error.__cause__ or error
                if time.monotonic() - began > self.patience_seconds or not self._passes(cause):
                    raise self.unreachable(cause) from error
            # Not in step with the other workers, whose connections were lost at the same moment.
            time.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(2 * delay, 2.0)

    def _passes(self, error: BaseException) -> bool:
        """Whether waiting may help: the connection was lost or refused, or others hold what is wanted."""
        if self.is_sqlite:
            return "locked" in str(error)  # by a process that was stopped, say, in the middle of a write
        if isinstance(error, exc.TimeoutError):
            return True
        if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
            return True
        # Optuna goes on with a session whose connection was lost, and is told that it cannot.
        if isinstance(error, exc.PendingRollbackError):
            return True
        return isinstance(error, (exc.OperationalError, exc.InterfaceError))

    @contextmanager
    def alone(self) -> Iterator[Callable[[], None]]:
        """Hold the one lock of a server under which schemas and studies are made.

        Yields:
            what raises an UnreachableError once the lock was lost with its connection.
        """
        try:
            connection = self.engine.connect()
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
            # The lock of a machine that vanishes goes with its connection, within half a minute.
            connection.execute(text("SET tcp_keepalives_idle = 10"))
            connection.execute(text("SET tcp_keepalives_interval = 5"))
            connection.execute(text("SET tcp_keepalives_count = 3"))
            # It is the session's: a transaction left open would be ended after 10 s, and the lock with it.
            connection.commit()
        except exc.DBAPIError as error:
            raise self.unreachable(error) from error

        def check_held() -> None:
            try:
                connection.execute(text("SELECT 1"))
                connection.commit()
            except exc.DBAPIError as error:
                raise self.unreachable(error) from error

        try:
            yield check_held
        finally:
            # The lock goes with the connection, which must not go back to the pool.
            connection.invalidate()
            connection.close()

    def unreachable(self, error: BaseException) -> UnreachableError:
        """A failure of the database as a sentence that says what to do."""
        cause = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
        said = cause[0]
        if "locked" in said:
            advice = "another process holds it for too long. Look for one that hangs, then try again"
        elif "full" in said:
            advice = "its disk is full. Make room, then run the same command again: it goes on"
        elif "malformed" in said or "not a database" in said:
            advice = "its file is damaged. Put back a copy, or move it away and start anew"
        elif "unable to open" in said or "readonly" in said:
            advice = "its file cannot be opened for writing. Check that its folder exists and whose it is"
        else:
            advice = "check that its server runs and SWEEPER_STORE is right, then run the same command again"
        return UnreachableError(f"the store {self.shown} cannot be used ({said}): {advice}")


@contextmanager
def store_errors(url: str, *wrappers: type[Exception]) -> Iterator[None]:
    """Failures of the database under another library as sentences.

    Args:
        wrappers: what the library raises instead, with the failure as its cause.

    Raises:
        UnreachableError: the database fails.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, (exc.SQLAlchemyError, *wrappers)):
            raise
        raise Database(url).unreachable(error.__cause__ or error) from error


def server_options(url: URL) -> dict[str, Any]:
    """How connections to a server find out that it is gone, within half a minute; the URL's options win."""
    connect = {key: value for key, value in _LIVENESS.items() if key not in url.query}
    return {"pool_pre_ping": True, "connect_args": connect}


def end_stalled_transactions(engine: Engine) -> None:
    """Let PostgreSQL end a transaction whose process stands still: its locks keep all others from a row.

    Set by a statement of each connection, and not by an option of its start, which poolers in between would
    refuse. The server counts only between statements: a driver that sends many as one pipeline, as psycopg
    does for many rows, must not stand still in the midst of it. So an insert of many rows is one statement,
    and whatever else has many is sent one by one.
    """
    if engine.dialect.name != "postgresql":
        return
    engine.dialect.use_insertmanyvalues_wo_returning = True
    engine.dialect.supports_sane_multi_rowcount = False  # a cursor counts the rows of its last statement

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        with connection.cursor() as cursor:
            named = "idle_in_transaction_session_timeout", f"{STALLED_SECONDS * 1000:.0f}"
            cursor.execute("SELECT set_config(%s, %s, false)", named)
        connection.commit()

    @event.listens_for(engine, "do_executemany")
    def send_one_by_one(cursor: Any, statement: str, rows: Sequence[Any], context: Any) -> bool:
        for row in rows:
            cursor.execute(statement, row)
        return True  # nothing is left to do

    engine.dispose()  # connections that were made before


def failures(engine: Engine) -> Callable[[], int]:
    """Counts the statements and commits of an engine that fail from now on; call what is returned to see.

    Whether a commit that failed went through is not known.
    """
    seen: list[None] = []
    event.listen(engine, "handle_error", lambda context: seen.append(None))
    return lambda: len(seen)


def missing_driver(url: str) -> str | None:
    """Why the driver of a database cannot be loaded; None if it can."""
    try:
        make_url(url).get_dialect().import_dbapi()
    except (ImportError, exc.ArgumentError) as error:
        return str(error)
    return None


def _engine(url: URL) -> Engine:
    if url.get_backend_name() != "sqlite":
        try:
            server = create_engine(url, pool_size=1, max_overflow=3, pool_recycle=1800, **server_options(url))
        except ImportError as error:
            raise UsageError(
                f"SWEEPER_STORE names a PostgreSQL database, and psycopg cannot be loaded ({error}): "
                "pip install 'psycopg[binary]'"
            ) from None
        end_stalled_transactions(server)
        return server
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def configure(connection: Any, record: Any) -> None:
        # The driver would begin transactions by itself, and only at the first change.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        # A killed process loses nothing. A power cut may take the last transactions, and leaves the file
        # whole: the study goes on from there. Waiting for the disk would take most of the time.
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A transaction that reads before it writes could otherwise find itself behind another one.
        writes = connection.get_execution_options().get(WRITES)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(column("version_num")).select_from(table(VERSION_TABLE))).scalar()


def _what_to_do(found: str) -> str:
    if found < VERSION:
        return "`sweeper migrate` brings it up to date once no older worker uses it; so does `sweeper run`"
    return "install the version of adapter-sweeper that the other workers have"
