"""The store's statements, those of the hot path built once: building one costs more than running it.

Private to `shared/store.py` and what stands beside it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    BigInteger,
    ClauseElement,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    Update,
    bindparam,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy import text as sql

from shared.database import NowMs
from shared.registration import AlreadyRegistered, Claim, Status, Submission, Taken, normalised
from shared.tables import IN_FLIGHT_SQL, SUBMITTED, PluginRow, RegistrationRow, plugin_of

_registrations = RegistrationRow.__table__
_plugins = PluginRow.__table__
_r = _registrations.c
_p = _plugins.c
_NOW = NowMs()


def in_flight() -> Any:
    """Return the condition that a registration is not final."""
    return sql(IN_FLIGHT_SQL)  # in the words of the partial indexes, so that they are used


def queueing(insert: Callable[[Table], Any], ring_again_ms: int) -> Any:
    """Return the statement that queues registrations, but for those of which an identical one is in flight."""
    return (
        insert(_registrations)
        .values(
            status=Status.QUEUED,
            epoch=0,
            attempts=0,
            due_at=_NOW,
            ring_at=_NOW + ring_again_ms,
            bytes_downloaded=0,
            created_at=_NOW,
            updated_at=_NOW,
            leases_lost=0,
            counted=False,
            **{column: bindparam(column) for column in ("id", "submitted_by", "retry_of", "trace", *SUBMITTED)},
        )
        .on_conflict_do_nothing(index_elements=["fingerprint"], index_where=sql(IN_FLIGHT_SQL))
        .returning(_registrations)
    )


def writing_plugin(insert: Callable[[Table], Any]) -> Any:
    """Return the statement that writes a plugin, unless its name and version are taken."""
    return (
        insert(_plugins)
        .values(
            registered_at=_NOW,
            **{column: bindparam(column) for column in ("id", "registration_id", "artifact_bytes", *SUBMITTED)},
        )
        .on_conflict_do_nothing(index_elements=["name_key", "version"])
        .returning(_p.id)
    )


LEASES_LOST = literal_column(
    "(leases_lost + CASE WHEN status = 'verifying' AND NOT EXISTS (SELECT 1 FROM workers"
    " WHERE workers.id = registrations.claimed_by AND NOT workers.lost) THEN 1 ELSE 0 END)",
    Integer,
)
"""Of a registration that is due: how many leases ran out because a worker was lost, the one that just did included.
A worker that lives and could not renew, for the store was away, is no reason to suspect the artifact."""
# Who holds the lock on one is claiming, canceling or about to ring for it: there is nothing to wait for.
_CLAIMABLE = (
    select(_r.id)
    .where(
        _r.id.in_(bindparam("registration_ids", expanding=True)),
        in_flight(),
        _r.due_at <= _NOW,
        _r.attempts < bindparam("max_attempts"),
        bindparam("max_leases_lost") > LEASES_LOST,
    )
    .with_for_update(skip_locked=True)
)
CLAIM = (
    update(_registrations)
    .where(_r.id.in_(_CLAIMABLE))
    .values(
        status=Status.VERIFYING,
        epoch=_r.epoch + 1,
        attempts=_r.attempts + 1,
        due_at=_NOW + bindparam("lease_ms", type_=BigInteger),
        ring_at=_NOW + bindparam("lease_ms", type_=BigInteger),
        claimed_by=bindparam("worker"),
        claimed_at=_NOW,
        progressed_at=_NOW,
        leases_lost=LEASES_LOST,
        bytes_downloaded=0,
        artifact_bytes=None,
        updated_at=_NOW,
    )
    .returning(_r.id, _r.epoch, _r.attempts, _r.trace, *(_r[column] for column in Submission.model_fields))
)
JOINED = select(_registrations).where(_r.fingerprint.in_(bindparam("fingerprints", expanding=True)), in_flight())
# Not pairs in a list of pairs: for those SQLite looks at every plugin there is.
_PLUGINS_AT = select(_plugins).where(
    _p.name_key.in_(bindparam("names", expanding=True)), _p.version.in_(bindparam("versions", expanding=True))
)


def standing_in_the_way(
    connection: Connection, submissions: Iterable[Submission]
) -> dict[str, AlreadyRegistered | Taken]:
    """Return the plugins that stand where *submissions* want to, by the fingerprint of these."""
    wanted = {submission.fingerprint: (submission.name_key, submission.version) for submission in submissions}
    names, versions = ({name[part] for name in wanted.values()} for part in (0, 1))
    found = connection.execute(_PLUGINS_AT, {"names": [*names], "versions": [*versions]}).mappings().all()
    rows = {(row["name_key"], row["version"]): row for row in found}
    return {
        fingerprint: (AlreadyRegistered if rows[name]["fingerprint"] == fingerprint else Taken)(plugin_of(rows[name]))
        for fingerprint, name in wanted.items()
        if name in rows
    }


def first_id_at(milliseconds: int) -> str:
    """Return what no registration id made since then is below (RFC 9562 section 5.7)."""
    time = f"{milliseconds:012x}"
    return f"registration-{time[:8]}-{time[8:]}-7000"


def settle(connection: Connection, claim: Claim, **values: Any) -> bool:
    """Write a worker's word on *claim*, fenced (invariant 4); return whether it was still its."""
    plain = {column: value for column, value in values.items() if not isinstance(value, ClauseElement)}
    statement = _fenced(tuple(plain))
    if len(plain) < len(values):
        statement = statement.values({column: values[column] for column in values.keys() - plain.keys()})
    return connection.execute(statement, _asked(claim, plain)).rowcount == 1


