"""The schema: whether this code works on a store, and bringing a store to this code's version.

A release that changes the schema is a rolling one: first `migrate`, then the services one by one, while the old ones
go on. So code and store need not be of one version. Who came later knows, and says it:

- a store that is newer than the code: each migration names the oldest code that works on what it makes, its
  `OLDEST_CODE`. The newest of these stands beside the store's version (`alembic_version.oldest_code`);
- a store that is older than the code: the code names the oldest store that it works on, `OLDEST_STORE`.

What is added, or may be null, lets older code live (expand). What is renamed or taken away does not: that is for the
release after the one that stopped using it (contract). Decision 0028.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Connection, inspect, text
from sqlmodel import SQLModel

from shared.store.database import Database, SchemaMismatch
from shared.store.tables import OLDEST_STORE, SCHEMA_VERSION

MIGRATIONS = Path(__file__).parent / "migrations"
MIGRATION_LOCK = 0x706C7567696E  # "plugin": any number that all of us agree on


class _Schema(NamedTuple):
    version: str
    """Of the newest migration."""
    oldest_code: str
    """The oldest code that works on it, by its own SCHEMA_VERSION."""


def check_schema(database: Database) -> None:
    """Make sure this code works on the store.

    Raises:
        SchemaMismatch: it does not.
        StoreUnavailable: the database did not answer.
    """
    version = known_version(database)
    if version < OLDEST_STORE:
        raise SchemaMismatch(
            f"The store is of an older plugin-registry (schema {version}, this one needs {OLDEST_STORE}): "
            "run `plugin-registry migrate` first."
        )


def known_version(database: Database) -> str:
    """Return the version of the store, however old it is.

    Raises:
        SchemaMismatch: it is no store yet, or of a newer release that does not let this code live.
        StoreUnavailable: the database did not answer.
    """
    with database.read() as connection:
        found = _schema(connection)
    if found is None:
        raise SchemaMismatch("The store has no tables yet: run `plugin-registry migrate` first.")
    _refuse_newer(found)
    return found.version


def migrate(database: Database) -> None:
    """Bring the schema up to this code's version; do nothing where it is that, or newer. SQLite is copied before.

    Raises:
        SchemaMismatch: the store was written by a newer version that lets this one not live.
        StoreUnavailable: the database did not answer.
    """
    # Here, because it takes long to load and only this needs it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    with database.write(patient=True) as connection:
        if database.dialect == "postgresql":  # one at a time; SQLite's writers are anyway
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
        found = _schema(connection)
        if found is not None and found.version >= SCHEMA_VERSION:
            _refuse_newer(found)
            return
        if found is not None and database.dialect == "sqlite":
            _back_up(Path(database.engine.url.database or ""), found.version)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        # A migration that says nothing of others lets none live.
        migrations = ScriptDirectory.from_config(config).walk_revisions()
        oldest_code = max(getattr(each.module, "OLDEST_CODE", each.revision) for each in migrations)
        connection.execute(text("UPDATE alembic_version SET oldest_code = :oldest"), {"oldest": oldest_code})


def grant(database: Database, role: str) -> None:
    """Let *role* serve: read and write what is in our tables, now and in those that later migrations make; no more.

    It takes the role that owns the tables, and no superuser. Of `alembic_version` *role* may only read.

    Raises:
        SchemaMismatch: there is no such role, or this store knows none.
        StoreUnavailable: the database did not take it.
    """
    if database.dialect != "postgresql":
        raise SchemaMismatch("SQLite has no roles to grant anything to: whoever may write the file may do all.")
    quoted = database.engine.dialect.identifier_preparer.quote_identifier
    tables = ", ".join(quoted(each.name) for each in SQLModel.metadata.sorted_tables)
    granting = "GRANT SELECT, INSERT, UPDATE, DELETE ON"
    with database.write() as connection:
        schema = quoted(str(connection.execute(text("SELECT current_schema()")).scalar_one()))
        if not connection.execute(text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": role}).first():
            raise SchemaMismatch(f"There is no role {role!r} to grant anything to: make it first, with CREATE ROLE.")
        for sentence in (
            f"GRANT USAGE ON SCHEMA {schema} TO {quoted(role)}",
            f"{granting} {tables} TO {quoted(role)}",
            f"GRANT SELECT ON alembic_version TO {quoted(role)}",
            f"ALTER DEFAULT PRIVILEGES IN SCHEMA {schema} {granting} TABLES TO {quoted(role)}",
        ):
            connection.exec_driver_sql(sentence)


def may_create(database: Database, role: str) -> bool:
    """Return whether *role* may make tables in our schema, as all may in the schema `public` before PostgreSQL 15."""
    with database.read() as connection:
        asking = text("SELECT has_schema_privilege(:role, current_schema(), 'CREATE')")
        return bool(connection.execute(asking, {"role": role}).scalar_one())


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


def _schema(connection: Connection) -> _Schema | None:
    """Return what the store says of its schema, or None where it has none yet."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    row = connection.execute(text("SELECT * FROM alembic_version")).mappings().first()
    if row is None:
        return None
    version = str(row["version_num"])
    return _Schema(version, row.get("oldest_code") or version)  # before 0006 nobody said


def _refuse_newer(found: _Schema) -> None:
    if found.version > SCHEMA_VERSION < found.oldest_code:
        raise SchemaMismatch(
            f"The store was written by a newer plugin-registry (schema {found.version}, which needs code of schema "
            f"{found.oldest_code}; this is of {SCHEMA_VERSION}): run a newer version, or restore a backup."
        )
