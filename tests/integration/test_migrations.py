"""Code and store need not be of one version, on either store: each side says whom it lets live (decision 0028)."""

from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import Script, ScriptDirectory
from sqlalchemy import inspect
from sqlmodel import SQLModel

from shared.registration import AlreadyRegistered, Status
from shared.store.database import Database, SchemaMismatch, open_database
from shared.store.registrations import Store
from shared.store.schema import MIGRATIONS, check_schema, migrate
from shared.store.tables import OLDEST_STORE, SCHEMA_VERSION
from tests.conftest import a_parsed_submission
from tests.contracts import claim, register, submit
from tests.stores import a_store, empty_store, newer_release

ADDS = "ALTER TABLE registrations ADD COLUMN later VARCHAR"
FIRST_TO_SAY = "0006"
PREPARED_BY_THEN = 8
"""psycopg prepares what a connection has run five times."""


@pytest.fixture(params=["sqlite", "postgresql"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def database(kind: str, tmp_path: Path, postgresql_url: str) -> Iterator[Database]:
    with a_store(kind, tmp_path, postgresql_url) as database:
        yield database


@pytest.fixture
def empty(kind: str, tmp_path: Path, postgresql_url: str) -> Iterator[Database]:
    with empty_store(kind, tmp_path, postgresql_url) as database:
        yield database


def _migrations() -> list[Script]:
    return list(ScriptDirectory.from_config(_config()).walk_revisions())


def test_the_newest_migration_is_the_schema_version() -> None:
    assert _migrations()[0].revision == SCHEMA_VERSION


def test_each_migration_says_the_oldest_code_that_it_lets_live() -> None:
    said = {
        each.revision: each.module.__dict__.get("OLDEST_CODE")
        for each in _migrations()
        if each.revision >= FIRST_TO_SAY
    }
    silent = [revision for revision, oldest in said.items() if oldest is None]
    assert not silent, "the SCHEMA_VERSION of the oldest code that works on what it makes: OLDEST_CODE"
    assert all(FIRST_TO_SAY <= str(oldest) <= revision for revision, oldest in said.items())


def test_code_serves_a_newer_store_that_lets_it_live(database: Database, tmp_path: Path) -> None:
    with newer_release(tmp_path, ADDS, oldest_code=SCHEMA_VERSION):
        migrate(database)
    check_schema(database)
    migrate(database)  # as the job of an old release does that is run again
    _assert_it_works(database)
    assert "later" in {each["name"] for each in _columns(database, "registrations")}, "and nothing was undone"


def test_what_a_connection_prepared_before_a_column_was_added_it_runs_after(
    database: Database, tmp_path: Path
) -> None:
    """PostgreSQL refuses a prepared statement whose columns become others: so the hot ones name theirs."""

    def work() -> None:
        store = Store(database)
        submission = a_parsed_submission(name=f"plugin-{next(numbers)}")
        accepted = submit(store, submission)
        assert register(store, claim(store, accepted)) is Status.REGISTERED
        assert [each.registration.id for each in store.settled([accepted.id])] == [accepted.id]
        assert isinstance(store.submit([(submission, "one")])[0], AlreadyRegistered)

    numbers = count()
    for _ in range(PREPARED_BY_THEN):
        work()
    adds = "; ".join(f"ALTER TABLE {each.name} ADD COLUMN later VARCHAR" for each in SQLModel.metadata.sorted_tables)
    url = database.engine.url.render_as_string(hide_password=False)
    with newer_release(tmp_path, adds, oldest_code=SCHEMA_VERSION), closing(open_database(url)) as another:
        migrate(another)  # the driver forgets what it prepared where it sees that somebody altered something
    for _ in range(PREPARED_BY_THEN):
        work()


@pytest.mark.parametrize("said", ["it names itself", "it says nothing"])
def test_code_refuses_a_newer_store_that_does_not_let_it_live(database: Database, tmp_path: Path, said: str) -> None:
    next_version = f"{int(SCHEMA_VERSION) + 1:04}"
    with newer_release(tmp_path, ADDS, oldest_code=next_version if said == "it names itself" else None):
        migrate(database)
        check_schema(database)
    for refused in (check_schema, migrate):
        with pytest.raises(SchemaMismatch, match="newer plugin-registry"):
            refused(database)


def test_what_no_longer_lives_is_not_let_live_by_a_later_migration(database: Database, tmp_path: Path) -> None:
    with newer_release(tmp_path, ADDS), newer_release(tmp_path, "SELECT 1", oldest_code=SCHEMA_VERSION):
        migrate(database)
    with pytest.raises(SchemaMismatch, match="newer plugin-registry"):
        check_schema(database)


def test_the_oldest_store_that_is_served_has_every_table_and_column_of_this_code(empty: Database) -> None:
    _migrate_to(empty, OLDEST_STORE)
    check_schema(empty)
    for table in SQLModel.metadata.sorted_tables:
        there = {each["name"] for each in _columns(empty, table.name)}
        assert {each.name for each in table.columns} <= there, "raise OLDEST_STORE to the migration that made these"
    _assert_it_works(empty)
    migrate(empty)
    check_schema(empty)


def test_a_store_that_is_too_old_is_refused_until_it_is_migrated(empty: Database) -> None:
    _migrate_to(empty, f"{int(OLDEST_STORE) - 1:04}")
    with pytest.raises(SchemaMismatch, match="older plugin-registry"):
        check_schema(empty)
    migrate(empty)
    check_schema(empty)


def test_a_store_without_tables_is_refused(empty: Database) -> None:
    with pytest.raises(SchemaMismatch, match="no tables yet"):
        check_schema(empty)


def _migrate_to(database: Database, version: str) -> None:
    """Leave *database* as an earlier release had it."""
    config = _config()
    with database.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, version)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def _columns(database: Database, table: str) -> list[dict[str, object]]:
    with database.read() as connection:
        return [dict(each) for each in inspect(connection).get_columns(table)]


def _assert_it_works(database: Database) -> None:
    store = Store(database)
    assert register(store, claim(store, submit(store, a_parsed_submission()))) is Status.REGISTERED
