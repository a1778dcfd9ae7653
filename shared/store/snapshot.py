"""Snapshot: what somebody on call wants to know, read from the store in a few bounded statements.

What is final was counted into the counters; so a look costs what is in flight, not what the store holds.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, case, func, select
from sqlalchemy import text as sql

from shared.registration import Registration, Status, host_of
from shared.store.counters import FAULTS, HOSTS, HOUR_MS, MINUTE_MS, STATUSES, Key
from shared.store.database import Database, NowMs
from shared.store.statements import NOT_PAUSED, in_flight, registrations_of
from shared.store.tables import (
    IN_FLIGHT_SQL,
    UNCOUNTED_SQL,
    marks,
    moment,
    periods,
    registrations,
    webhooks,
    workers,
)
from shared.store.upstreams import Paused, paused_of
from shared.store.workers import GONE_AFTER_S, WorkerSeen

DOWNLOADS_SHOWN = 1000
FAILURES_SHOWN = 20
HOSTS_SHOWN = 10
MINUTES_SHOWN = 180
RATE_OVER_MINUTES = 3
FAULTS_OVER_MINUTES = 5
LOST_OVER_S = 900.0
STALLED_AFTER_S = 5.0
"""A download of which no byte has arrived for so long is said to have stalled."""

_r = registrations.c
_p = periods.c
_w = workers.c
_NOW = NowMs()


@dataclass(frozen=True)
class Minute:
    """What settled in one minute."""

    begun_at: datetime
    registered: int
    failed: int
    """Rejected ones too."""


@dataclass(frozen=True)
class Upstream:
    """How one upstream host did in this hour and the one before."""

    host: str
    settled: int
    failed: int
    verifying_s: float | None
    """How long its artifacts took on average, once they were claimed."""
    downloading: int
    stalled: int


@dataclass(frozen=True)
class StoreSnapshot:
    """The state of the registry at *taken_at*, by the store's clock."""

    taken_at: datetime
    queued: int
    verifying: int
    all_stalled: int
    """How many of those being verified have stalled."""
    oldest_due_s: float | None
    """How long the one has waited that could be claimed for the longest; None where none can."""
    retrying: Mapping[str, int]
    """How many of those queued have failed before, by the cause of that."""
    kept: Mapping[str, int]
    """How many of each final status the store holds."""
    counters: Mapping[Key, int]
    """What has happened since the store was made; claims and leases lost of those in flight are in it."""
    downloads: Sequence[Registration]
    """Those being verified, the oldest claim first."""
    workers: Sequence[WorkerSeen]
    swept_at: datetime | None
    minutes: Sequence[Minute]
    """The last three hours, without minutes in which nothing settled."""
    upstreams: Sequence[Upstream]
    """The ten worst."""
    faults: Mapping[str, int]
    """How many failed or were rejected in the last minutes, by whose fault it was."""
    workers_lost: int
    """How many workers were lost lately."""
    failures: Sequence[Registration]
    """The newest ones that were rejected or failed."""
    paused: Sequence[Paused] = ()
    """The hosts that are left alone, the one for the longest first."""
    webhooks_disabled: int = 0
    """How many webhooks are told nothing, for nothing could be delivered to them."""
    webhooks_failing: int = 0
    """How many others could not be told anything lately."""

    @property
    def settled_lately(self) -> tuple[int, int]:
        """How many settled in the last minutes, and how many of these failed."""
        minutes = [each for each in self.minutes if each.begun_at >= self._lately]
        failed = sum(each.failed for each in minutes)
        return sum(each.registered for each in minutes) + failed, failed

    def ended_over(self, minutes: int) -> int:
        """Return how many ended in the minute that is not over and those before it, *minutes* in all."""
        since = self.taken_at.replace(second=0, microsecond=0) - timedelta(minutes=minutes - 1)
        return sum(each.registered + each.failed for each in self.minutes if each.begun_at >= since)

    @property
    def settled_a_second(self) -> float:
        """How many settle in a second, over the last minutes."""
        return self.settled_lately[0] / (self.taken_at - self._lately).total_seconds()

    @property
    def _lately(self) -> datetime:
        """When the last minutes began: the one that is not over, and those before it."""
        return self.taken_at.replace(second=0, microsecond=0) - timedelta(minutes=RATE_OVER_MINUTES - 1)

    @property
    def swept_s_ago(self) -> float | None:
        """How long ago the sweep ran."""
        return (self.taken_at - self.swept_at).total_seconds() if self.swept_at else None

    def stalled(self, download: Registration) -> bool:
        """Whether nothing has arrived of *download* for a while."""
        seen = download.progressed_at or download.updated_at
        return (self.taken_at - seen).total_seconds() > STALLED_AFTER_S


