"""Keys of the registry's own, which it signs with: made when first needed, kept in the store, published."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite

from shared.store.database import Database, NowMs
from shared.store.tables import moment, signing_keys

FOR_WEBHOOKS = "webhooks"
"""A use."""
_k = signing_keys.c
_NOW = NowMs()


@dataclass(frozen=True)
class SigningKey:
    """A key pair, as texts; *public* is for everybody."""

    id: str
    public: str
    created_at: datetime
    private: str = field(repr=False)


class SigningKeys:
    """The keys in the store. Every method may raise `StoreUnavailable`."""

    def __init__(self, database: Database, make: Callable[[], tuple[str, str]]) -> None:
        """Work on *database*; *make* returns a new private and public key."""
        self._database = database
        self._make = make

    def current(self, use: str) -> SigningKey:
        """Return the key for *use*, which is made by whoever asks first."""
        found = self._found(use)
        if found is None:
            private, public = self._make()
            insert = sqlite.insert if self._database.dialect == "sqlite" else postgresql.insert
            first = {"id": f"{use}-1", "use": use, "private": private, "public": public, "created_at": _NOW}
            with self._database.write() as connection:
                connection.execute(insert(signing_keys).values(**first).on_conflict_do_nothing())
            found = self._found(use)
        assert found is not None  # noqa: S101  # it was written, by us or by another
        return found

    def _found(self, use: str) -> SigningKey | None:
        with self._database.read() as connection:
            row = connection.execute(select(signing_keys).where(_k.use == use)).first()
        return SigningKey(row.id, row.public, moment(row.created_at), row.private) if row else None
