"""One database, SQLite or PostgreSQL by its URL: its transactions, its clock, its schema."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Transaction,
    create_engine,
    event,
    inspect,
    make_url,
    text,
)
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, InvalidatePoolError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from shared.errors import StoreUnavailable
from shared.store.tables import SCHEMA_VERSION

BUSY_TIMEOUT_S = 5
"""How long a transaction waits for its turn before the store counts as unavailable."""
POSTGRESQL_CONNECTIONS = 4
"""Of one process; its threads take turns. Eight got in each other's way: an artifact cost a third more."""
PAUSE_S = 1.0
"""A connection that nobody used for so long may have died unseen, and is asked before it is used."""
RETRY_BEGIN_S = 0.001
"""How often a writer asks SQLite whether the other process is done."""
MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x706C7567696E  # "plugin": any number that all of us agree on


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

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.dialect = engine.dialect.name
        self._shared = SharedCommits(engine) if self.dialect == "sqlite" else None
        # On PostgreSQL, where each is a round trip, a statement that is alone needs no BEGIN and no end.
        self._alone = engine if self._shared else engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection whose changes are committed, durably, if the block ends well.

        Raises:
            StoreUnavailable: the database could not take it.
        """
        with _translated(), self._shared.write() if self._shared else self._engine.begin() as connection:
            yield connection

    @contextmanager
    def write_group(self) -> Iterator[Connection]:
        """Yield as `write` does, for what was gathered already: its commit waits for nobody and is nobody else's."""
        with _translated(), self._engine.begin() as connection:
            yield connection
            if self._shared and not _driver_of(connection).in_transaction:  # a commit would do nothing, and succeed
                raise StoreUnavailable("The store could not keep this transaction.")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Yield a connection for reading; each statement sees one consistent state.

        Raises:
            StoreUnavailable: the database did not answer.
        """
        with _translated(), self._alone.connect() as connection:
            yield connection.execution_options(read_only=True)

    def check_schema(self) -> None:
        """Make sure this code fits the store.

        Raises:
            SchemaMismatch: it does not.
            StoreUnavailable: the database did not answer.
        """
        with self.read() as connection:
            _refuse_mismatch(_schema_version(connection))

    def migrate(self) -> None:
        """Bring the schema up to this code's version; do nothing where it is. SQLite is copied before.

        Raises:
            SchemaMismatch: the store was written by a newer version.
        """
        # Here, because it takes long to load and only this needs it.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415

        with self.write() as connection:
            if self.dialect == "postgresql":  # one at a time; SQLite's writers are anyway
                connection.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"))
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
            found = _schema_version(connection)
            if found is not None and found > SCHEMA_VERSION:
                _refuse_mismatch(found)
            if found == SCHEMA_VERSION:
                return
            if found is not None and self.dialect == "sqlite":
                self._back_up(found)
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _back_up(self, version: str) -> None:
        """Copy an embedded store beside itself before it is changed; an earlier copy of that version stays."""
        source = Path(self._engine.url.database or "")
        copy = source.with_name(f"{source.name}.schema-{version}.bak")
        if copy.exists():
            return
        unfinished = copy.with_suffix(".unfinished")
        unfinished.unlink(missing_ok=True)
        with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(unfinished)) as made:
            original.backup(made)
        unfinished.rename(copy)

    def close(self) -> None:
        """Close every connection of the pool."""
        self._engine.dispose()


@dataclass
class _Commit:
    """A transaction that several blocks share, one after the other, and its end, for which they wait together."""

    connection: Connection
    transaction: Transaction
    blocks: int = 0
    over: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None

    @property
    def alive(self) -> bool:
        """Whether SQLite has not rolled back by itself, as it does when the disk is full."""
        return _driver_of(self.connection).in_transaction


def _driver_of(connection: Connection) -> sqlite3.Connection:
    """Return the connection as SQLite's own module has it."""
    driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
    return driver


@contextmanager
def _savepoint(driver: sqlite3.Connection) -> Iterator[None]:
    """Undo what the block wrote, if it fails. Not through SQLAlchemy, where it costs as much as a write."""
    driver.execute("SAVEPOINT block")
    try:
        yield
    except BaseException:
        if driver.in_transaction:
            driver.execute("ROLLBACK TO block")
            driver.execute("RELEASE block")
        raise
    driver.execute("RELEASE block")


