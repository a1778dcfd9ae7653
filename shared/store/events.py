"""Events: what happened, told once, in one order, without gaps (invariant 16).

The outcome of a registration is its final row, which its settling transaction writes and which never changes. From
that row its event is made, once, by the transaction that counts it (`counters.py`): whoever dies, the row is there
and is told later. Numbers are given under one lock, which is held until the commit: so none can appear behind a
reader who has passed, as it could if each settling transaction, of which the first may commit last, took a number.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from uuid_utils import uuid7

from shared.registration import rfc3339
from shared.store.changes import tell
from shared.store.database import Database, NowMs
from shared.store.statements import named_like
from shared.store.tables import counters, events, moment
from shared.store.webhooks import fan_out

WINDOW = 1000
"""So many events are looked at for one page, however few of them its reader may see."""
SKIPPED = 1_000_000
"""So many numbers are left out where a backup takes the place of a store that went on after it."""
PUBLISHED = "events_published"
"""The counter that gives the numbers."""

_e = events.c
_NOW = NowMs()


@dataclass(frozen=True)
class Event:
    """One event: its number in the feed, and what readers are sent, as JSON."""

    seq: int
    kind: str
    name_key: str
    document: str


@dataclass(frozen=True)
class EventPage:
    """Events after a number, oldest first; *next_after* is what to ask for next, whether or not there was any."""

    events: Sequence[Event]
    next_after: int
    newest: int
    """The number of the newest there is."""


class Moved(Exception):
    """There is no going on after the number that was asked for: the feed has *oldest* to *newest*."""

    def __init__(self, oldest: int, newest: int) -> None:
        super().__init__(f"the feed has {oldest} to {newest}")
        self.oldest = oldest
        self.newest = newest


class Events:
    """The feed. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def after(self, seq: int | None, *, limit: int, names: Sequence[str] = ()) -> EventPage:
        """Return up to *limit* events after *seq*, None for the oldest that is kept; of names like one of *names*.

        Raises:
            Moved: what came after it is not kept any more, or never was: another store is in this one's place.
        """
        with self._database.read() as connection:
            oldest, newest = _bounds(connection)
            if seq is None:
                seq = oldest - 1
            if not oldest - 1 <= seq <= newest:
                raise Moved(oldest, newest)
            # What is told meanwhile is for the next page, and what is forgotten meanwhile was not read: on PostgreSQL
            # each statement sees what was committed before it.
            edge = select(_e.seq).where(_e.seq > seq, _e.seq <= newest).order_by(_e.seq).offset(WINDOW - 1).limit(1)
            until = connection.execute(edge).scalar() or newest
            window = _e.seq > seq, _e.seq <= until
            found = select(_e.seq, _e.kind, _e.name_key, _e.document).where(*window).order_by(_e.seq).limit(limit)
            if names:
                found = found.where(named_like(names, _e.name_key))
            page = [Event(row.seq, row.kind, row.name_key, row.document) for row in connection.execute(found)]
            oldest, _ = _bounds(connection)
            if seq < oldest - 1:
                raise Moved(oldest, newest)
        return EventPage(page, page[-1].seq if len(page) == limit else until, newest)

    def newest(self) -> int:
        """Return the number of the newest event; 0 where there never was any."""
        with self._database.read() as connection:
            return _bounds(connection)[1]

    def skip(self) -> None:
        """Leave out `SKIPPED` numbers: of a store that was restored, whose next ones others have read already."""
        with self._database.write() as connection:
            _numbered(connection, SKIPPED)

    def forget(self, *, older_than_s: float, limit: int) -> int:
        """Delete up to *limit* events that are older, from the oldest on; return how many."""
        with self._database.write() as connection:
            oldest, newest = _bounds(connection)
            before = connection.execute(select(_NOW)).scalar_one() - int(older_than_s * 1000)
            young = select(func.min(_e.seq)).where(_e.seq < oldest + limit, _e.told_at >= before)
            until = connection.execute(young).scalar()
            if until is None:
                until = min(oldest + limit, newest + 1)
            return connection.execute(delete(events).where(_e.seq < until)).rowcount


def publish(connection: Connection, ended: Sequence[Row[Any]]) -> None:
    """Tell of registrations that *ended*, each a whole row that nobody told of, in the caller's transaction."""
    if not ended:
        return
    in_order = sorted(ended, key=lambda row: (row.updated_at, row.id))
    last = _numbered(connection, len(in_order))
    rows = [_row(row, seq) for seq, row in enumerate(in_order, last - len(in_order) + 1)]
    connection.execute(insert(events).values(told_at=_NOW), rows)
    fan_out(connection, rows)
    tell(connection)


def _bounds(connection: Connection) -> tuple[int, int]:
    """Return the numbers of the oldest event that is kept, and of the newest that there was."""
    newest = connection.execute(select(counters.c.value).where(counters.c.name == PUBLISHED)).scalar() or 0
    oldest = connection.execute(select(func.min(_e.seq))).scalar()
    return oldest if oldest is not None else newest + 1, newest


def _numbered(connection: Connection, more: int) -> int:
    """Take *more* numbers; return the last of them. Nobody else can until the caller commits."""
    dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    row = dialect(counters).values(name=PUBLISHED, labels="[]", value=more)
    taking = row.on_conflict_do_update(
        index_elements=["name", "labels"], set_={"value": counters.c.value + row.excluded.value}
    )
    return int(connection.execute(taking.returning(counters.c.value)).scalar_one())


def _row(registration: Row[Any], seq: int) -> Mapping[str, Any]:
    event_id, kind = f"event-{uuid7()}", f"registration.{registration.status}"
    failure = json.loads(registration.failure) if registration.failure is not None else {}
    data = {
        "registrationId": registration.id,
        "pluginId": registration.plugin_id,
        "name": registration.name,
        "version": registration.version,
        "pluginType": registration.plugin_type,
        "checksum": registration.checksum,
        **{word: failure.get(word) for word in ("code", "cause", "fault", "retryable")},
    }
    document = {
        "seq": seq,
        "id": event_id,
        "type": kind,
        "timestamp": rfc3339(moment(registration.updated_at)),
        "data": data,
    }
    return {
        "seq": seq,
        "id": event_id,
        "kind": kind,
        "name_key": registration.name_key,
        "registration_id": registration.id,
        "document": json.dumps(document, ensure_ascii=False, separators=(",", ":")),
    }
