"""The store's statements beside the hot ones (`hot.py`); what is asked for often is built once.

Private to `shared/store/registrations.py` and what stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    bindparam,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy import text as sql

from shared.fields import normalised
from shared.registration import UNREGISTERED, Registration
from shared.store.hot import ATTEMPTS_SPENT_SQL, LEASES_LOST_SQL, NOT_PAUSED_SQL
from shared.store.tables import IN_FLIGHT_SQL, registration_of, registrations

_r = registrations.c


def in_flight() -> Any:
    """Return the condition that a registration is not final."""
    return sql(IN_FLIGHT_SQL)  # in the words of the partial indexes, so that they are used


LEASES_LOST = literal_column(LEASES_LOST_SQL, Integer)
ATTEMPTS_SPENT = literal_column(ATTEMPTS_SPENT_SQL, Integer)
NOT_PAUSED = literal_column(NOT_PAUSED_SQL, Boolean)
JOINED = select(registrations).where(_r.fingerprint.in_(bindparam("fingerprints", expanding=True)), in_flight())


def in_flight_of(connection: Connection, submitter: str, *, at_most: int) -> int:
    """Return how many registrations *submitter* has in flight; no more than *at_most* are counted."""
    # SQLite is told the index: without statistics it would take any other partial one.
    which = " INDEXED BY in_flight_by_submitter" if connection.dialect.name == "sqlite" else ""
    counted = sql(
        f"SELECT count(*) FROM (SELECT 1 FROM registrations{which}"  # noqa: S608  # of our own words
        f" WHERE submitted_by = :submitter AND {IN_FLIGHT_SQL} LIMIT :at_most) AS found"
    )
    return int(connection.execute(counted, {"submitter": submitter, "at_most": at_most}).scalar_one())


def first_id_at(milliseconds: int) -> str:
    """Return what no registration id made since then is below (RFC 9562 section 5.7)."""
    time = f"{milliseconds:012x}"
    return f"registration-{time[:8]}-{time[8:]}-7000"


def named_like(patterns: Sequence[str], name_key: Any = _r.name_key) -> ColumnElement[bool]:
    """Return the condition that a name, by default a registration's, is like one of *patterns*.

    It says in SQL what `Token.may_use_name` says, so that a page is full of what its reader may see.
    """
    return or_(*(name_key.like(normalised(each).translate(_LIKE), escape="\\") for each in patterns))


_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "*": "%", "?": "_"})  # a pattern that is normalised holds no "_"


def page(
    table: Table,
    limit: int,
    before: str | None,
    filters: Mapping[str, str] | None,
    *,
    oldest_first: bool = False,
) -> Select[tuple[Any, ...]]:
    """Return the query for a page by keyset: ids are UUIDv7, so the newest have the highest.

    With *oldest_first* it is the other way round, and *before* is the last id of the page before.
    """
    found = select(table).order_by(table.c.id if oldest_first else table.c.id.desc()).limit(limit)
    if before is not None:
        found = found.where(table.c.id > before if oldest_first else table.c.id < before)
    for column, value in (filters or {}).items():
        condition = table.c.name_key == normalised(value) if column == "name" else table.c[column] == value
        found = found.where(condition)
    return found


def registrations_of(connection: Connection, found: Select[tuple[Any, ...]]) -> list[Registration]:
    """Return the registrations that *found* finds, each of those that failed with what tries it again."""
    listed = [registration_of(row._mapping) for row in connection.execute(found)]
    failed = [each.id for each in listed if each.status in UNREGISTERED]
    if not failed:
        return listed
    again = select(_r.retry_of, func.max(_r.id).label("newest")).where(_r.retry_of.in_(failed)).group_by(_r.retry_of)
    newest = {row.retry_of: row.newest for row in connection.execute(again)}
    return [replace(each, retried_as=newest.get(each.id)) for each in listed]
