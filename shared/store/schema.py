"""The schema: whether a store is of this code's version, and bringing it there."""

import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from shared.store.database import Database, SchemaMismatch
from shared.store.tables import SCHEMA_VERSION

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x706C7567696E  # "plugin": any number that all of us agree on


def check_schema(database: Database) -> None:
    """Make sure this code fits the store.

    Raises:
        SchemaMismatch: it does not.
        StoreUnavailable: the database did not answer.
    """
    with database.read() as connection:
        _refuse_mismatch(_version(connection))


def migrate(database: Database) -> None:
    """Bring the schema up to this code's version; do nothing where it is. SQLite is copied before.

    Raises:
        SchemaMismatch: the store was written by a newer version.
    """
    # Here, because it takes long to load and only this needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    with database.write() as connection:
        if database.dialect == "postgresql":  # one at a time; SQLite's writers are anyway
            connection.execute(text("SET LOCAL lock_timeout = 0; SET LOCAL statement_timeout = 0"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        found = _version(connection)
        if found is not None and found > SCHEMA_VERSION:
            _refuse_mismatch(found)
        if found == SCHEMA_VERSION:
            return
        if found is not None and database.dialect == "sqlite":
            _back_up(Path(database.engine.url.database or ""), found)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _back_up(source: Path, version: str) -> None:
    """Copy an embedded store beside itself before it is changed; an earlier copy of that version stays."""
    copy = source.with_name(f"{source.name}.schema-{version}.bak")
    if copy.exists():
        return
    unfinished = copy.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    with closing(sqlite3.connect(source)) as original, closing(sqlite3.connect(unfinished)) as made:
        original.backup(made)
    unfinished.rename(copy)


def _version(connection: Connection) -> str | None:
    """Return the newest migration of the store, or None where there is none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if version is None else str(version)


def _refuse_mismatch(found: str | None) -> None:
    if found == SCHEMA_VERSION:
        return
    if found is None:
        raise SchemaMismatch("The store has no tables yet: run `plugin-registry migrate` first.")
    if found > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"The store was written by a newer plugin-registry (schema {found}, this one knows {SCHEMA_VERSION}): "
            "run that version, or restore a backup."
        )
    raise SchemaMismatch(
        f"The store is of an older plugin-registry (schema {found}, this one needs {SCHEMA_VERSION}): "
        "run `plugin-registry migrate` first."
    )
