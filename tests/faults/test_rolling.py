"""Every process restarted in its turn, as an upgrade does it, while clients go on submitting."""

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from shared.store.database import Database, open_database
from shared.store.schema import migrate
from shared.store.tables import SCHEMA_VERSION
from tests.faults.cluster import Cluster, Truth
from tests.faults.history import everything_in
from tests.running import PATIENCE_S, problem, until
from tests.stores import newer_release

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
                    begun = len(submitted)
                    _restart(cluster, name)
                    until(lambda begun=begun: len(submitted) >= begun + CLIENTS, what="clients that go on")  # type: ignore[misc]
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


@pytest.mark.faults_long
def test_a_release_with_a_schema_change_is_a_rolling_one(cluster: Cluster, truth: Truth, tmp_path: Path) -> None:
    """What adds something turns nothing unready; what old code cannot work on turns it unready, in a sentence."""
    with _schema_restored(cluster.database_url) as database:
        with newer_release(tmp_path, "CREATE TABLE later (id VARCHAR)", oldest_code=SCHEMA_VERSION):
            with _meanwhile(_ready, cluster) as answers, _meanwhile(_submit, cluster, truth) as submitted:
                migrate(database)
                _restart(cluster, "worker-1")
                _restart(cluster, "api")
                cluster.stop("worker-2")  # what is submitted from now on is the restarted one's
                registered = cluster.client.taken(truth.artifact()[0], prefer="wait=60")
            assert registered.status_code == 200, registered.text
            assert {*answers} == {200}
            cluster.until_final()
            cluster.check(*submitted)
            with newer_release(tmp_path, "ALTER TABLE later RENAME TO latest"):
                migrate(database)
        until(lambda: _ready(cluster) == [503], what="an api that says it is unready")
        unready = requests.get(f"{cluster.address}/readyz", timeout=PATIENCE_S)
        assert "newer plugin-registry" in problem(unready, 503, "store-unavailable")["detail"]
        until(lambda: _lets_bells_go(cluster, truth), what="a worker that takes nothing more")
        waits = cluster.client.accepted(truth.artifact()[0])
        cluster.spawn_worker("late")
        assert cluster.wait("late") == 1
        sentence = (cluster.folder / "late.log").read_text().strip()
        assert "newer plugin-registry" in sentence
        assert "Traceback" not in sentence
        assert cluster.client.look(waits)["status"] == "queued"
    cluster.wait_for_api()
    cluster.until_final()
    cluster.check(waits)


@contextmanager
def _schema_restored(url: str) -> Iterator[Database]:
    """Open a store; afterwards it is as it was, whatever was migrated."""
    with closing(open_database(url)) as database:
        try:
            yield database
        finally:
            with psycopg.connect(url) as connection:
                connection.execute("DROP TABLE IF EXISTS later, latest")
                connection.execute(
                    "UPDATE alembic_version SET (version_num, oldest_code) = (%s, %s)", [SCHEMA_VERSION] * 2
                )


@contextmanager
def _meanwhile(look: Callable[..., list[Any]], *arguments: object) -> Iterator[list[Any]]:
    """Do it again and again for the length of the block; yield what it found, complete after the block."""
    over, found = threading.Event(), []

    def again() -> None:
        while not over.wait(PAUSE_S):
            found.extend(look(*arguments))

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(again)
        try:
            yield found
        finally:
            over.set()
        looking.result()


def _ready(cluster: Cluster) -> list[int]:
    """Return what `/readyz` answers, if anybody does: while the api is restarted connections may be reset."""
    with suppress(requests.ConnectionError):
        return [requests.get(f"{cluster.address}/readyz", timeout=PATIENCE_S).status_code]
    return []


def _submit(cluster: Cluster, truth: Truth) -> list[str]:
    answer = cluster.client.taken(truth.artifact()[0])
    return [answer.json()["id"]] if answer.status_code == 202 else []


def _lets_bells_go(cluster: Cluster, truth: Truth) -> bool:
    cluster.client.accepted(truth.artifact()[0])
    return any("newer" in each["reason"] for each in cluster.events("worker-1", "bell not answered"))


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