class SharedCommits:
    """Write transactions on SQLite. It has one writer, and a commit waits for the disk.

    So the threads of a process queue here, first come first served, instead of meeting in SQLite's busy handler,
    which sleeps and is not fair; and those that wait at the same time share one commit. Each block
    has a savepoint of its own: one that fails takes no other along. None returns before the commit
    that holds its changes is on disk.
    """

    MAX_BLOCKS = 64

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._turn = threading.Lock()
        self._commit: _Commit | None = None
        self._waiting = 0
        self._counting = threading.Lock()

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Yield a connection, and return when what was written with it is committed.

        Raises:
            StoreUnavailable: other transactions took too long.
            DBAPIError: SQLite refused; then nothing of this block was written.
        """
        self._take_turn()
        try:
            commit = self._commit or self._begin()
            commit.blocks += 1
            try:
                with _savepoint(_driver_of(commit.connection)):
                    yield commit.connection
            finally:
                # Whoever waits goes on with this transaction, and ends it.
                if not self._waiting or commit.blocks >= self.MAX_BLOCKS or not commit.alive:
                    self._end(commit)
        finally:
            self._turn.release()
        self._wait_for(commit)

    def _take_turn(self) -> None:
        with self._counting:
            self._waiting += 1
        try:
            if not self._turn.acquire(timeout=BUSY_TIMEOUT_S):
                raise StoreUnavailable("The store is busy: other transactions took too long.")
        finally:
            with self._counting:
                self._waiting -= 1

    def _begin(self) -> _Commit:
        connection = self._engine.connect()
        try:
            self._commit = _Commit(connection, connection.begin())
        except BaseException:
            connection.close()
            raise
        return self._commit

    def _end(self, commit: _Commit) -> None:
        """Commit for all who took part; it is for each of them to raise what went wrong."""
        self._commit = None
        try:
            if commit.alive:
                commit.transaction.commit()
            else:  # a commit would do nothing now, and succeed
                commit.error = StoreUnavailable("The store could not keep this transaction.")
        except BaseException as error:  # noqa: BLE001
            commit.error = error
        finally:
            if commit.error is not None:
                commit.connection.invalidate()  # whatever it is in the middle of ends with it
            commit.connection.close()
            commit.over.set()

    def _wait_for(self, commit: _Commit) -> None:
        while not commit.over.wait(0.05):
            # Whoever waited has given up: then nobody else is there to end what we began.
            if self._turn.acquire(blocking=False):
                try:
                    if self._commit is commit:
                        self._end(commit)
                finally:
                    self._turn.release()
        if commit.error is not None:
            raise commit.error


def open_database(url: str) -> Database:
    """Return the database at *url*; nothing is connected yet.

    Raises:
        SchemaMismatch: the URL names no database we can use.
    """
    try:
        kind = make_url(url).get_backend_name()
        if kind == "sqlite":
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
            engine = create_engine(
                make_url(url).set(drivername="postgresql+psycopg"),
                hide_parameters=True,
                pool_size=POSTGRESQL_CONNECTIONS,
                max_overflow=0,
                pool_timeout=BUSY_TIMEOUT_S,
                connect_args={
                    "connect_timeout": BUSY_TIMEOUT_S,
                    "options": f"-c lock_timeout={BUSY_TIMEOUT_S}s -c statement_timeout={2 * BUSY_TIMEOUT_S}s "
                    # A process that stops in the middle must not hold its locks for as long as it is stopped.
                    f"-c idle_in_transaction_session_timeout={2 * BUSY_TIMEOUT_S}s",
                    # A link that died in silence, which no statement_timeout ends.
                    "tcp_user_timeout": 2 * BUSY_TIMEOUT_S * 1000,
                    "keepalives_idle": BUSY_TIMEOUT_S,
                    "keepalives_interval": 1,
                    "keepalives_count": BUSY_TIMEOUT_S,
                },
            )
            _ask_after_a_pause(engine)
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


def _ask_after_a_pause(engine: Engine) -> None:
    """Replace connections that died while nobody used them. To ask each time would cost a round trip each time."""

    @event.listens_for(engine, "checkin")
    def note_time(_connection: Any, record: Any) -> None:
        record.info["back_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask(connection: Any, record: Any, _proxy: Any) -> None:
        if time.monotonic() - record.info.get("back_at", 0) < PAUSE_S:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error


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


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _refuse_mismatch(found: str | None) -> None:
    if found == SCHEMA_VERSION:
        return
    if found is None:
        raise SchemaMismatch("The store has no tables yet: run `plugin-registry migrate` first.")
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"The store was written by a newer plugin-registry (schema {found}, this one knows {SCHEMA_VERSION}): "
            "run that version, or restore a backup."
        )
    raise SchemaMismatch(
        f"The store is of an older plugin-registry (schema {found}, this one needs {SCHEMA_VERSION}): "
        "run `plugin-registry migrate` first."
    )


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (IntegrityError, ProgrammingError, DataError):
        raise  # ours to mend, not the database's
    except (DBAPIError, PoolTimeout, sqlite3.Error) as error:
        raise StoreUnavailable("The store cannot be reached or cannot take this now.") from error
