"""PostgreSQL keeps the same contract as SQLite, and the same migrations make it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DataError
from sqlmodel import SQLModel

from shared.errors import ArtifactMissing
from shared.registration import Accepted, Claim, Progress, Settlement, Status
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema, migrate
from tests.conftest import a_parsed_submission
from tests.contracts import (
    OperatorContract,
    SessionContract,
    StoreContract,
    TokenContract,
    claim,
    claim_as_a_group,
    digest_of,
    register,
    register_as_a_group,
    reject,
    submit,
)
from tests.engines import fresh_database
from tests.event_contracts import EventContract, WebhookContract
from tests.running import until
from tests.stores import emptied_postgresql_store, newer_release


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with emptied_postgresql_store(postgresql_url) as url, closing(open_database(url)) as database:
        yield database


class TestPostgreSQL(StoreContract, OperatorContract, TokenContract, SessionContract, EventContract, WebhookContract):
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
            list(pool.map(migrate, databases))
        for each in databases:
            check_schema(each)
            each.close()


def test_a_transaction_that_ends_badly_leaves_nothing_behind(store: Store, database: Database) -> None:
    """We begin it ourselves, with its limits: had that not worked, each statement would be for good."""
    mark = text("INSERT INTO marks (name, at) VALUES ('half', 1)")
    with pytest.raises(KeyError), database.write() as connection:  # noqa: PT012
        connection.execute(mark)
        raise KeyError
    with database.write() as connection:
        connection.execute(mark)  # the first would be in its way


def test_a_migration_that_ends_badly_leaves_nothing_behind(database: Database, tmp_path: Path) -> None:
    with newer_release(tmp_path, "CREATE TABLE half (id VARCHAR); SELECT 1 / 0"), pytest.raises(DataError):
        migrate(database)
    check_schema(database)
    with database.read() as connection:
        assert not inspect(connection).has_table("half")


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
            assert reject(store, claim, ArtifactMissing("It is gone.").failure())
        [second] = answer.result()
    assert isinstance(second, Accepted)
    assert second.new
    assert second.registration.id != first.registration.id


@pytest.fixture
def high_and_low(store: Store) -> tuple[Claim, Claim]:
    """Two claims, of which the one with the higher id was made, and so is stored, before the other."""
    low, high = (submit(store, a_parsed_submission()) for _ in range(2))
    assert low.id < high.id
    return claim(store, high), claim(store, low)


def test_a_group_of_claims_does_not_wait_for_one_that_is_locked(store: Store, database: Database) -> None:
    locked, free = (submit(store, a_parsed_submission()) for _ in range(2))
    with database.write() as connection:
        assert _lock(connection, locked.id)
        claims = claim_as_a_group(store, locked, free)
    assert [each and each.registration_id for each in claims] == [None, free.id]
    assert store.claim(locked.id, worker="w", lease_s=60, max_attempts=3) is not None


@pytest.mark.parametrize("write", ["renew", "register"])
def test_several_claims_are_locked_in_the_order_of_their_ids(
    store: Store, database: Database, high_and_low: tuple[Claim, Claim], write: str
) -> None:
    high, low = high_and_low
    progress = [Progress(each.registration_id, each.epoch, 1, None) for each in high_and_low]
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            assert _lock(connection, low.registration_id)
            writing = (
                pool.submit(store.renew, progress, lease_s=60)
                if write == "renew"
                else pool.submit(register_as_a_group, store, high, low)
            )
            until(lambda: _one_waits_for_a_lock(database), what="a write that waits for the first of its rows")
            with database.write() as other:
                assert _lock(other, high.registration_id)
        assert len(writing.result()) == 2


def test_a_group_takes_its_names_in_one_order(store: Store, database: Database) -> None:
    late, early = (a_parsed_submission(name=name) for name in ("The last", "A first"))
    ours = [claim(store, submit(store, each)) for each in (late, early)]
    rivals = [
        claim(store, submit(store, each.model_copy(update={"plugin_runtime": "python"}))) for each in (late, early)
    ]
    with ThreadPoolExecutor(1) as pool:
        with database.write() as connection:
            early_rival = Settlement.registered(rivals[1], digest_of(early))
            assert store._settle(connection, [early_rival]) == [Status.REGISTERED]
            group = pool.submit(register_as_a_group, store, *ours)
            until(lambda: _one_waits_for_a_lock(database), what="a group that waits for the first of its names")
            assert register(Store(database), rivals[0]) is Status.REGISTERED
        assert group.result() == [Status.REJECTED, Status.REJECTED]


def _lock(connection: Connection, registration_id: str) -> bool:
    """Lock a registration until the transaction ends; return whether nobody else had."""
    locking = text("SELECT id FROM registrations WHERE id = :id FOR UPDATE SKIP LOCKED")
    return connection.execute(locking, {"id": registration_id}).first() is not None


def _one_waits_for_a_lock(database: Database) -> bool:
    with database.read() as connection:
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(connection.execute(text(waiting)).scalar_one() == 1)
