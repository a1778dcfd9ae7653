"""Whoever waits for outcomes is told that there may be one, on either store, and never waits for a lost hint."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote_plus

import psycopg
import pytest
from sqlalchemy import text

from shared.registration import Operator
from shared.store import changes as changes_module
from shared.store.changes import Changes, PostgresqlChanges, changes_of
from shared.store.database import Database, open_database
from shared.store.postgresql import connecting
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import WRONG, claim, digest_of, register, reject, submit
from tests.stores import a_store, emptied_postgresql_store, sqlite_store

ENDS: dict[str, Callable[[Store, Store], object]] = {
    "registered": lambda store, _: _registered(store),
    "rejected": lambda store, _: reject(store, claim(store, submit(store, a_parsed_submission())), WRONG),
    "canceled": lambda store, _: store.cancel(submit(store, a_parsed_submission()).id, Operator("tests", "tests")),
    "failed by the sweep": lambda store, impatient: (
        claim(store, submit(store, a_parsed_submission()), lease_s=0),
        impatient.fail_used_up(1),
    ),
}


def _registered(store: Store) -> None:
    claimed = claim(store, submit(store, a_parsed_submission()))
    register(store, claimed, digest_of(claimed.submission))


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, postgresql_url: str) -> Iterator[str]:
    if request.param == "sqlite":
        yield sqlite_store(tmp_path / "registry.db")
        return
    with emptied_postgresql_store(postgresql_url) as url:
        yield url


@pytest.fixture
def ours(url: str) -> Iterator[Database]:
    """The database as the api's process has it."""
    database = open_database(url)
    yield database
    database.close()


@pytest.fixture
def theirs(url: str) -> Iterator[Database]:
    """The database as a worker's process has it."""
    database = open_database(url)
    yield database
    database.close()


async def listening(changes: Changes) -> "asyncio.Task[None]":
    """Listen; return once what is told arrives."""
    running = asyncio.create_task(changes.run())
    async with asyncio.timeout(20):
        while changes.version() < 0:
            await asyncio.sleep(0.01)
    return running


@pytest.mark.parametrize("ends", ENDS)
def test_whatever_ends_a_registration_is_a_change(ours: Database, theirs: Database, ends: str) -> None:
    store, impatient = Store(theirs), Store(theirs, ring_again_after_s=0)

    async def story() -> None:
        changes = changes_of(ours)
        running = await listening(changes)
        before = changes.version()
        told: list[int] = []
        changes.when_told(lambda: told.append(changes.version()))
        await asyncio.to_thread(ENDS[ends], store, impatient)
        async with asyncio.timeout(20):
            while changes.version() == before:
                await asyncio.sleep(0.001)
        assert changes.version() >= 0, "told, and no guess"
        assert bool(told) is (ours.dialect == "postgresql")
        running.cancel()
        changes.close()

    asyncio.run(story())


def test_while_nothing_happens_there_is_no_change(ours: Database) -> None:
    async def story() -> None:
        changes = changes_of(ours)
        running = await listening(changes)
        await asyncio.sleep(0.1)
        before = changes.version()
        await asyncio.sleep(0.3)
        assert changes.version() == before
        running.cancel()
        changes.close()

    asyncio.run(story())


@pytest.fixture
def on_postgresql(postgresql_url: str) -> Iterator[Database]:
    with a_store("postgresql", Path(), postgresql_url) as database:
        yield database


def test_where_what_is_told_does_not_arrive_the_clock_says_maybe(
    on_postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As through a pooler that gives each transaction another connection."""
    monkeypatch.setattr(changes_module, "PROVEN_WITHIN_S", 0.2)
    monkeypatch.setattr(changes_module, "CHANNEL", "another")

    async def story() -> None:
        changes = PostgresqlChanges(on_postgresql)

        async def lost() -> None:
            """Tell, and nothing arrives."""

        monkeypatch.setattr(changes, "_try", lost)
        running = asyncio.create_task(changes.run())
        for _round in range(3):
            before = changes.version()
            await asyncio.sleep(0.3)
            assert changes.version() < 0, "a guess"
            assert changes.version() != before, "and another one each time"
        running.cancel()

    asyncio.run(story())


def test_a_connection_that_is_lost_is_made_again_and_nobody_waits_for_it_meanwhile(
    on_postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes_module, "AGAIN_S", 0.3)

    async def story() -> None:
        changes = changes_of(on_postgresql)
        running = await listening(changes)
        with on_postgresql.write() as connection:
            connection.execute(
                text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            )
        async with asyncio.timeout(20):
            while changes.version() >= 0:
                await asyncio.sleep(0.01)
            while changes.version() < 0:
                await asyncio.sleep(0.01)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(story())


@pytest.mark.parametrize("name", ["a b", "p%40ss+word", "odd%20name"])
def test_a_listener_connects_as_the_pool_does_however_its_url_is_spelt(postgresql_url: str, name: str) -> None:
    url = f"{postgresql_url}&application_name={name.replace(' ', '%20')}"

    async def story() -> str:
        database = open_database(url)
        async with await psycopg.AsyncConnection.connect(**connecting(database.engine)) as connection:
            told = await (await connection.execute("SHOW application_name")).fetchone()
        with database.read() as pooled:
            assert told == tuple(pooled.exec_driver_sql("SHOW application_name").one())
        database.close()
        assert told is not None
        return str(told[0])

    assert asyncio.run(story()) == unquote_plus(name.replace("+", "%2B") if "%20" in name else name)


def test_a_sqlite_file_that_cannot_be_asked_says_maybe(tmp_path: Path) -> None:
    database = open_database(f"sqlite:///{tmp_path / 'not-there.db'}")
    changes = changes_of(database)
    assert changes.version() < 0
    assert not (tmp_path / "not-there.db").exists(), "and none is made"
    database.close()
