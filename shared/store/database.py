"""One database, SQLite or PostgreSQL by its URL: its transactions and its clock."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    create_engine,
    event,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from shared.errors import StoreUnavailable
from shared.store.outage import StoreOutage

BUSY_TIMEOUT_S = 5
"""How long a transaction waits for its turn before the store counts as unavailable."""
POSTGRESQL_CONNECTIONS = 4
"""Of one process; its threads take turns. Eight got in each other's way: an artifact cost a third more."""
OLDEST_SQLITE = (3, 35)
"""RETURNING."""
NOT_OURS = {"42501", "3F000"}
"""SQLSTATEs of PostgreSQL: insufficient privilege, no such schema."""
LIBPQS_ADVICE = ("\t", "DETAIL:", "HINT:")
"""How lines begin that tell no reason."""
MAX_REASON = 500
"""Characters of what a database said that are told."""
RETRY_BEGIN_S = 0.001
"""How often a writer asks SQLite whether the other process is done."""


class SchemaMismatch(Exception):
    """The store and this code do not fit; the message is one sentence for an operator."""


class NowMs(FunctionElement[int]):
    """The database's clock in milliseconds since the epoch.

    Not ``unixepoch('subsec')``: it is NULL before SQLite 3.42, and then no lease ever ends.
    """

    type = BigInteger()
    inherit_cache = True


NOW_SQL = {
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)",
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)",
}
"""The same as text, by dialect."""


@compiles(NowMs)
def _now(_element: NowMs, compiler: Any, **_options: Any) -> str:
    return NOW_SQL[compiler.dialect.name]


