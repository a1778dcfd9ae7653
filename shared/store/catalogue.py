"""The catalogue: plugins as somebody looks for them, by a part of a name, and in an order of names."""

from typing import Literal

from sqlalchemy import func, select

from shared.fields import normalised
from shared.registration import Plugin
from shared.store.database import Database
from shared.store.tables import plugin_of, plugins

Order = Literal["newest", "name"]

_p = plugins.c
_ESCAPED = str.maketrans({"\\": "\\\\", "%": "\\%", "_": "\\_"})


class Catalogue:
    """The plugins in the store, for reading. Every method may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(
        self, *, limit: int, part: str = "", plugin_type: str = "", order: Order = "newest", after: str | None = None
    ) -> list[Plugin]:
        """Return up to *limit* plugins whose name holds *part*, of *plugin_type* if one is given, in *order*.

        They begin behind the plugin whose id is *after*. By name, the newest of each name comes first.
        """
        found = select(plugins).limit(limit)
        if wanted := normalised(part.strip()):
            found = found.where(_p.name_key.like(f"%{wanted.translate(_ESCAPED)}%", escape="\\"))
        if plugin_type:
            found = found.where(_p.plugin_type == plugin_type)
        found = found.order_by(*([] if order == "newest" else [_p.name_key]), _p.id.desc())
        if after is not None and order == "newest":
            found = found.where(_p.id < after)
        elif after is not None:
            key = select(_p.name_key).where(_p.id == after).scalar_subquery()
            # Down in ids within a name, up in names: no row of values says that in one comparison.
            found = found.where((_p.name_key > key) | ((_p.name_key == key) & (_p.id < after)))
        with self._database.read() as connection:
            return [plugin_of(row._mapping) for row in connection.execute(found)]

    def number(self) -> int:
        """Return how many plugins there are."""
        with self._database.read() as connection:
            return connection.execute(select(func.count()).select_from(plugins)).scalar_one()
