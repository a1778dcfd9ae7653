"""Clients that submit all the while something befalls a cluster."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.faults.cluster import Cluster, Truth
from tests.running import PATIENCE_S, until

CLIENTS = 3


@contextmanager
def clients_submitting(cluster: Cluster, truth: Truth) -> Iterator[list[str]]:
    """Submit from several threads through the block, every fourth artifact a slow one; yield the ids."""
    ids: list[str] = []
    over = threading.Event()

    def submit() -> None:
        while not over.is_set():
            for submission in (*truth.submissions(3), truth.slow_artifact(1)[0]):
                ids.append(cluster.client.accepted(submission))
                over.wait(0.1)

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(submit) for _ in range(CLIENTS)]
        try:
            yield ids
        finally:
            over.set()
    for client in clients:
        client.result()


def every_worker_settles(cluster: Cluster, *, within_s: float = PATIENCE_S) -> None:
    """Wait until each worker has settled a registration that it was told of from now on."""

    def settled(name: str) -> int:
        return len(cluster.events(name, "settled"))

    before = {name: settled(name) for name in cluster.workers}
    until(
        lambda: all(settled(name) > before[name] for name in cluster.workers),
        within_s=within_s,
        what=f"every worker at work, see {cluster.folder}",
    )