class StoreSnapshots:
    """Takes snapshots. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def take(self) -> StoreSnapshot:
        """Return the state of the registry."""
        with self._database.read() as connection:
            now_ms = connection.execute(select(_NOW)).scalar_one()
            now = moment(now_ms)
            queued, verifying, stalled, due_ms, retrying = _in_flight(connection)
            counters = _counters(connection)
            oldest, newest = _r.id.asc(), _r.id.desc()
            downloads = _page_of(connection, Status.VERIFYING, oldest, limit=DOWNLOADS_SHOWN)
            failures = [
                each
                for status in (Status.REJECTED, Status.FAILED)
                for each in _page_of(connection, status, newest, limit=FAILURES_SHOWN)
            ]
            snapshot = StoreSnapshot(
                taken_at=now,
                queued=queued,
                verifying=verifying,
                all_stalled=stalled,
                oldest_due_s=max(0.0, (now_ms - due_ms) / 1000) if due_ms is not None else None,
                retrying=retrying,
                kept={labels[0]: value for (name, labels), value in counters.items() if name == "kept"},
                counters=counters,
                downloads=sorted(downloads, key=lambda each: each.claimed_at or now),
                workers=_workers(connection, now_ms),
                swept_at=_marked(connection, "sweep"),
                minutes=_minutes(connection, now_ms),
                upstreams=[],
                faults=_faults(connection, now_ms),
                workers_lost=_workers_lost(connection, now_ms),
                failures=sorted(failures, key=lambda each: each.id, reverse=True)[:FAILURES_SHOWN],
                paused=paused_of(connection),
                webhooks_disabled=_webhooks(connection, webhooks.c.disabled_at.is_not(None)),
                webhooks_failing=_webhooks(
                    connection, webhooks.c.disabled_at.is_(None), webhooks.c.failing_since.is_not(None)
                ),
            )
            return _with_upstreams(connection, snapshot, now_ms)

    def ahead_of(self, registration: Registration) -> int:
        """Return how many queued registrations were submitted before *registration*."""
        with self._database.read() as connection:
            ahead = select(func.count()).where(_r.status == Status.QUEUED, _r.id < registration.id)
            return connection.execute(ahead).scalar_one()


def _in_flight(connection: Connection) -> tuple[int, int, int, int | None, dict[str, int]]:
    """Return how many are queued, verifying, stalled, since when one is due, and the causes of those tried before."""
    quiet = (_r.status == Status.VERIFYING) & (_r.progressed_at < _NOW - int(STALLED_AFTER_S * 1000))
    groups = connection.execute(
        select(
            _r.status,
            _r.cause,
            func.count().label("number"),
            func.min(case(((_r.due_at <= _NOW) & NOT_PAUSED, _r.due_at))).label("due_at"),
            func.sum(case((quiet, 1), else_=0)).label("stalled"),
        )
        .where(in_flight())
        .group_by(_r.status, _r.cause)
    ).all()
    numbers: Counter[str] = Counter()
    retrying: dict[str, int] = {}
    for group in groups:
        numbers[group.status] += group.number
        if group.status == Status.QUEUED and group.cause is not None:
            retrying[group.cause] = group.number
    due_at = min((group.due_at for group in groups if group.due_at is not None), default=None)
    stalled = sum(int(group.stalled) for group in groups)
    return numbers[Status.QUEUED], numbers[Status.VERIFYING], stalled, due_at, retrying


# One statement, and so one moment: a registration is counted here or there, never twice and never not at all.
_COUNTERS = sql(
    "WITH live AS (SELECT coalesce(sum(epoch), 0) AS claims, coalesce(sum(leases_lost), 0) AS lost FROM ("  # noqa: S608
    f"SELECT epoch, leases_lost FROM registrations WHERE {IN_FLIGHT_SQL} UNION ALL "
    f"SELECT epoch, leases_lost FROM registrations WHERE {UNCOUNTED_SQL}) AS uncounted) "
    "SELECT name, labels, value FROM counters "
    "UNION ALL SELECT 'claims', '[]', claims FROM live UNION ALL SELECT 'leases_lost', '[]', lost FROM live"
)


def _counters(connection: Connection) -> dict[Key, int]:
    counters: Counter[Key] = Counter()
    for name, labels, value in connection.execute(_COUNTERS):
        counters[name, tuple(json.loads(labels))] += int(value)
    return dict(counters)


def _page_of(connection: Connection, status: Status, order: ColumnElement[Any], *, limit: int) -> list[Registration]:
    found = select(registrations).where(_r.status == status).order_by(order).limit(limit)
    return registrations_of(connection, found)


def _workers(connection: Connection, now_ms: int) -> list[WorkerSeen]:
    held = select(_r.claimed_by, func.count().label("number")).where(_r.status == Status.VERIFYING)
    holding = {row.claimed_by: row.number for row in connection.execute(held.group_by(_r.claimed_by))}
    return [
        WorkerSeen(
            row.id,
            row.max_downloads,
            holding.get(row.id, 0),
            moment(row.started_at),
            moment(row.seen_at),
            now_ms - row.seen_at < GONE_AFTER_S * 1000,
        )
        for row in connection.execute(select(_w.id, _w.max_downloads, _w.started_at, _w.seen_at).order_by(_w.id))
    ]


def _webhooks(connection: Connection, *conditions: ColumnElement[bool]) -> int:
    return connection.execute(select(func.count()).select_from(webhooks).where(*conditions)).scalar_one()


def _marked(connection: Connection, name: str) -> datetime | None:
    at = connection.execute(select(marks.c.at).where(marks.c.name == name)).scalar()
    return moment(at) if at is not None else None


def _minutes(connection: Connection, now_ms: int) -> list[Minute]:
    since = now_ms - now_ms % MINUTE_MS - (MINUTES_SHOWN - 1) * MINUTE_MS
    rows = connection.execute(
        select(_p.begun_at, func.sum(_p.settled - _p.failed).label("registered"), func.sum(_p.failed).label("failed"))
        .where(_p.kind == STATUSES, _p.begun_at >= since, _p.label != Status.CANCELED)
        .group_by(_p.begun_at)
        .order_by(_p.begun_at)
    )
    return [Minute(moment(row.begun_at), int(row.registered), int(row.failed)) for row in rows]


def _faults(connection: Connection, now_ms: int) -> dict[str, int]:
    since = now_ms - now_ms % MINUTE_MS - (FAULTS_OVER_MINUTES - 1) * MINUTE_MS
    rows = connection.execute(
        select(_p.label, func.sum(_p.failed).label("failed"))
        .where(_p.kind == FAULTS, _p.begun_at >= since)
        .group_by(_p.label)
    )
    return {row.label: int(row.failed) for row in rows}


def _workers_lost(connection: Connection, now_ms: int) -> int:
    lost = select(func.count()).where(_w.lost.is_(True), _w.seen_at >= now_ms - int(LOST_OVER_S * 1000))
    return connection.execute(lost).scalar_one()


def _with_upstreams(connection: Connection, snapshot: StoreSnapshot, now_ms: int) -> StoreSnapshot:
    since = now_ms - now_ms % HOUR_MS - HOUR_MS
    sums = [func.sum(_p[each]).label(each) for each in ("settled", "failed", "verifying_ms")]
    worst = (
        select(_p.label, *sums)
        .where(_p.kind == HOSTS, _p.begun_at >= since)
        .group_by(_p.label)
        .order_by(func.sum(_p.failed).desc(), (func.sum(_p.verifying_ms) / func.sum(_p.settled)).desc())
        .limit(HOSTS_SHOWN)
    )
    downloading, stalled = Counter[str](), Counter[str]()
    for each in snapshot.downloads:
        host = host_of(each.submission.artifact_url)
        downloading[host] += 1
        stalled[host] += snapshot.stalled(each)
    settled = {row.label: row for row in connection.execute(worst)}
    found = [
        Upstream(
            host,
            int(row.settled) if (row := settled.get(host)) else 0,
            int(row.failed) if row else 0,
            round(int(row.verifying_ms) / int(row.settled) / 1000, 3) if row else None,
            downloading[host],
            stalled[host],
        )
        for host in {*settled, *downloading}
    ]
    ranked = sorted(found, key=lambda each: (-each.stalled, -each.failed, -(each.verifying_s or 0), each.host))
    return replace(snapshot, upstreams=ranked[:HOSTS_SHOWN])
