"""Actions: what operators did, each written in the transaction that did it."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, insert, select
from uuid_utils import uuid7

from shared.registration import Action, Operator
from shared.store.database import Database, NowMs
from shared.store.statements import named_like, page
from shared.store.tables import actions, moment, registrations

_a = actions.c
_NOW = NowMs()


class Actions:
    """The actions in the store. Every method may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        *,
        limit: int,
        before: str | None = None,
        filters: Mapping[str, str] | None = None,
        since_ms: int | None = None,
        names: Sequence[str] = (),
    ) -> list[Action]:
        """Return a page of what operators did, newest first: up to *limit* with ids below *before*.

        *filters* hold columns and the value each must have; none was done before *since_ms*, milliseconds since the
        epoch. With *names*, patterns as
        a token has them, only what was done to registrations of such names, and not pruned.
        """
        found = page(actions, limit, before, filters)
        if names:
            of_these = select(registrations.c.id).where(registrations.c.id == _a.registration_id, named_like(names))
            found = found.where(of_these.exists())
        if since_ms is not None:
            found = found.where(_a.at >= since_ms)
        with self._database.read() as connection:
            rows = connection.execute(found).all()
        return [
            Action(
                id=row.id,
                at=moment(row.at),
                by=row.by,
                what=row.what,
                registration_id=row.registration_id or None,
                became=row.became,
                subject=row.subject,
                note=row.note,
            )
            for row in rows
        ]


def record(connection: Connection, by: Operator, what: str, became: Mapping[str, str | None]) -> None:
    """Note that *by* did *what* to each registration in *became*, and what that made of it."""
    _write(connection, by, what, [{"registration_id": each, "became": new_id} for each, new_id in became.items()])


def record_other(connection: Connection, by: Operator, what: str, subject: str, note: str = "") -> None:
    """Note that *by* did *what* to *subject*, which is no registration."""
    _write(connection, by, what, [{"registration_id": "", "subject": subject, "note": note or None}])


def _write(connection: Connection, by: Operator, what: str, rows: Sequence[Mapping[str, str | None]]) -> None:
    if not rows:
        return
    who = {"by": by.label, "token_id": by.token_id, "what": what}
    written = [{"id": f"action-{uuid7()}", **who, **row} for row in rows]
    connection.execute(insert(actions).values(at=_NOW), written)
