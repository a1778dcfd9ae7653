"""Our own logic about the queue: how ids become bells, how bells are counted, and that the sweep never floods.

Over kombu's own Redis transport, which talks to a fakeredis in this process; `tests/integration/test_queue.py` asks a
real Valkey the same, and what only a real one can answer.
"""

import base64
import json
import threading
from collections.abc import Iterator

import pytest
import redis
from celery import Celery
from fakeredis import TcpFakeServer
from fakeredis._clients._tcp_server import TCPFakeRequestHandler
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.queues import CLOCK_QUEUE, IDS_PER_BELL, PRUNE_TASK, QUEUE, SWEEP_TASK, celery_app, messages_waiting, ring
from shared.registration import RegistrationId
from shared.settings import read_settings
from shared.store.database import Database
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from worker import sweep as sweeping
from worker.sweep import sweep


class PromptHandler(TCPFakeRequestHandler):
    disable_nagle_algorithm = True  # or each answer waits for 40 ms


@pytest.fixture(scope="module")
def broker() -> Iterator[redis.Redis]:
    """A client of a fakeredis on a port of its own."""
    server = TcpFakeServer(("127.0.0.1", 0))
    server.RequestHandlerClass = PromptHandler
    serving = threading.Thread(target=server.serve_forever, args=(0.01,))
    serving.start()
    client = redis.Redis(port=server.server_address[1])
    yield client
    client.close()
    server.shutdown()
    server.server_close()
    serving.join()


@pytest.fixture(scope="module")
def celery(broker: redis.Redis) -> Iterator[Celery]:
    app = celery_app(
        read_settings(broker_url=f"redis://127.0.0.1:{broker.connection_pool.connection_kwargs['port']}")
    )
    yield app
    app.close()


@pytest.fixture
def app(celery: Celery, broker: redis.Redis) -> Celery:
    broker.flushall()
    return celery


def some_ids(count: int) -> list[RegistrationId]:
    return [RegistrationId(f"registration-{n}") for n in range(count)]


def bells(broker: redis.Redis) -> list[list[str]]:
    """Return the ids in each bell that waits, the first to be taken first."""
    return [
        json.loads(base64.b64decode(json.loads(each)["body"]))[0][0] for each in broker.lrange(QUEUE, 0, -1)[::-1]
    ]


# --- ringing and counting -----------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 31, 32, 33, 64, 65, 1000])
def test_ids_are_rung_for_in_order_and_in_as_few_bells_as_they_fit_in(
    app: Celery, broker: redis.Redis, count: int
) -> None:
    ring(app, some_ids(count))
    rung = bells(broker)
    assert [each for ids in rung for each in ids] == some_ids(count)
    assert [len(ids) for ids in rung[:-1]] == [IDS_PER_BELL] * (len(rung) - 1)
    assert len(rung) == -(-count // IDS_PER_BELL)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(0, 100), max_size=4))
def test_whatever_is_rung_is_counted_and_counting_takes_nothing(
    celery: Celery, broker: redis.Redis, counts: list[int]
) -> None:
    broker.flushall()
    for each in counts:
        ring(celery, some_ids(each))
    rung = bells(broker)
    assert len(rung) == sum(-(-each // IDS_PER_BELL) for each in counts)
    assert messages_waiting(celery) == messages_waiting(celery) == len(rung)
    assert bells(broker) == rung


def test_a_queue_that_does_not_exist_holds_no_bell(app: Celery, broker: redis.Redis) -> None:
    assert messages_waiting(app) == 0


def test_a_bell_that_was_taken_waits_no_longer(app: Celery) -> None:
    ring(app, some_ids(3 * IDS_PER_BELL))
    with app.connection_for_read() as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.get(timeout=5).ack()
        assert messages_waiting(app) == 2


def test_what_the_clock_sends_is_not_counted_among_the_bells(app: Celery, broker: redis.Redis) -> None:
    for task in (SWEEP_TASK, PRUNE_TASK):
        app.send_task(task)
    assert broker.llen(CLOCK_QUEUE) == 2
    assert messages_waiting(app) == 0


# --- the sweep ----------------------------------------------------------------------------------


def swept(app: Celery, store: Store) -> None:
    sweep(store, waiting=lambda: messages_waiting(app), ring=lambda ids: ring(app, ids), max_attempts=5)


@pytest.fixture
def overdue(database: Database, monkeypatch: pytest.MonkeyPatch) -> list[RegistrationId]:
    """Ten bells' worth of registrations that are due, where the queue takes four."""
    monkeypatch.setattr(sweeping, "MAX_WAITING", 4)
    submissions = [(a_parsed_submission(), "tests") for _ in range(10 * IDS_PER_BELL)]
    rung_again_at_once = Store(database, ring_again_after_s=0)
    return [each.registration.id for each in rung_again_at_once.submit(submissions)]  # type: ignore[union-attr]  # new


def test_the_sweep_fills_the_queue_and_never_more_however_often_it_runs(
    app: Celery, database: Database, overdue: list[RegistrationId]
) -> None:
    impatient = Store(database, ring_again_after_s=0)  # for which all are due again at once
    for _ in range(5):
        swept(app, impatient)
        assert messages_waiting(app) == 4


@pytest.mark.parametrize("waiting", [0, 1, 3, 4, 5, 9])
def test_the_sweep_counts_the_bells_that_wait_already(
    app: Celery, broker: redis.Redis, database: Database, overdue: list[RegistrationId], waiting: int
) -> None:
    for _ in range(waiting):
        ring(app, [RegistrationId("registration-other")])  # a bell, however few ids it carries
    swept(app, Store(database, ring_again_after_s=60))
    added = bells(broker)[waiting:]
    assert len(added) == max(0, 4 - waiting)
    rung_for = [each for ids in added for each in ids]
    assert len(rung_for) == len(set(rung_for) & set(overdue)) == len(added) * IDS_PER_BELL


def test_what_found_no_room_is_rung_for_when_there_is_and_nothing_twice(
    app: Celery, broker: redis.Redis, database: Database, overdue: list[RegistrationId]
) -> None:
    patient = Store(database, ring_again_after_s=60)
    taken: list[str] = []
    for _ in range(4):
        swept(app, patient)
        swept(app, patient)  # a second clock does no harm
        taken += [each for ids in bells(broker) for each in ids]
        broker.delete(QUEUE)
    assert sorted(taken) == sorted(overdue)


def test_a_sweep_with_nothing_to_do_sends_nothing(app: Celery, broker: redis.Redis, database: Database) -> None:
    swept(app, Store(database))
    assert broker.keys() == []
