"""A backlog: submissions stay quick, the broker is not flooded, memory stays flat, and all of it drains."""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import pytest
from sqlalchemy import text

from shared.queues import CLOCK_QUEUE, IDS_PER_BELL
from shared.store.database import Database, open_database
from tests.faults.cluster import Cluster, Truth, all_at_once
from tests.faults.history import everything_in
from tests.running import PATIENCE_S, until
from worker.sweep import MAX_WAITING

SLOWER_AT_MOST = 5
"""Generous, as every process here shares a few cores with others: a look at every row would be far beyond it."""
GROWN_AT_MOST_BYTES = 64 * 2**20
"""Generous, as threads keep memory of their own: 20,000 of anything that is kept would be far beyond it."""
SWEPT_AT_ONCE = MAX_WAITING * IDS_PER_BELL
"""What one sweep rings for at most; of a bell that is not answered in time each id may become a bell of its own."""
LOOKED_AT = 100


@pytest.mark.faults_long
def test_a_backlog_of_six_hundred_slows_no_submission_floods_no_broker_and_drains(
    cluster: Cluster, truth: Truth
) -> None:
    _pile_up_and_drain(cluster, truth, 600)


@pytest.mark.faults_long
@pytest.mark.timeout(1800)
def test_a_backlog_of_twenty_thousand_slows_no_submission_floods_no_broker_and_drains(
    cluster: Cluster, truth: Truth
) -> None:
    _pile_up_and_drain(cluster, truth, 20_000)


def _pile_up_and_drain(cluster: Cluster, truth: Truth, count: int) -> None:
    client = cluster.client
    cluster.stop("worker-1", "worker-2")
    cluster.flush()  # what is left of other tests, and would come back in the middle of this one
    ids: list[str] = []

    def a_submission_takes_s() -> float:
        """The best median of a few, as the machine may be busy with something else for a moment."""
        medians = []
        for _ in range(4):
            answers = [client.submit(each) for each in truth.submissions(20)]
            ids.extend(each.json()["id"] for each in answers)
            medians.append(median(each.elapsed.total_seconds() for each in answers))
        return min(medians)

    without_s, api_held = a_submission_takes_s(), cluster.rss("api")
    ids += all_at_once(client.accepted, truth.submissions(count - len(ids)), threads=32)
    assert len(cluster.in_flight()) >= count
    with_backlog_s = a_submission_takes_s()
    assert with_backlog_s < SLOWER_AT_MOST * without_s
    assert cluster.rss("api") < api_held + GROWN_AT_MOST_BYTES

    _sweep_alone(cluster)

    for name in ("worker-1", "worker-2"):
        cluster.spawn_worker(name)
    for name in ("worker-1", "worker-2"):
        cluster.wait_for_worker(name)
    workers_held: dict[str, int] = {}
    with _queued(cluster) as queued:

        def drained() -> bool:
            due = queued()  # before the bells: it only falls
            assert cluster.messages_waiting() <= due + SWEPT_AT_ONCE
            if due < 0.9 * count:
                for name in ("worker-1", "worker-2"):
                    held = cluster.rss(name)
                    assert held < workers_held.setdefault(name, held) + GROWN_AT_MOST_BYTES
            return due == 0

        until(drained, within_s=PATIENCE_S + count / 5, what="the end of the backlog")
    cluster.until_final()
    cluster.check(*random.sample(ids, LOOKED_AT))
    registrations, _ = everything_in(cluster.database_url)
    registered = {each.id for each in registrations if each.status == "registered"}
    assert registered.issuperset(ids)


def _sweep_alone(cluster: Cluster) -> None:
    """Let a worker that answers no bell sweep for a while, first with all bells there and then with none."""
    waiting = -1
    while waiting != (waiting := cluster.messages_waiting()):
        time.sleep(0.2)  # the last bell may be about to be rung
    assert waiting >= MAX_WAITING
    cluster.spawn_worker("sweeper", "--queues", CLOCK_QUEUE)
    cluster.wait_for_worker("sweeper")
    _watch(lambda: cluster.messages_waiting() == waiting, for_s=1.5)
    cluster.flush()
    until(cluster.messages_waiting, what="the sweep ringing again")
    _watch(lambda: cluster.messages_waiting() <= MAX_WAITING, for_s=3.5)
    cluster.kill("sweeper")


def _watch(holds: Callable[[], bool], *, for_s: float) -> None:
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert holds()
        time.sleep(0.05)


@contextmanager
def _queued(cluster: Cluster) -> Iterator[Callable[[], int]]:
    """Yield what counts the registrations that wait for a worker."""
    database = open_database(cluster.database_url)
    try:
        yield lambda: _count(database)
    finally:
        database.close()


def _count(database: Database) -> int:
    with database.read() as connection:
        return int(
            connection.execute(text("SELECT count(*) FROM registrations WHERE status = 'queued'")).scalar_one()
        )
