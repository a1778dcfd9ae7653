"""Every process restarted in its turn, as an upgrade does it, while clients go on submitting."""

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.cluster import Cluster, Truth
from tests.faults.history import everything_in

CLIENTS = 4
PAUSE_S = 0.05
"""Between submissions of one client: this is about restarts, not about load."""


def test_while_every_process_is_restarted_clients_see_nothing_that_they_may_not_blindly_try_again(
    cluster: Cluster, truth: Truth
) -> None:
    _restart_all_while_submitting(cluster, truth, rounds=1)


@pytest.mark.faults_long
@pytest.mark.timeout(1800)
def test_while_every_process_is_restarted_ten_times_clients_see_nothing_that_they_may_not_blindly_try_again(
    either_cluster: Cluster, truth: Truth
) -> None:
    _restart_all_while_submitting(either_cluster, truth, rounds=10)


def _restart_all_while_submitting(cluster: Cluster, truth: Truth, *, rounds: int) -> None:
    over = threading.Event()
    submitted: list[dict[str, str]] = []

    def submit_until_over() -> None:
        client = cluster.client
        while not over.wait(PAUSE_S):
            submission, _ = truth.slow_artifact(random.choice([0, 0, 0.3]))
            submitted.append(submission)
            first = client.taken(submission, prefer=random.choice(["respond-async", "wait=5"]))
            again = client.taken(submission)
            told = [each.json()["id"] for each in (first, again)]
            same_kind = [each for each in told if each.startswith("registration-")]
            assert len(set(same_kind)) <= 1, "sent again it is the same"

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(submit_until_over) for _ in range(CLIENTS)]
        try:
            for _ in range(rounds):
                for name in ("api", *cluster.workers, "beat", "broker"):
                    _restart(cluster, name)
            time.sleep(1)
        finally:
            over.set()
        for each in clients:
            each.result()
    cluster.until_final()
    registrations, _ = everything_in(cluster.database_url)
    names = Counter(each.submission.name for each in registrations)
    assert {names[each["name"]] for each in submitted} == {1}, "however often it was sent, it was one"
    mine = {each["name"] for each in submitted}
    cluster.check(*(each.id for each in registrations if each.submission.name in mine))
    assert len(submitted) >= 20 * rounds, "clients were at it all the time"


def _restart(cluster: Cluster, name: str) -> None:
    """Restart a process as an operator does, and go on to the next when it works."""
    cluster.stop(name)
    if name == "api":
        cluster.start_api()
    elif name == "beat":
        cluster.spawn_beat()
    elif name == "broker":
        cluster.start_broker()
    else:
        assert cluster.wait(name) == 0
        cluster.spawn_worker(name)
        cluster.wait_for_worker(name)
