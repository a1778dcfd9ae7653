"""Acknowledgements: alerts that somebody knows of, with a word and an end; until then they wake nobody."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite

from shared.registration import Operator
from shared.store.actions import record_other
from shared.store.database import Database, NowMs
from shared.store.tables import acknowledgements, moment

_k = acknowledgements.c
_NOW = NowMs()


@dataclass(frozen=True)
class Acknowledged:
    """That somebody knows of *alert*: who, since when and until when, and what they said."""

    alert: str
    at: datetime
    until: datetime
    by: str
    note: str


class Acknowledgements:
    """Those in the store. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert

    def good(self) -> Mapping[str, Acknowledged]:
        """Return those that have not ended, by the names of their alerts."""
        with self._database.read() as connection:
            rows = connection.execute(select(acknowledgements).where(_k.until > _NOW))
            return {
                row.alert: Acknowledged(row.alert, moment(row.at), moment(row.until), row.by, row.note)
                for row in rows
            }

    def acknowledge(self, alert: str, by: Operator, note: str, *, for_s: float) -> None:
        """Note that *by* knows of *alert*, for *for_s* seconds; it takes the place of what was said before."""
        said = {"at": _NOW, "until": _NOW + int(for_s * 1000), "by": by.label, "note": note}
        noting = self._insert(acknowledgements).values(alert=alert, **said)
        with self._database.write() as connection:
            connection.execute(noting.on_conflict_do_update(index_elements=["alert"], set_=said))
            record_other(connection, by, "acknowledge", alert, note)

    def withdraw(self, alert: str, by: Operator) -> bool:
        """Have *alert* wake people again; return whether it was acknowledged."""
        with self._database.write() as connection:
            was = connection.execute(delete(acknowledgements).where(_k.alert == alert, _k.until > _NOW)).rowcount > 0
            if was:
                record_other(connection, by, "withdraw", alert)
        return was
