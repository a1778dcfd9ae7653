"""Nobody waits for ever for a PostgreSQL that hangs, and whoever leaves waits no longer at all."""

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from sqlalchemy import text

from api.live.in_time import in_time
from shared.errors import StoreUnavailable
from shared.store import postgresql
from shared.store.changes import PostgresqlChanges
from shared.store.database import Database, open_database
from shared.store.schema import check_schema
from tests.faults.proxy import Proxy, proxy_to_database
from tests.running import until
from tests.stores import emptied_postgresql_store

SLEEP = text("SELECT pg_sleep(600)")


@pytest.fixture
def link(postgresql_url: str) -> Iterator[tuple[Proxy, Database]]:
    """A store, and the link to it."""
    with emptied_postgresql_store(postgresql_url) as url:
        proxy, through = proxy_to_database(url)
        with closing(open_database(through)) as database:
            yield proxy, database
        proxy.close()


@pytest.fixture
def database(postgresql_url: str) -> Iterator[Database]:
    with emptied_postgresql_store(postgresql_url) as url, closing(open_database(url)) as database:
        yield database


@pytest.mark.parametrize("pause_s", [0, postgresql.PAUSE_S + 0.1], ids=["just used", "after a pause"])
def test_a_server_that_says_nothing_is_given_up_and_used_again_when_it_is_well(
    link: tuple[Proxy, Database], monkeypatch: pytest.MonkeyPatch, pause_s: float
) -> None:
    for limit in ("ANSWER_WITHIN_S", "PING_WITHIN_S", "BUSY_WITHIN_S"):
        monkeypatch.setattr(postgresql, limit, 0.3)
    proxy, database = link
    check_schema(database)
    time.sleep(pause_s)
    proxy.hold()
    for _ in range(2):  # the second has to connect
        with pytest.raises(StoreUnavailable, match="did not answer within"):
            check_schema(database)
    proxy.release()
    monkeypatch.undo()
    check_schema(database)


def test_a_statement_that_is_given_up_does_not_go_on(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads alone has no timeout of the server's."""
    monkeypatch.setattr(postgresql, "ANSWER_WITHIN_S", 0.3)
    with pytest.raises(StoreUnavailable), database.read() as connection:
        connection.execute(SLEEP)
    monkeypatch.undo()
    until(lambda: not _sleeping(database), what="the end of the statement at the server")


def test_a_migration_takes_as_long_as_it_takes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgresql, "ANSWER_WITHIN_S", 0.1)
    with database.write(patient=True) as connection:
        connection.execute(text("SELECT pg_sleep(0.4)"))


def test_whoever_leaves_waits_no_longer_and_connects_no_more(database: Database) -> None:
    def wait() -> None:
        with database.write() as connection:
            connection.execute(text("SET LOCAL statement_timeout = '3s'"))  # the server does not hear that we left
            connection.execute(SLEEP)

    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(wait) for _ in range(2)]
        until(lambda: _sleeping(database) == 2, what="two that wait")
        database.give_up(after_s=0)
        for each in waiting:
            with pytest.raises(StoreUnavailable):
                each.result()
    with pytest.raises(StoreUnavailable, match="this process leaves"):
        check_schema(database)


def test_a_listener_that_is_owed_an_answer_ends_when_it_is_closed(link: tuple[Proxy, Database]) -> None:
    """psycopg would try to cancel first, for five seconds, and then wait for five more."""
    proxy, database = link

    async def story() -> None:
        changes = PostgresqlChanges(database)
        proxy.hold()
        running = asyncio.create_task(changes.run())
        while not proxy.held:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        changes.close()
        running.cancel()
        done, _pending = await asyncio.wait({running}, timeout=4)
        assert done

    asyncio.run(story())


def test_who_asks_is_told_in_time_that_the_store_is_away() -> None:
    async def story() -> None:
        with pytest.raises(StoreUnavailable):
            await in_time(asyncio.sleep(60), 0.01)
        with pytest.raises(TimeoutError):  # somebody else's
            await in_time(asyncio.wait_for(asyncio.sleep(60), 0.01), 30)
        assert await in_time(asyncio.sleep(0, "there"), 30) == "there"

    asyncio.run(story())


def _sleeping(database: Database) -> int:
    asking = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE query = :query AND state = 'active' AND datname = current_database()"
    )
    with database.read() as connection:
        return int(connection.execute(text(asking), {"query": str(SLEEP)}).scalar_one())