class Database:
    """A pool of connections, and the kinds of transaction everything else is written in."""

    def __init__(
        self,
        engine: Engine,
        begin: Callable[[Connection, bool], None] | None = None,
        give_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Work on *engine*. *begin* begins a transaction where its library does not, and says if it is patient.

        *give_up* cuts off whoever waits for a server.
        """
        self.engine = engine
        """For what stands beside this."""
        self.dialect = engine.dialect.name
        self._sqlite = self.dialect == "sqlite"
        self._begin = begin
        self._give_up = give_up
        self._outage: StoreOutage | None = None

    @contextmanager
    def write(self, *, patient: bool = False) -> Iterator[Connection]:
        """Yield a connection whose changes are committed, durably, if the block ends well.

        With *patient* PostgreSQL may take as long as it takes for each statement.

        Raises:
            StoreUnavailable: the database could not take it.
        """
        with self._translated(), self.engine.begin() as connection:
            if self._begin is not None:
                self._begin(connection, patient)
            yield connection
            # SQLite rolls back by itself, as when the disk is full: a commit would do nothing then, and succeed.
            if self._sqlite and not _driver_of(connection).in_transaction:
                raise StoreUnavailable("The store could not keep this transaction.")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection for reading; each statement sees one consistent state.

        On PostgreSQL, where each is a round trip, a statement needs no BEGIN and no end.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        with self._translated(), self.engine.connect() as connection:
            yield connection.execution_options(read_only=True)

    def now(self) -> datetime:
        """Return what the database's clock says, by which leases go (invariant 8)."""
        with self.read() as connection:
            return datetime.fromtimestamp(connection.execute(select(NowMs())).scalar_one() / 1000, UTC)

    def close(self) -> None:
        """Close every connection of the pool."""
        self.engine.dispose()

    def give_up(self, *, after_s: float) -> None:
        """Have nobody wait for the store any more *after_s* from now, should this process not be over by then.

        A server that hangs would keep a process that was told to stop, and no library gives up by itself.
        """
        timer = threading.Timer(after_s, self._give_up)
        timer.daemon = True
        timer.start()

    def tell_outages(self) -> None:
        """Tell the log of outages from now on: for a process that goes on when the store is away."""
        self._outage = StoreOutage()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (IntegrityError, ProgrammingError, DataError) as error:
            if not _operators(error):
                raise  # ours to mend, not the database's
            raise self._away(error) from error
        except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
            raise self._away(error) from error
        if self._outage is not None:
            self._outage.went_well()

    def _away(self, error: Exception) -> StoreUnavailable:
        reason = _reason(error, self.engine.url.password)
        if self._outage is not None:
            self._outage.failed(reason)
        return StoreUnavailable("The store cannot be reached or cannot take this now.", reason=reason)


def _operators(error: DBAPIError) -> bool:
    """Whether an operator can mend what looks like a mistake of ours: a grant, a search path, a part of the URL."""
    sqlstate = getattr(error.orig, "sqlstate", None)
    return sqlstate in NOT_OURS or (sqlstate is None and error.statement is None)


def _driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the connection as SQLite's own module has it."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


def open_database(url: str, *, connections: int = POSTGRESQL_CONNECTIONS) -> Database:
    """Return the database at *url*; nothing is connected yet. PostgreSQL will see *connections* at most.

    Raises:
        SchemaMismatch: the URL names no database we can use.
    """
    try:
        kind = make_url(url).get_backend_name()
        if kind == "sqlite":
            if sqlite3.sqlite_version_info < OLDEST_SQLITE:
                oldest = ".".join(map(str, OLDEST_SQLITE))
                raise SchemaMismatch(
                    f"This Python has SQLite {sqlite3.sqlite_version}, and {oldest} is the oldest that will do: "
                    "use another Python, or PostgreSQL."
                )
            engine = create_engine(
                url,
                hide_parameters=True,
                pool_size=8,
                max_overflow=128,
                connect_args={"timeout": BUSY_TIMEOUT_S},
            )
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        elif kind == "postgresql":
            from shared.store import postgresql  # noqa: PLC0415  # it takes long to load

            wires = postgresql.Wires()
            engine = postgresql.postgresql_engine(make_url(url), wires, connections=connections)
            return Database(engine, postgresql.begin, wires.give_up)
        else:
            raise SchemaMismatch(f"REGISTRY_DATABASE_URL: {kind} is not supported, use sqlite or postgresql.")
    except ArgumentError as error:
        raise SchemaMismatch("REGISTRY_DATABASE_URL is not a database URL.") from error
    return Database(engine)


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see _begin_sqlite
    # A temporary file would need a descriptor, in the middle of a statement, when downloads may have taken them all.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "temp_store=MEMORY"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: a writer takes its place before it reads, so no transaction fails halfway for another's sake.
    driver: Any = connection.connection.driver_connection
    if connection.get_execution_options().get("read_only", False):
        driver.execute("BEGIN")
    else:
        _begin_immediate(driver)


def _begin_immediate(driver: sqlite3.Connection) -> None:
    """Begin as soon as no other process writes. SQLite's own waiting sleeps for up to 100 ms at a time."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    driver.execute("PRAGMA busy_timeout=0")
    try:
        while True:
            try:
                driver.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                    raise
                time.sleep(RETRY_BEGIN_S)
            else:
                return
    finally:
        driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_S * 1000}")


def _reason(error: Exception, password: str | None) -> str:
    """Return in one line what the database said: its SQLSTATE, or SQLite's name for it, and its words.

    No statement, no value, no detail; and no password, though none has been seen in any.
    """
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(error, PoolTimeout):
        return f"every connection of this process was busy for {BUSY_TIMEOUT_S} s"
    name = getattr(said, "sqlite_errorname", None)
    if sqlstate := getattr(said, "sqlstate", None):
        name = f"SQLSTATE {sqlstate}"
    words = getattr(getattr(said, "diag", None), "message_primary", None) or str(said)
    told = [line for line in words.splitlines() if not line.startswith(LIBPQS_ADVICE)]
    text = " ".join(" ".join(told).split())[:MAX_REASON].removesuffix(".")
    return (f"{name}, " if name else "") + (text.replace(password, "***") if password else text)
