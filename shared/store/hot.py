"""The hot statements: what every artifact costs the store, for a whole group at a time. For `registrations.py` alone.

They are text, because SQLAlchemy's own work on a row is twice what the database does for it; everything that is asked
for seldom stays in `statements.py`. Both dialects run the same sentences: a group's rows are a table called `j`, made
of one JSON document on SQLite and of one array a column on PostgreSQL, whose columns bear names that no table has.

**Each finds its rows by their ids**, one by one, whatever else there is, and without statistics: so `status` is no
condition as it is (but ``status || ''``). Seeing ``status = 'verifying'``, a planner takes an index of all that is in
flight, and then a group costs what the backlog is long (1.5 ms a row on SQLite, 9 ms for 32 on PostgreSQL).
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Row, Table

from shared.registration import Submission
from shared.store.database import NOW_SQL
from shared.store.tables import IN_FLIGHT_SQL, SUBMITTED, plugins, registrations

_SUBMITTED = ", ".join(SUBMITTED)
_OF_A_CLAIM = ", ".join(("id", "epoch", "attempts", "trace", "submitted_by", *Submission.model_fields))
QUEUED = (*SUBMITTED, "id", "submitted_by", "retry_of", "trace", "host")
"""The columns of a row that is queued: what was submitted, its fingerprint first, by which rows are in one order."""


def _of(table: Table) -> str:
    """Return the names of its columns, for a result of what this code knows.

    With ``*`` instead PostgreSQL would refuse a statement, on each connection that has prepared it, from the moment
    that a later release's migration adds a column.
    """
    return ", ".join(f"{table.name}.{each.name}" for each in table.columns)


_IN_FLIGHT = IN_FLIGHT_SQL.replace("status", "(status || '')")
_TYPES = {"text": "text", "int": "bigint"}

MAX_FOR_NOTHING = 20
"""So many claims that their worker outlived may count for nothing: whatever comes, there is an end (invariant 7)."""
OUTLIVED_SQL = (
    "(status = 'verifying' AND EXISTS (SELECT 1 FROM workers"
    " WHERE workers.id = registrations.claimed_by AND workers.seen_at > registrations.due_at)"
    f" AND epoch - attempts < {MAX_FOR_NOTHING})"
)
"""Of a registration that is due: whether its worker was seen after the lease had ended. It could not renew, or could
not write the outcome: the shortage was ours, and the attempt counts for nothing (invariant 13)."""
ATTEMPTS_SPENT_SQL = f"(attempts - CASE WHEN {OUTLIVED_SQL} THEN 1 ELSE 0 END)"
LEASES_LOST_SQL = (
    "(leases_lost + CASE WHEN status = 'verifying' AND NOT EXISTS (SELECT 1 FROM workers"
    " WHERE workers.id = registrations.claimed_by AND NOT workers.lost) THEN 1 ELSE 0 END)"
)
"""Of a registration that is due: how many leases ran out because a worker was lost, the one that just did included.
A worker that lives and could not renew, for the store was away, is no reason to suspect the artifact."""


@dataclass(frozen=True)
class _Hot:
    """A statement about the rows of `j`, which have *columns*, with their types.

    ``{given}`` in it stands for those rows; ``{found}`` for those beside the rows of *table* for which *condition*
    holds; ``{held}``, in an UPDATE of registrations, for the same, locked.
    """

    columns: Mapping[str, str]
    condition: str
    sentence: str
    lock: str = ""
    table: str = "registrations"


NOT_PAUSED_SQL = "NOT EXISTS (SELECT 1 FROM paused_hosts WHERE paused_hosts.host = registrations.host)"
"""Of a registration: whether no operator has its host left alone. What is under way there goes on to its end."""
_CLAIMABLE = (
    f"id = of_id AND {_IN_FLIGHT} AND due_at <= {{now}} AND {ATTEMPTS_SPENT_SQL} < :max_attempts"
    f" AND {LEASES_LOST_SQL} < :max_leases_lost AND {NOT_PAUSED_SQL}"
)
_FENCE = "id = of_id AND (status || '') = 'verifying' AND epoch = at_epoch"
"""Invariant 4."""
_HOT = {
    # An identical one in flight stands in the way of a row, and nothing else does: which of them is looked up then.
    "queue": _Hot(
        {f"new_{name}": "text" for name in QUEUED},
        "",
        f"""WITH clock AS (SELECT {{now}} AS at)
        INSERT INTO registrations ({", ".join(QUEUED)}, status, epoch, attempts, due_at, ring_at,
            bytes_downloaded, created_at, updated_at, leases_lost, counted)
        SELECT {", ".join(f"new_{name}" for name in QUEUED)}, 'queued', 0, 0, at, at + :ring_again_ms, 0,
            at, at, 0, false
        FROM clock CROSS JOIN {{given}} WHERE true
        ON CONFLICT (fingerprint) WHERE {IN_FLIGHT_SQL} DO NOTHING
        RETURNING id, created_at""",
    ),
    "standing": _Hot(
        {"of_key": "text", "of_version": "text"},
        "name_key = of_key AND version = of_version",
        f"SELECT {_of(plugins)} FROM {{found}}",
        table="plugins",
    ),
    "waiting": _Hot(
        {"of_id": "text"},
        f"id = of_id AND {_IN_FLIGHT} AND due_at <= {{now}} AND {NOT_PAUSED_SQL}",
        "SELECT id, artifact_url, submitted_by FROM {found}",
    ),
    "settled": _Hot(
        {"of_id": "text"},
        f"id = of_id AND NOT {_IN_FLIGHT}",
        f"SELECT {_of(registrations)}, (SELECT registered_at FROM plugins WHERE plugins.id = registrations.plugin_id)"
        " AS registered_at FROM {found}",
    ),
    # Who holds the lock on one is claiming, canceling or about to ring for it: there is nothing to wait for.
    "claim": _Hot(
        {"of_id": "text"},
        _CLAIMABLE,
        f"""UPDATE registrations SET status = 'verifying', epoch = epoch + 1, attempts = {ATTEMPTS_SPENT_SQL} + 1,
            due_at = {{now}} + :lease_ms, ring_at = {{now}} + :lease_ms, claimed_by = :worker,
            claimed_at = {{now}}, progressed_at = {{now}}, leases_lost = {LEASES_LOST_SQL},
            bytes_downloaded = 0, artifact_bytes = NULL, updated_at = {{now}}
        WHERE id IN (SELECT id FROM {{found}})
        RETURNING {_OF_A_CLAIM}""",
        "FOR UPDATE SKIP LOCKED",
    ),
    "register": _Hot(
        {"of_id": "text", "at_epoch": "int", "new_plugin": "text", "size_bytes": "int", "new_hops": "text"},
        _FENCE,
        """UPDATE registrations SET status = 'registered', plugin_id = new_plugin, bytes_downloaded = size_bytes,
            artifact_bytes = size_bytes, hops = new_hops, failure = NULL, cause = NULL, updated_at = {now}
        FROM {held}
        RETURNING id, epoch, plugin_id""",
        "FOR UPDATE",
    ),
    "end": _Hot(
        {
            "of_id": "text",
            "at_epoch": "int",
            "new_status": "text",
            "new_failure": "text",
            "new_cause": "text",
            "due_in_ms": "int",
            "ring_in_ms": "int",
            "given_back": "int",
        },
        _FENCE,
        """UPDATE registrations SET status = new_status, failure = COALESCE(new_failure, failure),
            cause = COALESCE(new_cause, cause), due_at = COALESCE({now} + due_in_ms, due_at),
            ring_at = COALESCE({now} + ring_in_ms, ring_at), attempts = attempts - given_back,
            claimed_by = CASE WHEN given_back = 1 THEN NULL ELSE claimed_by END, updated_at = {now}
        FROM {held}
        RETURNING id, epoch""",
        "FOR UPDATE",
    ),
    "renew": _Hot(
        {"of_id": "text", "at_epoch": "int", "arrived_bytes": "int", "announced_bytes": "int"},
        _FENCE,
        """UPDATE registrations SET due_at = {now} + :lease_ms, ring_at = {now} + :lease_ms,
            progressed_at = CASE WHEN bytes_downloaded < arrived_bytes THEN {now} ELSE progressed_at END,
            bytes_downloaded = arrived_bytes, artifact_bytes = announced_bytes, updated_at = {now}
        FROM {held}
        RETURNING id, epoch""",
        "FOR UPDATE",
    ),
    # What its worker said of an attempt that registered nothing; by whom and since when, its registration knows.
    "note_attempts": _Hot(
        {"of_id": "text", "at_epoch": "int", "new_failure": "text", "arrived_bytes": "int", "new_hops": "text"},
        _FENCE,
        """INSERT INTO attempts (registration_id, epoch, begun_at, ended_at, worker, bytes_downloaded, hops, failure)
        SELECT id, at_epoch, claimed_at, {now}, claimed_by, arrived_bytes, new_hops, new_failure FROM {found}
        RETURNING registration_id""",
        "FOR UPDATE",
    ),
    # Copied from its registration in SQL. In one order, so that two workers that want the same names cannot deadlock.
    "write_plugins": _Hot(
        {"of_id": "text", "new_plugin": "text"},
        "id = of_id AND plugin_id = new_plugin",
        f"""INSERT INTO plugins (id, registration_id, artifact_bytes, registered_at, {_SUBMITTED})
        SELECT plugin_id, id, artifact_bytes, {{now}}, {_SUBMITTED} FROM {{found}}{{in_order}}
        ON CONFLICT (name_key, version) DO NOTHING
        RETURNING registration_id""",
    ),
}
_PLACEHOLDER = re.compile(r":([a-z_]+)")


class Hot:
    """The hot statements of one dialect, ``sqlite`` or ``postgresql``."""

    def __init__(self, dialect: str) -> None:
        self._sqlite = dialect == "sqlite"
        self._texts = {name: self._text(hot, dialect) for name, hot in _HOT.items()}

    def run(
        self, connection: Connection, name: str, rows: Iterable[Sequence[Any]], **terms: object
    ) -> Sequence[Row[Any]]:
        """Run the statement called *name* on *rows*, whose values stand as its columns do; return what it returns."""
        in_order = sorted(rows, key=itemgetter(0))  # so that whoever else locks several cannot deadlock
        if self._sqlite:
            bound: dict[str, object] = {"rows": json.dumps(in_order)}
        else:
            bound = dict(zip(_HOT[name].columns, map(list, zip(*in_order, strict=True)), strict=True))
        return connection.exec_driver_sql(self._texts[name], {**bound, **terms}).all()

    def _text(self, hot: _Hot, dialect: str) -> str:
        parts = _sqlite(hot) if self._sqlite else _postgresql(hot)
        text = hot.sentence
        for name, part in {**parts, "{now}": NOW_SQL[dialect]}.items():
            text = text.replace(name, part)
        return text if self._sqlite else _PLACEHOLDER.sub(r"%(\1)s", text)


def _sqlite(hot: _Hot) -> dict[str, str]:
    """Return what SQLite, which has one writer at a time, says for the parts of a statement."""
    picked = (f"json_extract(value, '$[{place}]') AS {name}" for place, name in enumerate(hot.columns))
    j = f"(SELECT {', '.join(picked)} FROM json_each(:rows)) AS j"
    return {
        "{given}": j,
        "{found}": f"{j} CROSS JOIN {hot.table} WHERE {hot.condition}",
        "{held}": f"{j} WHERE {hot.condition}",
        "{in_order}": "",
    }


def _postgresql(hot: _Hot) -> dict[str, str]:
    """Return what PostgreSQL says for them.

    The rows are looked up, and locked, one by one in the order of `j` before anything is joined: so two that want
    several of them cannot deadlock, and no plan that begins with the table is to be had.
    """
    arrays = (f"CAST(:{name} AS {_TYPES[kind]}[])" for name, kind in hot.columns.items())
    j = f"unnest({', '.join(arrays)}) AS j({', '.join(hot.columns)})"
    rows = f"FROM {hot.table} WHERE {hot.condition} OFFSET 0 {hot.lock}"
    return {
        "{given}": j,
        "{found}": f"{j} CROSS JOIN LATERAL (SELECT * {rows}) AS {hot.table}",
        "{held}": f"{j} CROSS JOIN LATERAL (SELECT id AS held {rows}) AS live WHERE id = held",
        "{in_order}": " ORDER BY name_key, version",
    }
