"""SQLite keeps the store's contract, and says no well when it cannot."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import inspect
from sqlmodel import SQLModel

from shared.errors import StoreUnavailable
from shared.store import database as database_module
from shared.store.database import Database, SchemaMismatch, open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema, migrate
from shared.store.snapshot import StoreSnapshots
from shared.store.tables import SCHEMA_VERSION
from shared.store.workers import Workers
from tests.conftest import a_parsed_submission
from tests.contracts import OperatorContract, SessionContract, StoreContract, TokenContract
from tests.event_contracts import EventContract, WebhookContract
from tests.stores import newer_release


class TestSQLite(StoreContract, OperatorContract, TokenContract, SessionContract, EventContract, WebhookContract):
    """The contract, on SQLite."""


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    with database.read() as connection:
        found = inspect(connection)
        for table in SQLModel.metadata.sorted_tables:
            columns = {each["name"]: each for each in found.get_columns(table.name)}
            assert set(columns) == {each.name for each in table.columns}
            for column in table.columns:
                assert columns[column.name]["nullable"] == column.nullable, f"{table.name}.{column.name}"
            assert {each["name"] for each in found.get_indexes(table.name)} == {each.name for each in table.indexes}
            unique = {each["name"] for each in found.get_unique_constraints(table.name)}
            assert unique == {
                each.name for each in table.constraints if each.name and each.__visit_name__ == "unique_constraint"
            }


def test_a_sqlite_that_is_too_old_is_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(SchemaMismatch, match=r"3\.35"):
        open_database(f"sqlite:///{tmp_path / 'registry.db'}")


def test_what_sqlite_rolled_back_by_itself_is_not_told_as_committed(database: Database) -> None:
    """As it does when the disk is full: the transaction is gone, and a commit would succeed."""
    with pytest.raises(StoreUnavailable), database.write() as connection:
        connection.exec_driver_sql("ROLLBACK")


def test_threads_that_write_at_the_same_time_all_have_their_turn(database: Database) -> None:
    workers = Workers(database)
    with ThreadPoolExecutor(8) as pool:
        for each in [pool.submit(workers.here, f"worker-{n}", max_downloads=1) for n in range(40)]:
            each.result()
    assert len(StoreSnapshots(database).take().workers) == 40


def test_migrating_twice_changes_nothing(database: Database) -> None:
    migrate(database)
    check_schema(database)


@pytest.mark.parametrize("url", ["mysql://host/db", "nonsense", "oracle+x://h"])
def test_a_url_of_no_store_of_ours_is_refused(url: str) -> None:
    with pytest.raises(SchemaMismatch, match="REGISTRY_DATABASE_URL"):
        open_database(url)


def test_a_locked_store_is_unavailable_and_takes_nothing(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.2)
    impatient = open_database(f"sqlite:///{tmp_path / 'registry.db'}")
    locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None)
    locker.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable):
        Store(impatient).submit([(a_parsed_submission(), "tests")])
    locker.execute("ROLLBACK")
    locker.close()
    impatient.close()
    assert store.registrations(limit=10) == []


def test_a_writer_that_waits_for_its_turn_too_long_is_told(
    database: Database, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    inside, leave = threading.Event(), threading.Event()

    def occupy() -> None:
        with database.write():
            inside.set()
            leave.wait()

    thread = threading.Thread(target=occupy)
    thread.start()
    inside.wait()
    with pytest.raises(StoreUnavailable):
        store.submit([(a_parsed_submission(), "tests")])
    leave.set()
    thread.join()
    store.submit([(a_parsed_submission(), "tests")])


def test_a_full_disk_is_unavailable_and_takes_nothing(store: Store, tmp_path: Path) -> None:
    full = open_database(f"sqlite:///{tmp_path / 'registry.db'}")
    with full.write() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        raw = connection.connection.dbapi_connection
    assert raw is not None
    big = a_parsed_submission(configSchema='"' + "x" * 60_000 + '"')
    with pytest.raises(StoreUnavailable):
        Store(full).submit([(big, "tests")])
    full.close()
    assert store.registrations(limit=10) == []


def test_no_statement_is_logged_with_its_values(store: Store, database: Database) -> None:
    secret = "https://artifacts.example.com/a?token=hunter2"
    with pytest.raises(Exception, match="UNIQUE") as raised, database.write() as connection:  # noqa: PT012
        for _ in range(2):
            connection.exec_driver_sql(
                "INSERT INTO tokens VALUES (?, 'l', 's', 'read', '', 0, NULL, NULL)", (secret,)
            )
    assert "hunter2" not in str(raised.value)


def test_an_embedded_store_is_copied_before_it_is_migrated(store: Store, database: Database, tmp_path: Path) -> None:
    registration = store.submit([(a_parsed_submission(), "tests")])
    with newer_release(tmp_path, "DELETE FROM registrations"):
        migrate(database)
        check_schema(database)
    assert store.registrations(limit=1) == []
    copy = open_database(f"sqlite:///{tmp_path / f'registry.db.schema-{SCHEMA_VERSION}.bak'}")
    check_schema(copy)
    assert len(Store(copy).registrations(limit=10)) == len(registration)
    copy.close()
