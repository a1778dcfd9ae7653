"""A store that hangs, or hides behind a link that swallows everything, holds up nothing for longer than a time-out.

It is not gone: its kernel takes what is sent, and no client library gives up by itself.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest
import requests

from tests.faults.cluster import Cluster, Truth
from tests.faults.conftest import WORKERS
from tests.faults.postgres import Postgres
from tests.faults.proxy import Proxy, proxy_to_database
from tests.running import problem, until

GRACE_S = 13.0
"""What a process that was told to end has: ten seconds, and three for a machine that is busy."""
ANSWERED_WITHIN_S, READY_WITHIN_S = 20.0, 8.0
"""Three and eight seconds, and some for the machine."""

pytestmark = pytest.mark.faults_long

Hangs = Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["a server that is stopped", "a link that swallows everything"])
def hangs(
    request: pytest.FixtureRequest, cluster: Cluster, server: Postgres, closing: Callable[[Proxy], Proxy]
) -> Iterator[Hangs]:
    """Have the store of api and workers hang for the length of a block."""
    if request.param.startswith("a server"):
        yield server.suspended
        return
    proxy, url = proxy_to_database(cluster.database_url)
    closing(proxy)
    cluster.stop("api", *WORKERS)
    cluster.spawn_api(REGISTRY_DATABASE_URL=url)
    for name in WORKERS:
        cluster.spawn_worker(name, REGISTRY_DATABASE_URL=url)
    cluster.wait_for_api()
    for name in WORKERS:
        cluster.wait_for_worker(name)
    yield lambda: _held(proxy)


@contextmanager
def _held(proxy: Proxy) -> Iterator[None]:
    proxy.hold()
    try:
        yield
    finally:
        proxy.release()


def test_while_the_store_hangs_everybody_is_answered_and_everything_ends_when_told_to(
    cluster: Cluster, truth: Truth, gate: threading.Event, hangs: Hangs
) -> None:
    submission, artifact = truth.artifact(gate=gate)
    held = cluster.client.accepted(submission)
    until(lambda: artifact.requests, what="a download under way")
    asks: list[Callable[[], requests.Response]] = [
        lambda: cluster.client.submit(truth.artifact()[0]),
        lambda: cluster.get("/api/v1/registrations", within_s=ANSWERED_WITHIN_S),
        lambda: cluster.get(f"/api/v1/registrations/{held}", within_s=ANSWERED_WITHIN_S),
        lambda: cluster.get("/api/v1/snapshot", within_s=ANSWERED_WITHIN_S),
        *[lambda: cluster.get("/readyz", within_s=READY_WITHIN_S)] * 3,
    ]
    with hangs(), ThreadPoolExecutor(16) as pool:
        for answer in [pool.submit(ask) for ask in asks]:
            problem(answer.result(), 503, "store-unavailable")
        stuck = [pool.submit(asks[1]) for _ in range(8)]
        time.sleep(1)  # so that they are under way
        for name in ("api", *WORKERS):
            assert cluster.end(name, within_s=GRACE_S) in {0, -signal.SIGTERM}, "by itself"
        for each in stuck:  # one that was connecting is cut off after five seconds, without an answer
            with suppress(requests.ConnectionError):
                problem(each.result(), 503, "store-unavailable")
    gate.set()
    cluster.heal(*WORKERS)
    cluster.until_final()
    cluster.check(held)
