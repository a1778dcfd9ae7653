"""Events and webhooks while processes are killed: each end is told once, no reader misses one, each hook hears."""

import json
import random
import threading
import time
from collections import Counter
from contextlib import closing, suppress
from itertools import count

import pytest
import requests
from plugin_registry_client import Client, RegistryError
from sqlalchemy import text
from standardwebhooks import Webhook

from shared.store.database import open_database
from tests.faults.cluster import Cluster, Truth
from tests.faults.history import everything_told
from tests.faults.load import clients_submitting
from tests.running import PATIENCE_S, until

_hooks = count(1)


class Reader:
    """Reads the feed for as long as it is told to, whatever becomes of the api."""

    def __init__(self, cluster: Cluster) -> None:
        self.read: list[int] = []
        self._client = Client(cluster.address, cluster.token)
        self._after = self._client.newest_event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def has_read_to(self, seq: int) -> bool:
        return bool(self.read) and self.read[-1] >= seq

    def _follow(self) -> None:
        with suppress(requests.RequestException, RegistryError):
            for event in self._client.events(self._after):
                self.read.append(event.seq)
                if self._over.is_set():
                    return

    def close(self) -> None:
        self._over.set()
        self._client.close()


@pytest.mark.timeout(900)
def test_whoever_is_killed_each_end_is_told_once_and_nobody_misses_it(either_cluster: Cluster, truth: Truth) -> None:
    cluster, randomly = either_cluster, random.Random(7)
    before = len(everything_told(cluster.database_url))
    path = f"/hook-{next(_hooks)}"
    headers = {"Authorization": f"Bearer {cluster.token}"}
    wanted = {"url": truth.origin.url + path}
    made = requests.post(
        f"{cluster.address}/api/v1/webhooks", json=wanted, headers=headers, timeout=PATIENCE_S
    ).json()
    reader = Reader(cluster)
    try:
        ids = []
        for number in range(6):
            victim = ("worker-1", "api", "beat", "worker-2", "api", "worker-1")[number]
            submissions = [*truth.submissions(6), *(truth.artifact(status=404)[0] for _ in range(2))]
            ids += [str(cluster.client.taken(each).json()["id"]) for each in submissions]
            time.sleep(randomly.uniform(0, 0.6))  # to meet it at another thing each time
            cluster.kill(victim)
            cluster.heal("worker-1", "worker-2")
        cluster.until_final()
        feed = everything_told(cluster.database_url)
        _let_trials_be_made_again(cluster)
        until(lambda: reader.has_read_to(len(feed)), what="that the reader has all of it")
        wanted_ids = {each["id"] for each in feed[before:]}
        until(lambda: wanted_ids <= _heard(truth, path), what="that the hook heard of each")
    finally:
        reader.close()
        requests.post(f"{cluster.address}/api/v1/webhooks/{made['id']}/remove", headers=headers, timeout=PATIENCE_S)
    assert reader.read == list(range(before + 1, len(feed) + 1)), "in order, each once"
    told = {each["data"]["registrationId"]: each["type"] for each in feed}
    assert Counter(told[each] for each in ids) == {"registration.registered": 36, "registration.rejected": 12}
    for where, sent, body in truth.origin.posted:
        if where == path:
            Webhook(made["secret"]).verify(body, sent)
    cluster.check()


def _heard(truth: Truth, path: str) -> set[str]:
    return {str(json.loads(body)["id"]) for where, _sent, body in list(truth.origin.posted) if where == path}


def _let_trials_be_made_again(cluster: Cluster) -> None:
    """Have the leases of trials end, whose workers were killed, and what is due be due now."""
    with closing(open_database(cluster.database_url)) as database, database.write() as connection:
        connection.execute(text("UPDATE deliveries SET due_at = 0 WHERE due_at IS NOT NULL"))


def test_numbers_are_given_while_many_submit_and_a_reader_follows(cluster: Cluster, truth: Truth) -> None:
    reader = Reader(cluster)
    before = len(everything_told(cluster.database_url))
    try:
        with clients_submitting(cluster, truth):
            time.sleep(3)
        cluster.until_final()
        feed = everything_told(cluster.database_url)
        until(lambda: reader.has_read_to(len(feed)), what="that the reader has all of it")
    finally:
        reader.close()
    assert reader.read == list(range(reader.read[0], len(feed) + 1))
    assert reader.read[0] <= before + 1
    cluster.check()
