"""RabbitMQ that is killed, silent, empty, or reached over a link that has died, while clients submit."""

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import quantiles

import pytest
from kombu.exceptions import OperationalError

from shared.queues import celery_app, ring
from shared.registration import RegistrationId, Submission
from shared.settings import read_settings
from shared.store.database import open_database
from shared.store.registrations import Store
from tests.conftest import amqp_url
from tests.contracts import submit
from tests.faults.brokers import CONSUMER_TIMEOUT_S, OwnRabbitMQ, RabbitMQ
from tests.faults.cluster import THREADS, Cluster, Truth, all_at_once
from tests.faults.load import clients_submitting, every_worker_settles
from tests.faults.proxy import Proxy, proxy_to_port
from tests.faults.shown import Shown
from tests.running import until

pytestmark = pytest.mark.rabbitmq

AWAY = ("broker away, it is waited for", "broker away, beat goes on trying", "broker away, the sweep will ring")
PROMISED_ANSWER_S = 1.0
HEARTBEATS_S = 25
"""Longer than any time limit of a client, and than the two heartbeats that RabbitMQ waits for."""


def slow_answer_s(cluster: Cluster) -> float:
    """Return within what time nine of ten submissions were answered; the machine may be busy with something else."""
    answers = cluster.history.answers
    return quantiles([each.told_at - each.asked_at for each in answers if each.submission is not None], n=10)[-1]


def submit_without_a_bell(cluster: Cluster, truth: Truth) -> str:
    """Submit what only the sweep can find, and so only if beat and a worker reach the broker; return its id."""
    database = open_database(cluster.database_url)
    try:
        return submit(Store(database), Submission.model_validate(truth.artifact()[0])).id
    finally:
        database.close()


def pids(cluster: Cluster) -> list[int]:
    return [cluster.process(name).pid for name in cluster.workers]


@pytest.mark.faults_long
def test_rabbitmq_killed_under_load_delays_no_answer_and_workers_resume_when_it_is_back(
    own_rabbitmq_cluster: Cluster, truth: Truth
) -> None:
    cluster, workers = own_rabbitmq_cluster, pids(own_rabbitmq_cluster)
    with clients_submitting(cluster, truth) as ids:
        every_worker_settles(cluster)
        cluster.kill("broker")
        told = len(ids)
        until(lambda: len(ids) > told + 50, what="submissions while it is gone")
        cluster.start_broker()
        every_worker_settles(cluster)
    cluster.until_final()
    assert pids(cluster) == workers
    assert slow_answer_s(cluster) < PROMISED_ANSWER_S
    cluster.check(*ids)


@pytest.mark.faults_long
def test_rabbitmq_stopped_under_load_delays_no_answer_and_workers_resume_when_it_goes_on(
    own_rabbitmq_cluster: Cluster, truth: Truth
) -> None:
    cluster, workers = own_rabbitmq_cluster, pids(own_rabbitmq_cluster)
    with clients_submitting(cluster, truth) as ids:
        every_worker_settles(cluster)
        with cluster.suspended("broker"):
            time.sleep(HEARTBEATS_S)
        every_worker_settles(cluster)
    cluster.until_final()
    assert pids(cluster) == workers
    assert slow_answer_s(cluster) < PROMISED_ANSWER_S
    cluster.check(*ids)


@pytest.mark.faults_long
def test_links_to_rabbitmq_that_died_in_silence_delay_no_answer_and_are_replaced(
    rabbitmq_cluster: Cluster, rabbitmq_link: Proxy, truth: Truth
) -> None:
    cluster, workers = rabbitmq_cluster, pids(rabbitmq_cluster)
    with clients_submitting(cluster, truth) as ids:
        every_worker_settles(cluster)
        severed = len(rabbitmq_link.wires)
        rabbitmq_link.sever()
        time.sleep(2)  # what had been told of before is settled
        every_worker_settles(cluster)
        assert len(rabbitmq_link.wires) > severed, "they came back over new connections"
    unrung = submit_without_a_bell(cluster, truth)
    cluster.until_final()
    assert pids(cluster) == workers
    assert slow_answer_s(cluster) < PROMISED_ANSWER_S
    cluster.check(*ids, unrung)


@pytest.mark.faults_long
@pytest.mark.parametrize("lose", [RabbitMQ.flush, RabbitMQ.delete_queues])
def test_bells_that_rabbitmq_lost_are_rung_again_by_the_sweep(
    own_rabbitmq_cluster: Cluster, truth: Truth, lose: Callable[[RabbitMQ], None]
) -> None:
    cluster, broker = own_rabbitmq_cluster, own_rabbitmq_cluster.broker
    assert isinstance(broker, RabbitMQ)
    app = celery_app(read_settings(broker_url=broker.url))
    with cluster.suspended("worker-1"), cluster.suspended("worker-2"), cluster.suspended("beat"):
        with suppress(OperationalError):  # over a connection that an earlier test has left behind
            ring(app, [RegistrationId("no id at all")])
        for _ in range(len(cluster.workers) * THREADS):  # as many as RabbitMQ hands to workers unasked
            ring(app, [RegistrationId("no id at all")])
        ids = all_at_once(cluster.client.accepted, truth.submissions(100))
        until(cluster.bells_waiting, what="bells in the broker")
        lose(broker)
        assert len(cluster.in_flight()) == 100
    cluster.until_final()
    cluster.check(*ids)


