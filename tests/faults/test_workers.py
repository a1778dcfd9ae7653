"""Workers that die, hang, come late, or are told to go."""

import contextlib
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from sqlalchemy import text

from shared.store.database import open_database
from tests.faults.cluster import LEASE_S, Cluster, Truth, all_at_once, serve_in_halves
from tests.faults.proxy import Proxy, proxy_to_database
from tests.running import PATIENCE_S, PROJECT, until

CLOCK = Path(__file__).parent / "clock"
AN_HOUR_S = 3600
LATE_LEASE_S = 120
SUSPICIOUS = {"REGISTRY_MAX_LEASES_LOST": "2", "REGISTRY_LEASE_S": "10"}
"""With a lease that lasts until it is known which worker was lost."""
TOUGH = {"REGISTRY_MAX_ATTEMPTS": "100", "REGISTRY_MAX_LEASES_LOST": "100"}


def let_leases_end(database_url: str, lease_s: int) -> None:
    """Have all leases of *lease_s* seconds end now."""
    with contextlib.closing(open_database(database_url)) as database, database.write() as connection:
        connection.execute(
            text(
                "UPDATE registrations SET due_at = due_at - :ms, ring_at = ring_at - :ms WHERE status = 'verifying'"
            ),
            {"ms": lease_s * 1000},
        )


def test_workers_killed_again_and_again_lose_and_double_nothing(cluster: Cluster, truth: Truth) -> None:
    _kill_workers_while_registering(cluster, truth, rounds=3, each=20, workers=("worker-1", "worker-2"))


@pytest.mark.faults_long
@pytest.mark.timeout(1800)
def test_fifty_rounds_of_killing_over_a_thousand_registrations_lose_and_double_nothing(
    either_cluster: Cluster, truth: Truth
) -> None:
    workers = ("tough-1", "tough-2", "tough-3")
    either_cluster.heal()
    for name in workers:
        either_cluster.spawn_worker(name, **TOUGH)
        either_cluster.wait_for_worker(name)
    _kill_workers_while_registering(either_cluster, truth, rounds=50, each=20, workers=workers, **TOUGH)


def _kill_workers_while_registering(
    cluster: Cluster, truth: Truth, *, rounds: int, each: int, workers: Sequence[str], **settings: str
) -> None:
    client, ids = cluster.client, []
    for number in range(rounds):
        submissions = [truth.slow_artifact(random.uniform(0, 0.3))[0] for _ in range(each)]
        ids += all_at_once(client.accepted, submissions)
        victim = workers[number % len(workers)]
        cluster.wait_for_worker(victim)
        time.sleep(random.uniform(0, 0.5))  # to meet it at another thing each time
        cluster.kill(victim)
        cluster.spawn_worker(victim, **settings)
        for registration_id in random.sample(ids, 5):
            client.look(registration_id)
    cluster.until_final()
    cluster.check(*ids)


def test_an_artifact_that_kills_its_worker_each_time_runs_out_of_attempts_and_harms_no_other(
    cluster: Cluster, truth: Truth
) -> None:
    killed = []

    def kill_who_fetches(handler: BaseHTTPRequestHandler) -> None:
        for name in cluster.workers:
            if handler.client_address[1] in [own for own, _ in cluster.wires(name)]:
                killed.append(name)
                cluster.process(name).kill()

    cluster.kill("worker-1", "worker-2")
    for name in ("worker-1", "worker-2"):
        cluster.spawn_worker(name, **SUSPICIOUS)
    deadly, artifact = truth.artifact(handle=kill_who_fetches)
    registration_id = cluster.client.accepted(deadly)
    others: list[str] = []

    def ended() -> bool:
        for name in ("worker-1", "worker-2"):
            if not cluster.running(name):
                cluster.spawn_worker(name, **SUSPICIOUS)
                others.extend(cluster.client.accepted(each) for each in truth.submissions(5))
        return not cluster.in_flight()

    until(ended, what="the end of all attempts")
    cluster.check(registration_id, status="failed")
    cluster.check(*others)
    found = cluster.client.look(registration_id)
    assert found["problem"]["code"] == "attempts-used-up"
    assert found["problem"]["cause"] == "workers-lost"
    assert found["attempts"] == len(killed) == len(artifact.requests) == 2, "it takes no third one along"
    assert len(others) >= 5


