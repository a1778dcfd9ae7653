"""Upstreams: the hosts that artifacts come from. One in trouble can be left alone until it is resumed."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.registration import Operator, Registration, Status
from shared.store.actions import record_other
from shared.store.counters import HOSTS, HOUR_MS
from shared.store.database import Database, NowMs
from shared.store.statements import in_flight, registrations_of
from shared.store.tables import moment, paused_hosts, periods, registrations

HOURS_SHOWN = 24
REGISTRATIONS_SHOWN = 20
COUNTED = 5000
"""Of a host's registrations, so many of the newest are counted by their causes."""

_r = registrations.c
_p = periods.c
_NOW = NowMs()


@dataclass(frozen=True)
class Paused:
    """A host from which nothing is fetched: since when, who wanted that, and why."""

    host: str
    at: datetime
    by: str
    note: str


@dataclass(frozen=True)
class Hour:
    """What settled in one hour, and how long its artifacts took in all, once they were claimed."""

    begun_at: datetime
    settled: int
    failed: int
    bytes: int
    verifying_s: float


@dataclass(frozen=True)
class UpstreamSeen:
    """One host: its last hours, why registrations of it failed, and what is in flight."""

    host: str
    paused: Paused | None
    hours: tuple[Hour, ...]
    """The newest first, without those in which nothing settled."""
    causes: dict[str, int]
    """How many of the newest failed for what."""
    in_flight: int
    newest: tuple[Registration, ...]


class Upstreams:
    """The hosts in the store. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert

    def known(self, host: str) -> bool:
        """Return whether anything that is kept names *host*."""
        asked = select(_r.id).where(_r.host == host).limit(1)
        settled = select(_p.label).where(_p.kind == HOSTS, _p.label == host).limit(1)
        paused = select(paused_hosts.c.host).where(paused_hosts.c.host == host)
        with self._database.read() as connection:
            return any(connection.execute(each).first() is not None for each in (asked, paused, settled))

    def paused(self, host: str) -> Paused | None:
        """Return who has *host* left alone, if somebody has."""
        with self._database.read() as connection:
            row = connection.execute(select(paused_hosts).where(paused_hosts.c.host == host)).first()
        return _paused(row) if row is not None else None

    def pause(self, host: str, by: Operator, note: str) -> bool:
        """Have nothing new fetched from *host*; return whether that is new. What is under way goes on to its end."""
        row = {"host": host, "by": by.label, "note": note}
        pausing = (
            self._insert(paused_hosts).values(at=_NOW, **row).on_conflict_do_nothing().returning(paused_hosts.c.host)
        )
        with self._database.write() as connection:
            new = connection.execute(pausing).first() is not None
            if new:
                record_other(connection, by, "pause", host, note)
        return new

    def resume(self, host: str, by: Operator) -> bool:
        """Have *host* fetched from again, with what waited for it; return whether it was paused."""
        with self._database.write() as connection:
            was = connection.execute(delete(paused_hosts).where(paused_hosts.c.host == host)).rowcount > 0
            if was:
                waits = (_r.host == host, in_flight(), _r.due_at <= _NOW)
                connection.execute(update(registrations).where(*waits).values(ring_at=_NOW))
                record_other(connection, by, "resume", host)
        return was

    def seen(self, host: str) -> UpstreamSeen:
        """Return what is known of *host*."""
        with self._database.read() as connection:
            paused = connection.execute(select(paused_hosts).where(paused_hosts.c.host == host)).first()
            now_ms = connection.execute(select(_NOW)).scalar_one()
            hours = connection.execute(
                select(periods)
                .where(_p.kind == HOSTS, _p.label == host, _p.begun_at > now_ms - HOURS_SHOWN * HOUR_MS)
                .order_by(_p.begun_at.desc())
            )
            of_host = _r.host == host
            newest_of_all = (
                select(_r.cause, _r.status).where(of_host).order_by(_r.id.desc()).limit(COUNTED).subquery()
            )
            causes = connection.execute(
                select(newest_of_all.c.cause, func.count().label("number"))
                .where(newest_of_all.c.status.in_([Status.FAILED, Status.REJECTED]))
                .group_by(newest_of_all.c.cause)
                .order_by(func.count().desc(), newest_of_all.c.cause)
            )
            flying = connection.execute(select(func.count()).where(of_host, in_flight())).scalar_one()
            newest = select(registrations).where(of_host).order_by(_r.id.desc()).limit(REGISTRATIONS_SHOWN)
            return UpstreamSeen(
                host,
                _paused(paused) if paused else None,
                tuple(
                    Hour(moment(row.begun_at), row.settled, row.failed, row.bytes, row.verifying_ms / 1000)
                    for row in hours
                ),
                {row.cause or "": row.number for row in causes},
                flying,
                tuple(registrations_of(connection, newest)),
            )


def paused_of(connection: Connection) -> list[Paused]:
    """Return the hosts that are paused, the one for the longest first."""
    return [_paused(row) for row in connection.execute(select(paused_hosts).order_by(paused_hosts.c.at))]


def _paused(row: object) -> Paused:
    return Paused(row.host, moment(row.at), row.by, row.note)  # type: ignore[attr-defined]  # its columns