@pytest.mark.faults_long
def test_a_bell_is_acknowledged_in_time_however_much_waits(own_rabbitmq_cluster: Cluster, truth: Truth) -> None:
    """O4: RabbitMQ closes who holds a message for 15 s; what is submitted here takes three times as long."""
    cluster = own_rabbitmq_cluster
    for name in list(cluster.workers):
        cluster.kill(name)
        cluster.spawn_worker(name, REGISTRY_MAX_DOWNLOADS_PER_HOST="2")
        cluster.wait_for_worker(name)
    workers = pids(cluster)
    ids = [cluster.client.accepted(truth.slow_artifact(6)[0]) for _ in range(30)]
    assert 2 * CONSUMER_TIMEOUT_S < 30 * 6 / 4, "workers, slots and seconds"
    cluster.until_final()
    assert pids(cluster) == workers
    for each in ids:
        found = cluster.client.look(each)
        assert (found["status"], found["attempts"]) == ("registered", 1)


def test_a_ring_over_a_link_that_died_in_silence_fails_soon_and_the_next_is_heard(
    closing: Callable[[Proxy], Proxy],
) -> None:
    rabbitmq = RabbitMQ(amqp_url())
    own_link = closing(proxy_to_port(rabbitmq.port))
    app = celery_app(read_settings(broker_url=rabbitmq.through(own_link.port)))
    ring(app, [RegistrationId("registration-0")])
    for wire in own_link.wires:
        wire.dead = True
    started = time.monotonic()
    with pytest.raises(OperationalError):
        ring(app, [RegistrationId("registration-1")])
    assert time.monotonic() - started < 60, "confirmed within 5 s or not at all"
    ring(app, [RegistrationId("registration-2")])


Command = tuple[str, ...]
EVERYTHING: Command = ("set_permissions", "guest", ".*", ".*", ".*")
TROUBLES: dict[str, tuple[Command, list[Command]]] = {
    "BLOCKED low on memory": (
        ("set_vm_memory_high_watermark", "0"),
        [("set_vm_memory_high_watermark", "0.4")],
    ),
    "BLOCKED low on disk": (("set_disk_free_limit", "100000GB"), [("set_disk_free_limit", "50MB")]),
    "NOT_ALLOWED - access to vhost": (("clear_permissions", "guest"), [EVERYTHING]),
    "NOT_ALLOWED - vhost": (("delete_vhost", "/"), [("add_vhost", "/"), EVERYTHING]),
}
"""What befalls RabbitMQ, by the reason it gives, and how that is mended."""


@pytest.mark.faults_long
@pytest.mark.parametrize("reason", TROUBLES)
def test_a_trouble_of_rabbitmqs_is_named_and_waited_for(
    own_rabbitmq_cluster: Cluster, truth: Truth, reason: str
) -> None:
    """O3. Alarms let workers take what waits, and nobody send; the others keep everybody out."""
    cluster, broker, (befall, mend) = own_rabbitmq_cluster, own_rabbitmq_cluster.broker, TROUBLES[reason]
    assert isinstance(broker, OwnRabbitMQ)
    shown, before = Shown(cluster), pids_of(cluster)
    word = reason.partition(" ")[0]  # the rest may be another in the very moment
    alarm, said = word == "BLOCKED", {name: told(cluster, name, word) for name in before}
    ids = [cluster.client.accepted(each) for each in truth.submissions(5)]
    broker.control(*befall)
    if not alarm:
        broker.control("close_all_connections", "the test")
    ids += [cluster.client.accepted(each) for each in truth.submissions(5)]
    shown.all_say(f"The broker refuses writes: {reason}", lambda: shown.metric("broker_up") == 0)
    assert shown.snapshot()["brokerReason"].startswith(reason)
    cluster.spawn_worker("late")
    for name in before if not alarm else ("api", "beat"):
        until(partial(tells, cluster, name, word, said[name] + 1), what=f"{word} from {name}")
    for each in mend:
        broker.control(*each)
    cluster.wait_for_worker("late")
    every_worker_settles_something(cluster, truth)
    cluster.until_final()
    until(lambda: shown.metric("broker_up") == 1, what="that it is back")
    assert before.items() <= pids_of(cluster).items(), "nobody ended"
    cluster.check(*ids)


def pids_of(cluster: Cluster) -> dict[str, int]:
    return {name: cluster.process(name).pid for name in ("api", "beat", *cluster.workers)}


def tells(cluster: Cluster, name: str, word: str, times: int) -> bool:
    return told(cluster, name, word) >= times


def told(cluster: Cluster, name: str, word: str) -> int:
    """Return how often a process told that the broker is away by its *word*."""
    reasons = [each["reason"] for event in AWAY for each in cluster.events(name, event)]
    return sum(each.startswith(word) for each in reasons)


def every_worker_settles_something(cluster: Cluster, truth: Truth) -> None:
    """Submit until each worker has settled something."""
    with clients_submitting(cluster, truth):
        every_worker_settles(cluster)
