"""A broker that is gone, silent, empty, or reached over a link that has died; and bells that are lost or doubled."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from statistics import median

import pytest

from tests.faults.cluster import Cluster, Truth, all_at_once
from tests.faults.proxy import Proxy, proxy_to_port
from tests.running import until

PROMISED_ANSWER_S = 1.0
AWAY, BACK = "broker away, it is waited for", "broker back"


@contextmanager
def refused(cluster: Cluster) -> Iterator[None]:
    cluster.kill("broker")
    yield
    cluster.start_broker()


def black_holed(cluster: Cluster) -> AbstractContextManager[None]:
    return cluster.suspended("broker")


@pytest.mark.parametrize("away", [refused, black_holed])
def test_without_a_broker_a_submission_is_accepted_within_a_second_and_verified_when_it_is_back(
    cluster: Cluster, truth: Truth, away: Callable[[Cluster], AbstractContextManager[None]]
) -> None:
    with away(cluster):
        answers = [cluster.client.submit(each) for each in truth.submissions(10)]
        assert {answer.status_code for answer in answers} == {202}
        assert median(answer.elapsed.total_seconds() for answer in answers) < PROMISED_ANSWER_S, (
            "a busy machine or not"
        )
    cluster.until_final()
    cluster.check(*(answer.json()["id"] for answer in answers))


def test_a_broker_that_forgets_five_hundred_bells_loses_no_registration(cluster: Cluster, truth: Truth) -> None:
    with cluster.suspended("worker-1"), cluster.suspended("worker-2"):
        ids = all_at_once(cluster.client.accepted, truth.submissions(500))
        until(cluster.bells_waiting, what="bells in the broker")
        cluster.flush()
        assert len(cluster.in_flight()) == 500
    cluster.until_final()
    cluster.check(*ids)


def test_workers_resume_by_themselves_when_their_broker_was_killed_and_is_back(
    cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    """They hold bells when it goes: of downloads that end before it is back, and of some that end after."""
    workers = [cluster.process(name).pid for name in cluster.workers]
    held = [truth.artifact(gate=gate) for _ in range(20)]
    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in held])
    until(lambda: all(artifact.requests for _, artifact in held), what="every download being under way")
    ids += all_at_once(cluster.client.accepted, [truth.slow_artifact(0.5)[0] for _ in range(20)])
    cluster.kill("broker")
    ids += all_at_once(cluster.client.accepted, truth.submissions(50))
    cluster.start_broker()
    until(lambda: all(cluster.listens(name) for name in cluster.workers), what="every worker back")
    gate.set()
    cluster.until_final()
    ids += all_at_once(cluster.client.accepted, truth.submissions(20))
    cluster.until_final()
    assert [cluster.process(name).pid for name in cluster.workers] == workers
    cluster.check(*ids)


def test_workers_in_the_middle_of_downloads_live_on_while_their_broker_is_away(
    cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    workers = [cluster.process(name).pid for name in cluster.workers]
    artifacts = [truth.artifact(gate=gate) for _ in range(20)]
    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in artifacts])
    until(lambda: all(artifact.requests for _, artifact in artifacts), what="every download under way")
    until(lambda: not any(_misses_it(cluster, name) for name in cluster.workers), what="all being well")
    cluster.kill("broker")
    until(lambda: all(_misses_it(cluster, name) for name in cluster.workers), what="every worker noticing")
    gate.set()
    cluster.until_final()
    cluster.start_broker()
    until(lambda: all(cluster.listens(name) for name in cluster.workers), what="every worker back")
    assert [cluster.process(name).pid for name in cluster.workers] == workers
    cluster.check(*ids)
    assert {cluster.client.look(each)["attempts"] for each in ids} == {1}, "no download was broken off"


def _misses_it(cluster: Cluster, name: str) -> bool:
    """Whether a worker has told that the broker is away, and not that it is back."""
    last = {
        event: max((each["timestamp"] for each in cluster.events(name, event)), default="") for event in (AWAY, BACK)
    }
    return last[AWAY] > last[BACK]


@pytest.mark.faults_long
def test_a_worker_that_is_connecting_stops_when_told_to_and_puts_its_downloads_back(
    cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    artifacts = [truth.artifact(gate=gate) for _ in range(4)]
    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in artifacts])
    until(lambda: all(artifact.requests for _, artifact in artifacts), what="every download under way")
    until(lambda: not any(_misses_it(cluster, name) for name in cluster.workers), what="all being well")
    cluster.kill("broker")
    until(lambda: all(_misses_it(cluster, name) for name in cluster.workers), what="every worker noticing")
    cluster.stop(*cluster.workers)
    assert [cluster.wait(name) for name in cluster.workers] == [0, 0]
    found = [cluster.client.look(each) for each in ids]
    assert {(each["status"], each["attempts"]) for each in found} == {("queued", 0)}, "put back, at no cost"
    gate.set()
    cluster.heal(*cluster.workers)
    cluster.until_final()
    cluster.check(*ids)


@pytest.mark.faults_long
def test_workers_resume_when_their_broker_was_stopped_for_longer_than_they_wait(
    cluster: Cluster, truth: Truth
) -> None:
    with cluster.suspended("broker"):
        ids = all_at_once(cluster.client.accepted, truth.submissions(20))
        until(lambda: _noticed(cluster), what="a worker or beat noticing")
    cluster.until_final()
    until(lambda: all(cluster.listens(name) for name in cluster.workers), what="every worker back")
    cluster.check(*ids)


def _noticed(cluster: Cluster) -> bool:
    return any("Timeout" in each["reason"] for name in cluster.workers for each in cluster.events(name, AWAY))


@pytest.mark.faults_long
def test_workers_resume_when_their_link_to_the_broker_died_in_silence(
    cluster: Cluster, truth: Truth, closing: Callable[[Proxy], Proxy]
) -> None:
    proxy = closing(proxy_to_port(cluster.broker_port))
    cluster.kill("worker-1", "worker-2", "beat")
    through = {"REGISTRY_BROKER_URL": f"redis://127.0.0.1:{proxy.port}/0"}
    cluster.spawn_beat(**through)
    for name in ("far-1", "far-2"):
        cluster.spawn_worker(name, **through)
    first = all_at_once(cluster.client.accepted, truth.submissions(10))
    cluster.until_final()
    proxy.sever()
    severed = len(proxy.wires)
    second = all_at_once(cluster.client.accepted, truth.submissions(20))
    cluster.until_final()
    assert len(proxy.wires) > severed, "they came back over new connections"
    cluster.check(*first, *second)


def test_an_api_killed_between_commit_and_bell_leaves_the_work_to_the_sweep(
    cluster: Cluster, truth: Truth, closing: Callable[[Proxy], Proxy]
) -> None:
    """The bell is on its way when the api dies, and never arrives."""
    proxy = closing(proxy_to_port(cluster.broker_port))
    cluster.stop("api")
    cluster.spawn_api(REGISTRY_BROKER_URL=f"redis://127.0.0.1:{proxy.port}/0")
    cluster.wait_for_api()
    proxy.hold()
    with cluster.suspended("beat"):
        ids = [cluster.client.accepted(each) for each in truth.submissions(10)]
        until(lambda: proxy.held, what="a bell on its way")
        cluster.kill("api")
        proxy.sever()
        cluster.start_api()
        assert {cluster.client.look(each)["status"] for each in ids} == {"queued"}, "no bell has been heard"
    cluster.until_final()
    cluster.check(*ids)


def test_bells_that_are_doubled_five_times_false_or_late_change_nothing(
    cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    client = cluster.client
    wrong, refused_artifact = truth.artifact()
    wrong = {**wrong, "checksum": "sha256:" + "0" * 64}
    done, done_artifact = truth.artifact()
    running, running_artifact = truth.artifact(gate=gate)
    done_id, wrong_id = client.accepted(done), client.accepted(wrong)
    cluster.until_final()
    before = [client.look(each) for each in (done_id, wrong_id)]
    running_id = client.accepted(running)
    until(lambda: running_artifact.requests, what="a download under way")
    unknown = "registration-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"
    for _ in range(5):
        for each in (done_id, wrong_id, running_id, unknown, "", "no id at all"):
            cluster.ring(each)
        cluster.ring(done_id, unknown, running_id, wrong_id, running_id)
    until(
        lambda: not cluster.bells_waiting() and not cluster.messages_with_workers(but=1), what="every bell answered"
    )
    assert [client.look(each) for each in (done_id, wrong_id)] == before
    gate.set()
    cluster.until_final()
    assert client.look(running_id)["attempts"] == 1
    assert [len(each.requests) for each in (done_artifact, refused_artifact, running_artifact)] == [1, 1, 1]
    cluster.check(done_id, running_id)
    cluster.check(wrong_id, status="rejected")
