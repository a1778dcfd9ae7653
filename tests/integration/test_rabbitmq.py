"""RabbitMQ as the broker, where one is reachable: quorum queues, counted and confirmed, served by a worker."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from shared.queues import CLOCK_QUEUE, IDS_PER_BELL, QUEUE, celery_app, messages_waiting, ring
from shared.registration import RegistrationId, Status
from shared.settings import read_settings
from shared.store.database import Database
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission, amqp_url, open_loopback
from tests.contracts import now, submit
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, clean_environment, until

pytestmark = pytest.mark.rabbitmq


@pytest.fixture
def rabbitmq() -> Iterator[Celery]:
    app = celery_app(read_settings(broker_url=amqp_url()))
    _delete_queues(app)
    yield app
    _delete_queues(app)


def _delete_queues(app: Celery) -> None:
    with app.connection_for_write() as connection:
        for queue in (QUEUE, CLOCK_QUEUE):
            connection.channel().queue_delete(queue)  # type: ignore[attr-defined]  # the stubs lack it


def test_bells_wait_in_a_quorum_queue_and_are_counted(rabbitmq: Celery) -> None:
    assert messages_waiting(rabbitmq) == 0
    ring(rabbitmq, [RegistrationId(f"registration-{n}") for n in range(2 * IDS_PER_BELL + 1)])
    until(lambda: messages_waiting(rabbitmq) == 3, what="three bells")
    declared = next(queue for queue in rabbitmq.conf.task_queues if queue.name == QUEUE)
    assert declared.queue_arguments == {"x-queue-type": "quorum"}


def test_a_worker_verifies_what_is_rung_for_over_rabbitmq(
    rabbitmq: Celery, database: Database, store: Store, origin: Origin, tmp_path: Path
) -> None:
    served = Served(body=b"over rabbitmq" * 100)
    registration = submit(store, a_parsed_submission(artifactUrl=origin.serve(served), checksum=served.checksum))
    environment = clean_environment(
        {
            **open_loopback(origin.port),
            "REGISTRY_DATABASE_URL": f"sqlite:///{tmp_path / 'registry.db'}",
            "REGISTRY_BROKER_URL": amqp_url(),
        }
    )
    command = [sys.executable, "-m", "celery", "--quiet", "--app", "worker.main", "worker", "--pool", "threads"]
    with subprocess.Popen(
        [*command, "--concurrency", "4", "--without-gossip", "--without-mingle"],
        env=environment,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:

            def rung_and_registered() -> bool:
                ring(rabbitmq, [registration.id])  # again and again, as the sweep does: the queue was just deleted
                time.sleep(0.2)
                return now(store, registration.id).status is Status.REGISTERED

            until(rung_and_registered, what="the record")
            assert len(served.requests) == 1
        finally:
            worker.terminate()
            worker.wait(PATIENCE_S)
