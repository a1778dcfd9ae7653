"""PostgreSQL keeps the same contract as SQLite, and the same migrations make it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlmodel import SQLModel

from shared.database import Database, SchemaMismatch, open_database
from shared.errors import ArtifactMissing
from shared.registration import Accepted
from shared.store import Store
from tests.conftest import a_parsed_submission
from tests.contracts import OperatorContract, SessionContract, StoreContract, TokenContract
from tests.engines import fresh_database
from tests.running import until


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with fresh_database(postgresql_url) as url:
        database = open_database(url)
        database.migrate()
        yield database
        database.close()


class TestPostgreSQL(StoreContract, OperatorContract, TokenContract, SessionContract):
    """The contract, on PostgreSQL."""


def test_migrations_and_tables_say_the_same(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, SQLModel.metadata) == []


def test_migrations_and_tables_say_the_same_of_what_alembic_does_not_compare(
    database: Database, postgresql_url: str
) -> None:
    """Which rows an index holds, and what is unique: the same as in tables made from the models alone."""
    with fresh_database(postgresql_url) as url, closing(open_database(url)) as modelled:
        with modelled.write() as connection:
            SQLModel.metadata.create_all(connection)
        assert _details(database) == _details(modelled)


def _details(database: Database) -> dict[str, object]:
    with database.read() as connection:
        found = inspect(connection)
        return {
            table.name: (
                {each["name"]: each for each in found.get_indexes(table.name)},
                {each["name"]: each for each in found.get_unique_constraints(table.name)},
                found.get_pk_constraint(table.name),
            )
            for table in SQLModel.metadata.sorted_tables
        }


def test_two_migrations_at_once_are_one(postgresql_url: str) -> None:
    with fresh_database(postgresql_url) as url:
        databases = [open_database(url) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda each: each.migrate(), databases))
        for each in databases:
            each.check_schema()
            each.close()


def test_a_database_without_tables_is_refused(postgresql_url: str) -> None:
    with fresh_database(postgresql_url) as url:
        database = open_database(url)
        with pytest.raises(SchemaMismatch, match="no tables yet"):
            database.check_schema()
        database.close()


def test_the_store_fixture_is_of_this_engine(store: Store, database: Database) -> None:
    assert database.dialect == "postgresql"


def test_a_submission_that_meets_an_identical_one_at_its_end_is_accepted_anew(
    store: Store, database: Database
) -> None:
    """The one in flight keeps it out, and is settled before it is looked at: held up in between by a lock."""
    submission = a_parsed_submission()
    [first] = store.submit([(submission, "one")])
    assert isinstance(first, Accepted)
    claim = store.claim(first.registration.id, worker="w", lease_s=60, max_attempts=3)
    assert claim is not None
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            connection.execute(text("LOCK TABLE plugins IN ACCESS EXCLUSIVE MODE"))
            answer = pool.submit(store.submit, [(submission, "other")])
            until(lambda: _one_waits_for_a_lock(database), what="the submission between its two statements")
            assert store.reject(claim, ArtifactMissing("It is gone.").failure())
        [second] = answer.result()
    assert isinstance(second, Accepted)
    assert second.new
    assert second.registration.id != first.registration.id


def _one_waits_for_a_lock(database: Database) -> bool:
    with database.read() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.execute(text(waiting)).scalar_one() == 1)
