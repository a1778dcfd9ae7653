"""Counters: what has happened since the store was made, counted from the store itself.

Each registration is counted once, when it is final, in the transaction that marks it as counted. So the
figures agree with the store whichever process reads them, and a process that is killed takes none along.
"""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, Table, delete, select, update
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql, sqlite

from shared.registration import Status, host_of
from shared.store.database import Database, NowMs
from shared.store.events import publish
from shared.store.tables import UNCOUNTED_SQL, UNTOLD_SQL, counters, marks, periods, registrations
from shared.store.webhooks import hooks_in

Key = tuple[str, tuple[str, ...]]
"""A counter's name and the values of its labels."""

BUCKETS_S = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
"""Upper bounds of the histograms, in seconds; beyond the last there is one more, without a bound."""
DURATIONS = ("queued", "verifying", "total")
COUNTED_AT_ONCE = 5000
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
PERIODS_KEPT_MS = 24 * HOUR_MS
HOSTS = "host"
STATUSES = "status"
FAULTS = "fault"

_r = registrations.c
_NOW = NowMs()


class Counters:
    """Counts what became final. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self, *, at_most: int = COUNTED_AT_ONCE) -> int:
        """Count, and tell in the feed, up to *at_most* registrations that became final since the last time.

        Returns:
            how many there were.
        """
        with self._database.write() as connection:
            at_most = max(1, at_most // (1 + hooks_in(connection)))  # each of them is told of each event
            uncounted = select(_r.id).where(sql(UNCOUNTED_SQL)).limit(at_most).with_for_update(skip_locked=True)
            marking = update(registrations).where(_r.id.in_(uncounted)).values(counted=True, told=True)
            rows = connection.execute(marking.returning(registrations)).all()
            publish(connection, rows)  # first, for whoever numbers events holds their lock before any counter's
            add_counts(connection, _counts_of(rows))
            _add_periods(connection, _periods_of(rows))
        return len(rows)

    def tell_counted(self, *, at_most: int = COUNTED_AT_ONCE) -> int:
        """Tell of what a release counted that tells nothing: in a rolling upgrade it lives beside this one.

        Returns:
            how many there were; what ended before there was a feed is not among them.
        """
        began = select(marks.c.at).where(marks.c.name == "feed").scalar_subquery()
        with self._database.write() as connection:
            at_most = max(1, at_most // (1 + hooks_in(connection)))
            untold = select(_r.id).where(sql(UNTOLD_SQL), _r.updated_at >= began).limit(at_most)
            marking = update(registrations).where(_r.id.in_(untold.with_for_update(skip_locked=True)))
            rows = connection.execute(marking.values(told=True).returning(registrations)).all()
            publish(connection, rows)
        return len(rows)

    @property
    def all_counted(self) -> bool:
        """Whether nothing waits to be counted; to look costs nobody who writes anything."""
        with self._database.read() as connection:
            return connection.execute(select(_r.id).where(sql(UNCOUNTED_SQL)).limit(1)).first() is None

    def add(self, counted: Mapping[Key, int]) -> None:
        """Add *counted* to the counters."""
        if counted:
            with self._database.write() as connection:
                add_counts(connection, counted)

    def mark(self, name: str) -> None:
        """Note that *name* ran just now."""
        with self._database.write() as connection:
            row = _insert(connection, marks).values(name=name, at=_NOW)
            connection.execute(row.on_conflict_do_update(index_elements=["name"], set_={"at": _NOW}))

    def forget(self) -> None:
        """Delete the periods that no chart shows any more."""
        with self._database.write() as connection:
            connection.execute(delete(periods).where(periods.c.begun_at < _NOW - PERIODS_KEPT_MS))


def add_counts(connection: Connection, counted: Mapping[Key, int]) -> None:
    """Add *counted* to the counters, in the caller's transaction."""
    rows = [
        {"name": name, "labels": json.dumps(labels), "value": value}
        for (name, labels), value in sorted(counted.items())  # in one order, so that two processes cannot deadlock
        if value
    ]
    if rows:
        insert = _insert(connection, counters)
        more = insert.on_conflict_do_update(
            index_elements=["name", "labels"],
            set_={"value": counters.c.value + insert.excluded.value},
        )
        connection.execute(more, rows)


def _counts_of(rows: Iterable[Row[tuple[object, ...]]]) -> Counter[Key]:
    counted: Counter[Key] = Counter()
    for row in rows:
        failure = json.loads(row.failure) if row.failure is not None else {}
        outcome = (row.status, *(failure.get(each, "") for each in ("code", "cause", "fault")))
        counted["kept", (row.status,)] += 1
        counted["outcomes", outcome] += 1
        counted["claims", ()] += row.epoch
        counted["leases_lost", ()] += row.leases_lost
        if row.status == Status.REGISTERED:
            counted["bytes", ()] += row.artifact_bytes
        if row.status == Status.CANCELED or row.claimed_at is None:
            continue
        begun, claimed, ended = row.created_at, row.claimed_at, row.updated_at
        for duration, ms in zip(DURATIONS, (claimed - begun, ended - claimed, ended - begun), strict=True):
            counted[f"{duration}_bucket", (str(bisect_left(BUCKETS_S, ms / 1000)),)] += 1
            counted[f"{duration}_ms", ()] += max(0, ms)  # a clock that was set back must not take from a sum
    return counted


@dataclass
class _Period:
    settled: int = 0
    failed: int = 0
    bytes: int = 0
    verifying_ms: int = 0


def _periods_of(rows: Iterable[Row[tuple[object, ...]]]) -> dict[tuple[str, int, str], _Period]:
    """Return what settled in each minute, by status, and failed, by fault, and in each hour, by host."""
    periods: defaultdict[tuple[str, int, str], _Period] = defaultdict(_Period)
    for row in rows:
        minute, hour = (row.updated_at - row.updated_at % each for each in (MINUTE_MS, HOUR_MS))
        keys = [(STATUSES, minute, row.status)]
        if row.failure is not None and row.status != Status.CANCELED:
            keys.append((FAULTS, minute, json.loads(row.failure).get("fault", "")))
        if row.status != Status.CANCELED:
            keys.append((HOSTS, hour, host_of(row.artifact_url)))
        for key in keys:
            period = periods[key]
            period.settled += 1
            period.failed += row.status in {Status.REJECTED, Status.FAILED}
            period.bytes += row.bytes_downloaded
            period.verifying_ms += row.updated_at - row.claimed_at if row.claimed_at is not None else 0
    return periods


def _add_periods(connection: Connection, settled: Mapping[tuple[str, int, str], _Period]) -> None:
    rows = [
        {"kind": kind, "begun_at": begun_at, "label": label, **vars(period)}
        for (kind, begun_at, label), period in sorted(settled.items(), key=lambda each: each[0])
    ]
    if rows:
        insert = _insert(connection, periods)
        sums: Sequence[str] = ("settled", "failed", "bytes", "verifying_ms")
        more = insert.on_conflict_do_update(
            index_elements=["kind", "begun_at", "label"],
            set_={each: periods.c[each] + insert.excluded[each] for each in sums},
        )
        connection.execute(more, rows)


def _insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    dialect = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    return dialect(table)
