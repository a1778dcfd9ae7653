"""Behind PgBouncer in transaction mode the store keeps its contract: none needs what another transaction left."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from shared.errors import StoreUnavailable
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema, migrate
from shared.store.tokens import SCOPES, Tokens
from tests.conftest import a_parsed_submission
from tests.contracts import OperatorContract, SessionContract, StoreContract, TokenContract, submit
from tests.engines import fresh_database
from tests.event_contracts import EventContract, WebhookContract
from tests.pooler import pgbouncer
from tests.stores import emptied_postgresql_store

pytestmark = pytest.mark.program("pgbouncer")
LIMITS = {
    "lock_timeout": "5s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "10s",
}


@pytest.fixture(scope="module")
def through(postgresql_url: str) -> Iterator[Callable[[str], str]]:
    """Lead a URL through PgBouncer as it comes."""
    with pgbouncer(postgresql_url) as through:
        yield through


@pytest.fixture
def database(postgresql_url: str, through: Callable[[str], str]) -> Iterator[Database]:
    with emptied_postgresql_store(postgresql_url) as url, closing(open_database(through(url))) as database:
        yield database


@pytest.mark.faults_long  # .ci/run asks for it
class TestThroughPgBouncer(
    StoreContract, OperatorContract, TokenContract, SessionContract, EventContract, WebhookContract
):
    """The contract, on PostgreSQL behind a pooler."""


def test_migrations_at_once_are_one_behind_a_pooler_too(postgresql_url: str, through: Callable[[str], str]) -> None:
    with fresh_database(postgresql_url) as url:
        databases = [open_database(through(url)) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(migrate, databases))
        for each in databases:
            check_schema(each)
            each.close()


def test_a_few_servers_for_many_connections_mix_nobody_up(postgresql_url: str) -> None:
    """A statement that one connection prepared would be met by another, and its values be bound to that."""
    with (
        emptied_postgresql_store(postgresql_url) as url,
        pgbouncer(postgresql_url, "default_pool_size = 2") as through,
        closing(open_database(through(url), connections=10)) as database,
        ThreadPoolExecutor(10) as pool,
    ):
        tokens = Tokens(database)
        made = [tokens.create(f"token {number}", SCOPES) for number in range(20)]

        def work(number: int) -> str | None:
            found = tokens.authenticate(made[number % 20].text)
            submit(Store(database), a_parsed_submission())
            return found.id if found else None

        assert list(pool.map(work, range(200))) == [made[number % 20].id for number in range(200)]


def test_prepared_statements_are_for_connections_without_a_pooler(
    postgresql_url: str, through: Callable[[str], str]
) -> None:
    with emptied_postgresql_store(postgresql_url) as url:
        for leads, prepared in ((url, True), (through(url), False)):
            with closing(open_database(leads)) as database:
                for _ in range(10):
                    submit(Store(database), a_parsed_submission())
                with database.read() as connection:
                    wire: Any = connection.connection.driver_connection
                    assert bool(wire.prepare_threshold) is prepared
                    found = connection.exec_driver_sql("SELECT count(*) FROM pg_prepared_statements").scalar_one()
                    assert bool(found) is prepared


@pytest.mark.parametrize("pooled", [False, True], ids=["straight", "through PgBouncer"])
def test_each_transaction_brings_its_limits_and_leaves_none_behind(
    postgresql_url: str, through: Callable[[str], str], pooled: bool
) -> None:
    with (
        emptied_postgresql_store(postgresql_url) as url,
        closing(open_database(through(url) if pooled else url, connections=1)) as database,
    ):
        for _ in range(2):
            with database.write() as connection:
                assert _limits(connection) == LIMITS
            with database.read() as connection:
                assert _limits(connection) == dict.fromkeys(LIMITS, "0")
        with database.write(patient=True) as connection:
            assert _limits(connection) == dict.fromkeys(LIMITS, "0")


def test_options_of_the_operators_own_are_merged_with_ours(postgresql_url: str) -> None:
    with emptied_postgresql_store(postgresql_url) as url:
        own = f"{url}&options=-c%20statement_timeout%3D7s%20-c%20work_mem%3D5MB&connect_timeout=9&keepalives_idle=77"
        with closing(open_database(own)) as database, database.write() as connection:
            assert _limits(connection) == LIMITS | {"statement_timeout": "7s"}
            assert connection.exec_driver_sql("SHOW work_mem").scalar_one() == "5MB"
            wire: Any = connection.connection.driver_connection
            given = wire.info.get_parameters()
            assert (given["connect_timeout"], given["keepalives_idle"]) == ("9", "77")


def test_where_a_pooler_ignores_options_they_have_no_effect_and_do_no_harm(postgresql_url: str) -> None:
    with (
        emptied_postgresql_store(postgresql_url) as url,
        pgbouncer(postgresql_url, "ignore_startup_parameters = options") as through,
    ):
        for leads in (through(url), f"{through(url)}?options=-c%20work_mem%3D5MB"):
            with closing(open_database(leads)) as database:
                assert submit(Store(database), a_parsed_submission())
                with database.write() as connection:
                    assert _limits(connection) == LIMITS


def test_where_a_pooler_refuses_options_the_store_is_unavailable(
    postgresql_url: str, through: Callable[[str], str]
) -> None:
    with (
        emptied_postgresql_store(postgresql_url) as url,
        closing(open_database(f"{through(url)}?options=-c%20work_mem%3D5MB")) as database,
        pytest.raises(StoreUnavailable),
    ):
        check_schema(database)


def _limits(connection: Any) -> dict[str, str]:
    return {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in LIMITS}
