"""PostgreSQL keeps the same contract as SQLite, and the same migrations make it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from shared.database import Database, SchemaMismatch, open_database
from shared.store import Store
from tests.contracts import StoreContract, TokenContract
from tests.engines import fresh_database


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with fresh_database(postgresql_url) as url:
        database = open_database(url)
        database.migrate()
        yield database
        database.close()


class TestPostgreSQL(StoreContract, TokenContract):
    """The contract, on PostgreSQL."""


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