def test_a_worker_that_was_stopped_past_its_lease_can_write_neither_success_nor_failure(
    cluster: Cluster, truth: Truth, closing: Callable[[Proxy], Proxy]
) -> None:
    """What the late worker finds is the opposite of what the next one finds, so that a late write would be seen."""
    proxy, url = proxy_to_database(cluster.database_url)
    closing(proxy)
    cluster.suspend("beat")  # a sweep would take a connection, too
    cluster.kill("worker-1", "worker-2")
    cluster.flush()
    # Its lease ends by the store's word alone: whoever sleeps through one is ended as soon as he wakes, for silence.
    cluster.spawn_worker("late", REGISTRY_DATABASE_URL=url, REGISTRY_LEASE_S=f"{LATE_LEASE_S}")
    both_downloaded = threading.Barrier(2, action=proxy.hold)

    def first_then(first: bytes, later: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
        seen = []

        def handle(handler: BaseHTTPRequestHandler) -> None:
            seen.append(handler)
            if len(seen) == 1:
                serve_in_halves(handler, first, lambda: both_downloaded.wait(PATIENCE_S))
            else:
                serve_in_halves(handler, later, lambda: None)

        return handle

    true, false = b"true" * 100, b"fake" * 100
    late_success, _ = truth.artifact(true, handle=first_then(true, false))
    late_failure, _ = truth.artifact(true, handle=first_then(false, true))
    success_id, failure_id = cluster.client.accepted(late_success), cluster.client.accepted(late_failure)
    until(lambda: len(proxy.held) == 2, what="what its batcher and its heartbeat have to say on its way")
    cluster.suspend("late")
    let_leases_end(cluster.database_url, LATE_LEASE_S)
    cluster.resume("beat")
    for name in ("worker-1", "worker-2"):
        cluster.spawn_worker(name)
    cluster.until_final()
    before = [cluster.client.look(each) for each in (success_id, failure_id)]
    assert [each["status"] for each in before] == ["rejected", "registered"]
    proxy.release()
    cluster.resume("late")
    # Its word was refused, or it had been told in time that another has the claim.
    until(
        lambda: (
            cluster.events("late", "settled", registration=success_id, outcome="lost")
            or cluster.events("late", "claim lost", registration=success_id)
        ),
        what="a late success",
    )
    until(
        lambda: (
            cluster.events("late", "attempt failed", registration=failure_id, held=False)
            or cluster.events("late", "claim lost", registration=failure_id)
        ),
        what="a late failure",
    )
    assert [cluster.client.look(each) for each in (success_id, failure_id)] == before
    cluster.check(success_id, status="rejected")
    cluster.check(failure_id)


def test_a_worker_that_is_told_to_go_puts_its_work_back_at_once(
    cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    artifacts = [truth.artifact(gate=gate) for _ in range(20)]

    def requests() -> int:
        return sum(len(artifact.requests) for _, artifact in artifacts)

    def downloads_of(name: str) -> int:
        return sum(theirs == truth.origin.port for _, theirs in cluster.wires(name))

    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in artifacts])
    until(lambda: requests() == len(artifacts), what="every download being under way")
    leaving = max("worker-1", "worker-2", key=downloads_of)
    given_back = downloads_of(leaving)
    assert given_back
    cluster.tell(leaving, signal.SIGTERM)
    until(lambda: requests() >= len(artifacts) + given_back, what="the other worker taking over")
    gate.set()
    cluster.until_final()
    assert cluster.wait(leaving) == 0
    cluster.check(*ids)
    assert {cluster.client.look(each)["attempts"] for each in ids} == {1}, "leaving costs no attempt"
    assert len(cluster.events(leaving, "claim released")) >= given_back


def test_a_worker_killed_with_full_bells_costs_an_attempt_to_what_it_was_downloading_and_to_nobody_else(
    either_cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    cluster, places = either_cluster, 4
    cluster.kill("worker-1", "worker-2")
    cluster.flush()
    cluster.spawn_worker("full", REGISTRY_DOWNLOADS=str(places))
    cluster.wait_for_worker("full")
    artifacts = [truth.artifact(gate=gate) for _ in range(40)]
    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in artifacts])

    def requests() -> int:
        return sum(len(artifact.requests) for _, artifact in artifacts)

    until(lambda: requests() == places, what="as many downloads as it has places")
    until(lambda: not cluster.broker.bells_waiting(), what="its having heard every bell")
    cluster.kill("full")
    for name in ("worker-1", "worker-2"):
        cluster.spawn_worker(name)
    gate.set()
    cluster.until_final()
    cluster.check(*ids)
    attempts = Counter(cluster.client.look(each)["attempts"] for each in ids)
    assert attempts == {1: len(ids) - places, 2: places}


@pytest.mark.parametrize("pool", ["solo", "prefork", "threads"])
def test_a_worker_works_and_leaves_with_any_pool_and_one_bell_at_a_time(
    cluster: Cluster, truth: Truth, gate: threading.Event, pool: str
) -> None:
    cluster.kill("worker-1", "worker-2")
    cluster.flush()
    cluster.spawn_worker("another", "--pool", pool, "--concurrency", "1")
    cluster.wait_for_worker("another")
    quick = all_at_once(cluster.client.accepted, truth.submissions(40))
    until(lambda: not cluster.in_flight(), what="all that is quick")
    artifacts = [truth.artifact(gate=gate) for _ in range(10)]
    slow = all_at_once(cluster.client.accepted, [submission for submission, _ in artifacts])
    until(lambda: sum(len(artifact.requests) for _, artifact in artifacts) == 10, what="ten downloads at once")
    cluster.stop("another")
    assert {cluster.client.look(each)["attempts"] for each in slow} == {0}, "what was under way was put back"
    cluster.spawn_worker("worker-1")
    gate.set()
    cluster.until_final()
    cluster.check(*quick, *slow)


def test_workers_whose_clocks_are_an_hour_off_either_way_end_no_lease_early(cluster: Cluster, truth: Truth) -> None:
    cluster.kill("worker-1", "worker-2")
    for name, shift_s in (("ahead", AN_HOUR_S), ("behind", -AN_HOUR_S)):
        path = os.pathsep.join([str(CLOCK), str(PROJECT)])
        cluster.spawn_worker(name, PYTHONPATH=path, FAULTS_CLOCK_SHIFT_S=str(shift_s))
    for name in ("ahead", "behind"):
        cluster.wait_for_worker(name)
    slow = [truth.slow_artifact(2 * LEASE_S) for _ in range(8)]
    ids = all_at_once(cluster.client.accepted, [submission for submission, _ in slow])
    ids += all_at_once(cluster.client.accepted, truth.submissions(20))
    cluster.until_final()
    cluster.check(*ids)
    assert [len(artifact.requests) for _, artifact in slow] == [1] * len(slow), "no lease ended early"
    for name, shift_s in (("ahead", AN_HOUR_S), ("behind", -AN_HOUR_S)):
        assert cluster.events(name, "settled"), "each of them has had its share"
        assert abs(cluster.clock_of(name) - time.time() - shift_s) < 600, "its clock was an hour off"