def settle_all(connection: Connection, settled: Iterable[tuple[Claim, Mapping[str, Any]]]) -> bool:
    """Write the same plain columns of several claims, fenced as by `settle`; return whether all were still theirs."""
    # In one order, so that whoever else locks several of them cannot deadlock with us.
    in_order = sorted(settled, key=lambda each: each[0].registration_id)
    columns = tuple(in_order[0][1])
    asked = [_asked(claim, values) for claim, values in in_order]
    return connection.execute(_fenced(columns), asked).rowcount == len(asked)


def _asked(claim: Claim, values: Mapping[str, Any]) -> dict[str, Any]:
    written = {f"new_{column}": value for column, value in values.items()}
    return {"claimed_id": claim.registration_id, "claimed_epoch": claim.epoch, **written}


@cache
def _fenced(columns: tuple[str, ...]) -> Update:
    """Return the statement that sets *columns* of a live claim. The fence is here, once, for every such write."""
    return (
        update(_registrations)
        .where(
            _r.id == bindparam("claimed_id"),
            _r.status == Status.VERIFYING,
            _r.epoch == bindparam("claimed_epoch"),
        )
        .values(updated_at=_NOW, **{column: bindparam(f"new_{column}") for column in columns})
    )


def named_like(patterns: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition that a registration's name is like one of *patterns*.

    It says in SQL what `Token.may_use_name` says, so that a page is full of what its reader may see.
    """
    return or_(*(_r.name_key.like(normalised(each).translate(_LIKE), escape="\\") for each in patterns))


_LIKE = str.maketrans({"\\": "\\\\", "%": "\\%", "*": "%", "?": "_"})  # a pattern that is normalised holds no "_"


def page(table: Table, limit: int, before: str | None, filters: Mapping[str, str] | None) -> Select[tuple[Any, ...]]:
    """Return the query for a page by keyset: ids are UUIDv7, so the newest have the highest."""
    found = select(table).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        found = found.where(table.c.id < before)
    for column, value in (filters or {}).items():
        condition = table.c.name_key == normalised(value) if column == "name" else table.c[column] == value
        found = found.where(condition)
    return found
