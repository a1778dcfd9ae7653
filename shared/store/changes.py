"""Changes: whether anybody may have committed an outcome, told without asking the store for anything.

A hint and no more: who relies on it looks by itself now and then. SQLite counts commits in memory that its processes
share (``PRAGMA data_version``, 5 microseconds). PostgreSQL tells whoever listens (``NOTIFY``, from each transaction
that makes one final), on a connection of its own. A pooler that gives each transaction another connection loses
what is told: so that is tried first, and where nothing arrives, or the connection is away, the clock says "maybe".
"""

import asyncio
import sqlite3
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from sqlalchemy import Connection, Engine

from shared.logs import get_logger
from shared.store.database import Database

if TYPE_CHECKING:
    from psycopg import AsyncConnection

CHANNEL = "registry_outcomes"
MAYBE_S = 0.02
"""How often there may have been a change, where nobody tells."""
PROVEN_WITHIN_S = 2.0
AGAIN_S, POOLED_AGAIN_S = 5.0, 60.0
"""When to listen again: after the connection was lost, and after nothing arrived on it."""

log = get_logger(__name__)


class Changes(Protocol):
    """What says that there may be something new."""

    def version(self) -> int:
        """Return a number that is another one once somebody has committed an outcome, or may have. It never waits."""
        ...

    def when_told(self, wake: Callable[[], None]) -> None:
        """Have *wake* called at a change, by a store that tells; others have to be asked for their version."""
        ...

    async def run(self) -> None:
        """Listen, for as long as the process lives."""
        ...

    def close(self) -> None:
        """Close what was opened."""
        ...


def changes_of(database: Database) -> Changes:
    """Return what says that *database* changed."""
    return SqliteChanges(database.engine) if database.dialect == "sqlite" else PostgresqlChanges(database)


def tell(connection: Connection) -> None:
    """Have all who wait know, once the transaction of *connection* is committed, that something became final."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(f"NOTIFY {CHANNEL}")


def _maybe() -> int:
    return -1 - int(monotonic() / MAYBE_S)


class SqliteChanges:
    """Commits of others, which on SQLite are those of every other connection."""

    def __init__(self, engine: Engine) -> None:
        self._file = f"file:{quote(engine.url.database or '')}?mode=rw"
        self._connection: sqlite3.Connection | None = None

    def version(self) -> int:
        """Ask the memory that SQLite's processes share."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._file, uri=True, timeout=0, isolation_level=None, check_same_thread=False
                )
            version: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error:
            return _maybe()
        return version

    def when_told(self, wake: Callable[[], None]) -> None:
        """Do nothing: it does not tell."""

    async def run(self) -> None:
        """Do nothing: there is nothing to hear."""

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()


class PostgresqlChanges:
    """What transactions that made a registration final told."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heard = 0
        self._proven = False
        """Whether what is told arrives."""
        self._wake: Callable[[], None] = lambda: None
        self._said = ""
        self._listening: AsyncConnection[Any] | None = None

    def version(self) -> int:
        """Count what was told, if that arrives."""
        return self._heard if self._proven else _maybe()

    def when_told(self, wake: Callable[[], None]) -> None:
        """Call *wake* in the loop that hears it."""
        self._wake = wake

    async def run(self) -> None:
        """Listen, again and again."""
        while True:
            try:
                await self._listen()
            except Exception as error:  # noqa: BLE001  # whatever it is: the store is asked until it is mended
                self._say("not told of changes", reason=type(error).__name__)
                await asyncio.sleep(AGAIN_S)
            else:
                self._say("nothing is told through this pooler, so the store is asked", again_s=POOLED_AGAIN_S)
                await asyncio.sleep(POOLED_AGAIN_S)

    def _say(self, event: str, **fields: str | float) -> None:
        """Say that nothing is told, once for as long as that is so."""
        if event != self._said:
            log.warning(event, **fields)
        self._said = event

    async def _listen(self) -> None:
        """Hear what is told until the connection is lost, or return where nothing arrives."""
        async with await self._connect() as connection:
            self._listening = connection
            await connection.execute(f"LISTEN {CHANNEL}")
            await self._try()
            try:
                async for _each in connection.notifies(timeout=PROVEN_WITHIN_S, stop_after=1):
                    self._proven = True
                while self._proven:
                    self._said = ""
                    self._heard += 1
                    self._wake()
                    async for _each in connection.notifies(stop_after=1):
                        pass
            finally:
                self._proven = False

    async def _try(self) -> None:
        """Tell as others do: on another connection."""
        async with asyncio.timeout(PROVEN_WITHIN_S), await self._connect() as other:
            await other.execute(f"NOTIFY {CHANNEL}")

    async def _connect(self) -> "AsyncConnection[Any]":
        # Here, because they take long to load, and only this store needs them.
        from psycopg import AsyncConnection  # noqa: PLC0415

        from shared.store.postgresql import connecting  # noqa: PLC0415

        return await AsyncConnection.connect(autocommit=True, **connecting(self._database.engine))

    def close(self) -> None:
        """End the connection: its task could not be canceled while a server that hangs owes it an answer."""
        if self._listening is not None:
            from shared.store.postgresql import cut_off  # noqa: PLC0415

            cut_off(self._listening)
