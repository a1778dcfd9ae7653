"""PostgreSQL as the store connects to it: straight, or through a pooler that gives each transaction another server.

**Nothing is left behind on a connection that the next transaction needs, or would suffer from.** A pooler in
transaction mode (PgBouncer) hands each transaction to whichever server connection is free, and refuses startup
options. So a transaction brings its timeouts along (`SET LOCAL`, in the same message as its BEGIN), and statements
are prepared only where nobody stands in between: a server tells a new connection its process id, and where another
one answers, yet another may answer next. Unprepared, a claim or an outcome costs a quarter more (decision 0027).

**Nobody waits for an answer longer than `ANSWER_WITHIN_S`.** A server that was stopped, or one behind a link that
swallows everything, is not gone: its kernel acknowledges what we send, and libpq would wait for ever. psycopg waits
in a loop of its own, which is told when to give up. Then the statement is canceled, should anybody hear that, and the
connection is closed: what it was at may have been done. A process that leaves has no such time: it gives all of its
connections up at once (`Wires.give_up`), by cutting them off under whoever waits.
"""

import os
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar
from weakref import WeakSet

import psycopg
from psycopg.abc import PQGen
from psycopg.pq import TransactionStatus
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

BUSY_WITHIN_S = 5
"""How long it may take to connect, and how long a statement waits for a lock."""
STATEMENT_WITHIN_S = 2 * BUSY_WITHIN_S
"""How long a statement of a transaction may take the server, and how long it waits for the next one."""
ANSWER_WITHIN_S = STATEMENT_WITHIN_S + 1.0
"""How long a server may say nothing; what is alone, and so has no timeout of the server's, takes no longer either."""
PING_WITHIN_S = 3.0
"""How long it may take to answer what needs no work."""
CANCEL_WITHIN_S = 1.0
PAUSE_S = 1.0
"""A connection that nobody used for so long may have died unseen, and is asked before it is used."""
_CONNECTING: Mapping[str, Any] = {
    "connect_timeout": BUSY_WITHIN_S,
    # A link that died in silence, on which we wait for nothing at the moment.
    "tcp_user_timeout": STATEMENT_WITHIN_S * 1000,
    "keepalives_idle": BUSY_WITHIN_S,
    "keepalives_interval": 1,
    "keepalives_count": BUSY_WITHIN_S,
}
_LIMITS = {
    "lock_timeout": BUSY_WITHIN_S,
    "statement_timeout": STATEMENT_WITHIN_S,
    # A process that stops in the middle must not hold its locks for as long as it is stopped.
    "idle_in_transaction_session_timeout": STATEMENT_WITHIN_S,
}
"""In seconds, for each transaction."""

Answer = TypeVar("Answer")


class Wire(psycopg.Connection[Any]):
    """A connection on which nobody waits for ever."""

    within_s: float | None = ANSWER_WITHIN_S
    """How long the server may say nothing from now on; None for ever."""

    def wait(self, gen: PQGen[Answer], interval: float = 0.1, timeout: float | None = None) -> Answer:
        """Do what psycopg does, for *timeout* seconds, by default `within_s`."""
        within_s = timeout or self.within_s
        try:
            return super().wait(gen, interval, within_s)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status != TransactionStatus.ACTIVE:
                raise  # it did answer, or is gone
        if within_s == ANSWER_WITHIN_S:  # else there is nothing that would go on
            with suppress(psycopg.Error):
                self.cancel_safe(timeout=CANCEL_WITHIN_S)
        self.close()
        raise psycopg.OperationalError(f"the server did not answer within {within_s:g} s")


class Wires:
    """The connections of an engine."""

    def __init__(self) -> None:
        self._open: WeakSet[Wire] = WeakSet()
        self._given_up = threading.Event()
        self._changing = threading.Lock()

    def connect(self, _dialect: Any, _record: Any, args: Any, options: Any) -> Wire:
        """Connect, as SQLAlchemy has it done."""
        if self._given_up.is_set():
            raise psycopg.OperationalError("this process leaves, and waits for the store no more")
        wire = Wire.connect(*args, **options)
        with self._changing:
            self._open.add(wire)
        if self._given_up.is_set():
            cut_off(wire)
        return wire

    def give_up(self) -> None:
        """Have whoever waits for the server be told now that it does not answer, and connect no more."""
        self._given_up.set()
        with self._changing:
            for wire in self._open:
                cut_off(wire)


def cut_off(connection: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    """End a connection under whoever waits on it, in another thread."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def postgresql_engine(url: URL, wires: Wires, *, connections: int) -> Engine:
    """Return an engine for *url*, with *connections* at most; a statement is a transaction, if none was begun."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_WITHIN_S,
        connect_args=_connect_args(url),
        isolation_level="AUTOCOMMIT",
    )
    event.listen(engine, "do_connect", wires.connect)
    event.listen(engine, "connect", _prepare_nothing_behind_a_pooler)
    _ask_after_a_pause(engine)
    return engine


def connecting(engine: Engine) -> dict[str, Any]:
    """Return how psycopg connects to the database of *engine*, outside of its pool."""
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    return {name: value for name, value in arguments.items() if name != "context"} | _connect_args(engine.url)


def begin(connection: Connection, patient: bool) -> None:
    """Begin a transaction, with its limits; if *patient*, it takes as long as it takes."""
    if patient:
        wire: Any = connection.connection.driver_connection
        wire.within_s = None  # until it is given back
    connection.exec_driver_sql(_begin_sql(str(connection.engine.url.query.get("options", "")), patient=patient))


@cache
def _begin_sql(options: str, *, patient: bool) -> str:
    """Return what begins a transaction. What the operator's own *options* limit stays as it is."""
    limits = {name: 0 if patient else limit_s for name, limit_s in _LIMITS.items() if patient or name not in options}
    return "; ".join(["BEGIN", *(f"SET LOCAL {name} = '{limit_s}s'" for name, limit_s in limits.items())])


def _connect_args(url: URL) -> dict[str, Any]:
    return {name: value for name, value in _CONNECTING.items() if name not in url.query}


def _prepare_nothing_behind_a_pooler(connection: Wire, _record: Any) -> None:
    connection.within_s = BUSY_WITHIN_S  # until it is checked out
    with connection.cursor() as cursor:
        answering = cursor.execute("SELECT pg_backend_pid()").fetchone()
    if answering != (connection.info.backend_pid,):
        connection.prepare_threshold = None


def _ask_after_a_pause(engine: Engine) -> None:
    """Replace connections that died while nobody used them. To ask each time would cost a round trip each time."""

    @event.listens_for(engine, "checkin")
    def note_time(_connection: Any, record: Any) -> None:
        record.info["back_at"] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def ask(connection: Wire, record: Any, _proxy: Any) -> None:
        connection.within_s = PING_WITHIN_S
        try:
            if time.monotonic() - record.info.get("back_at", 0) >= PAUSE_S:
                engine.dialect.do_ping(connection)  # type: ignore[arg-type]  # psycopg's own
        except psycopg.Error as error:
            raise InvalidatePoolError from error
        finally:
            connection.within_s = ANSWER_WITHIN_S
