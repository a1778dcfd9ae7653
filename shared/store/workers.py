"""Workers: which worker processes live. Each says so every few seconds; who has not for a while is gone."""

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import delete, update
from sqlalchemy.dialects import postgresql, sqlite

from shared.store.counters import add_counts
from shared.store.database import Database, NowMs
from shared.store.tables import workers

SEEN_EVERY_S = 2.0
GONE_AFTER_S = 7.0
"""Three that were missed, and a moment."""
FORGOTTEN_AFTER_S = 3600.0
"""Until then a worker that is gone without a word is still shown, as gone."""

_w = workers.c
_NOW = NowMs()


@dataclass(frozen=True)
class WorkerSeen:
    """A worker process: how many downloads it may hold and holds, and when it was last heard of."""

    id: str
    max_downloads: int
    holding: int
    started_at: datetime
    seen_at: datetime
    alive: bool


class Workers:
    """The workers. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database
        insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
        self._seen = insert(workers).values(started_at=_NOW, seen_at=_NOW, lost=False, missed=0)
        self._seen = self._seen.on_conflict_do_update(
            index_elements=["id"],
            set_={"seen_at": _NOW, "max_downloads": self._seen.excluded.max_downloads, "lost": False, "missed": 0},
        )

    def here(self, worker: str, *, max_downloads: int) -> None:
        """Note that *worker* lives."""
        with self._database.write() as connection:
            connection.execute(self._seen, {"id": worker, "max_downloads": max_downloads})

    def gone(self, worker: str) -> None:
        """Note that *worker* has left."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(_w.id == worker))

    def count_lost(self, *, missed: int) -> int:
        """Note that a sweep looks; count as lost, once, who was not heard of in the last *missed* of them.

        Sweeps are counted and not seconds: while the store is away nobody can be heard, and nobody looks.

        Returns:
            how many were lost since the last time.
        """
        here = _w.lost.is_(False)
        with self._database.write() as connection:
            connection.execute(update(workers).where(here).values(missed=_w.missed + 1))
            lost = connection.execute(update(workers).where(here, _w.missed >= missed).values(lost=True)).rowcount
            add_counts(connection, {("workers_lost", ()): lost})
        return lost

    def forget(self) -> None:
        """Delete those that went without a word long ago."""
        with self._database.write() as connection:
            connection.execute(delete(workers).where(_w.seen_at < _NOW - int(FORGOTTEN_AFTER_S * 1000)))
