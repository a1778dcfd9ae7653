"""Fill a store with a past: so many registrations that became plugins, written by the database itself."""

import sqlite3
from contextlib import closing
from pathlib import Path

import psycopg

from shared.store.database import open_database
from shared.store.schema import migrate

_SQLITE = """
WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < :rows)
INSERT INTO {table} SELECT {columns} FROM n
"""
_POSTGRESQL = "INSERT INTO {table} SELECT {columns} FROM generate_series(0, %(rows)s - 1) AS n(i)"

HEX = {"sqlite": "lower(hex(randomblob(32)))", "postgresql": "md5(random()::text) || md5(random()::text)"}
SERIAL = {"sqlite": "printf('%012x', i)", "postgresql": "lpad(to_hex(i), 12, '0')"}
LONG_AGO_MS = 1_700_000_000_000
_ID = "'{kind}-018bcfe5-6800-7000-8000-' || {serial}"
"""A UUIDv7 of long ago: below every id that will be made, in the order of its number."""


def fill(url: str, rows: int) -> None:
    """Make a store at *url* that holds *rows* registrations and the plugins they became."""
    database = open_database(url)
    migrate(database)
    database.close()
    kind = "sqlite" if url.startswith("sqlite") else "postgresql"
    statements = [
        (_SQLITE if kind == "sqlite" else _POSTGRESQL).format(table=table, columns=columns)
        for table, columns in (
            (f"registrations ({', '.join(_registration(kind))})", ", ".join(_registration(kind).values())),
            (f"plugins ({', '.join(_plugin(kind))})", ", ".join(_plugin(kind).values())),
        )
    ]
    if kind == "sqlite":
        with closing(sqlite3.connect(Path(url.removeprefix("sqlite:///")))) as lite:
            lite.execute("PRAGMA cache_size = -400000")
            for statement in statements:
                lite.execute(statement, {"rows": rows})
            lite.commit()
            lite.execute("ANALYZE")
            lite.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '256MB'")
        for statement in statements:
            connection.execute(statement.encode(), {"rows": rows})
        connection.execute("VACUUM ANALYZE")


def id_of(kind: str, number: int) -> str:
    """Return the id of a row by its number; page by page they come in falling order."""
    return f"{kind}-018bcfe5-6800-7000-8000-{number:012x}"


def _submitted(kind: str) -> dict[str, str]:
    return {
        "fingerprint": HEX[kind],
        "name": "'old plugin ' || i",
        "name_key": "'old-plugin-' || i",
        "version": "'1.0.0'",
        "plugin_type": "'log'",
        "artifact_url": "'https://artifacts.example.com/plugins/old-plugin-' || i || '.tar.gz'",
        "checksum": f"'sha256:' || {HEX[kind]}",
        "config_schema": "'{}'",
        "plugin_runtime": "'go'",
    }


def _registration(kind: str) -> dict[str, str]:
    return {
        "id": _ID.format(kind="registration", serial=SERIAL[kind]),
        **_submitted(kind),
        "submitted_by": "'bench'",
        "status": "'registered'",
        "epoch": "1",
        "attempts": "1",
        **dict.fromkeys(("due_at", "ring_at", "created_at", "updated_at"), f"{LONG_AGO_MS} + i"),
        "bytes_downloaded": "4096",
        "artifact_bytes": "4096",
        "counted": "true",
        "plugin_id": _ID.format(kind="plugin", serial=SERIAL[kind]),
    }


def _plugin(kind: str) -> dict[str, str]:
    return {
        "id": _ID.format(kind="plugin", serial=SERIAL[kind]),
        "registration_id": _ID.format(kind="registration", serial=SERIAL[kind]),
        **_submitted(kind),
        "artifact_bytes": "4096",
        "registered_at": f"{LONG_AGO_MS} + i",
    }
