"""Stores that do not hold together, and that somebody says so: what hands and disks can break, on both stores."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.store import file
from shared.store.check import faults_of
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from tests.conftest import RING_AGAIN_AFTER_S, a_parsed_submission
from tests.contracts import WRONG, claim, register, reject, submit
from tests.stores import a_store, sqlite_store

# What is broken by hand, once what keeps it whole is out of the way, and what is said of it.
UNGUARDED = {
    "sqlite": (
        "CREATE TABLE copied AS SELECT * FROM {table}",
        "DROP TABLE {table}",
        "ALTER TABLE copied RENAME TO {table}",
    ),
    "postgresql": (
        "CREATE TABLE copied (LIKE {table})",
        "INSERT INTO copied SELECT * FROM {table}",
        "DROP TABLE {table} CASCADE",
        "ALTER TABLE copied RENAME TO {table}",
    ),
}
BREAKS = {
    "plugins share their name and version": "INSERT INTO plugins SELECT * FROM plugins",
    "plugins share their registration": "INSERT INTO plugins SELECT * FROM plugins",
    "registrations are registered and have no plugin": "DELETE FROM plugins",
    "plugins are of a registration that is not registered": (
        "UPDATE registrations SET status = 'failed', failure = '{}' WHERE status = 'registered'"
    ),
    "plugins are not what their registration submitted": "UPDATE plugins SET checksum = 'sha256:0'",
    "registrations have a status that there is not": "UPDATE registrations SET status = 'done'",
    "registrations ended without a reason": "UPDATE registrations SET failure = NULL",
    "registrations are in flight and were counted": "UPDATE registrations SET counted = true WHERE status = 'queued'",
    "registrations in flight are identical": (
        "UPDATE registrations SET status = 'queued', fingerprint = 'same', failure = NULL"
    ),
}


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path, postgresql_url: str) -> Iterator[Database]:
    with a_store(request.param, tmp_path, postgresql_url) as made:
        fill(made)
        yield made


def fill(database: Database) -> None:
    """Put into a store a plugin, a registration that was rejected, and one that waits."""
    store = Store(database, ring_again_after_s=RING_AGAIN_AFTER_S)
    register(store, claim(store, submit(store, a_parsed_submission())))
    reject(store, claim(store, submit(store, a_parsed_submission(name="rejected"))), WRONG)
    submit(store, a_parsed_submission(name="waiting"))


def test_a_store_that_was_only_used_holds_together(database: Database) -> None:
    assert list(faults_of(database)) == []


@pytest.mark.parametrize("told", BREAKS)
def test_what_is_wrong_is_said_with_an_example(database: Database, told: str) -> None:
    with database.write() as connection:
        for table in ("plugins", "registrations"):
            for statement in UNGUARDED[database.dialect]:
                connection.execute(text(statement.format(table=table)))
        connection.execute(text(BREAKS[told]))
    (found,) = [each for each in faults_of(database) if told in each]
    assert "one of them is plugin-" in found or "one of them is registration-" in found


def test_an_index_a_table_or_a_key_that_is_missing_is_named(database: Database) -> None:
    with database.write() as connection:
        connection.execute(text("DROP INDEX one_in_flight"))
        connection.execute(text("DROP TABLE marks"))
        for statement in UNGUARDED[database.dialect]:
            connection.execute(text(statement.format(table="plugins")))
    found = list(faults_of(database))
    assert "The table registrations has no index one_in_flight." in found
    assert "The table plugins has no index one_plugin." in found
    assert "The table plugins has no primary key." in found
    assert "There is no table marks." in found


def test_an_index_that_is_not_valid_is_named(database: Database) -> None:
    if database.dialect == "sqlite":
        with database.write() as connection:
            connection.execute(text("PRAGMA writable_schema = ON"))
            connection.execute(
                text("UPDATE sqlite_master SET sql = replace(sql, '\"to_ring\" ON registrations (ring_at)', '')")
            )
            page = connection.execute(text("SELECT rootpage FROM sqlite_master WHERE name = 'to_ring'")).scalar_one()
            size = connection.execute(text("PRAGMA page_size")).scalar_one()
        path = Path(str(database.engine.url.database))
        database.close()
        with path.open("r+b") as opened:
            opened.seek((page - 1) * size + size - 20)
            opened.write(b"\xff" * 20)
    else:
        with database.write() as connection:
            connection.execute(text("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'to_ring'::regclass"))
    assert any("broken" in each or "to_ring is not valid" in each for each in faults_of(database))


def test_a_backup_of_a_store_in_use_is_a_store_in_one_file(tmp_path: Path) -> None:
    with closing(open_database(sqlite_store(tmp_path / "registry.db"))) as used:
        fill(used)
        copied = tmp_path / "copy.db"
        file.copy(tmp_path / "registry.db", copied)
        assert copied.stat().st_mode & 0o077 == 0
        assert [each.name for each in tmp_path.glob("copy*")] == ["copy.db"]
    with closing(open_database(f"sqlite:///{copied}")) as database:
        assert list(faults_of(database)) == []
        assert len(Store(database, ring_again_after_s=RING_AGAIN_AFTER_S).plugins(limit=10)) == 1


def test_a_file_that_another_was_copied_over_is_not_that_of_the_last_start(tmp_path: Path) -> None:
    store, backup = tmp_path / "registry.db", tmp_path / "backup.db"
    sqlite_store(store)
    file.mark_start(store)
    file.copy(store, backup)
    started = file.mark_start(store)
    with closing(sqlite3.connect(store)) as left_open:
        left_open.execute("PRAGMA journal_mode = WAL")
        left_open.execute("UPDATE marks SET at = at + 1")
        left_open.commit()
        assert file.left_behind(store)
        assert file.start_in(store) == started, "by the file alone"
        store.write_bytes(backup.read_bytes())
        assert file.start_in(store) != started
