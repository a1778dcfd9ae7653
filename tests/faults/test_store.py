"""A store that is gone, silent, locked or out of room, and commits whose reply is lost."""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import psycopg
import pytest
import requests
from sqlalchemy import make_url

from tests.faults.cluster import Cluster, Truth, all_at_once, serve_in_halves
from tests.faults.conftest import WORKERS
from tests.faults.history import everything_in
from tests.faults.postgres import Postgres
from tests.faults.proxy import Proxy, Wire, proxy_to_database
from tests.faults.small_disk import SmallDisk
from tests.origin import Served
from tests.running import PATIENCE_S, problem, until

LONG = pytest.mark.faults_long
AWAY_S = 10.0
PATIENT_LEASE_S = 90.0
"""A lease that outlives the store's absence; those of the other worker do not."""

Away = Callable[[Cluster, Postgres], AbstractContextManager[None]]


def stopped(_cluster: Cluster, server: Postgres) -> AbstractContextManager[None]:
    return server.suspended()


@contextmanager
def killed(_cluster: Cluster, server: Postgres) -> Iterator[None]:
    server.crash()
    try:
        yield
    finally:
        server.start()


@contextmanager
def locked(cluster: Cluster, _server: Postgres) -> Iterator[None]:
    with psycopg.connect(cluster.database_url) as connection:
        connection.execute("LOCK TABLE registrations, plugins IN ACCESS EXCLUSIVE MODE")
        yield


@contextmanager
def locked_file(cluster: Cluster) -> Iterator[None]:
    file = make_url(cluster.database_url).database
    assert file
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield


@pytest.mark.parametrize("away", [killed, *(pytest.param(each, marks=LONG) for each in (stopped, locked))])
def test_what_was_downloaded_while_postgresql_was_away_for_ten_seconds_is_settled_once(
    cluster: Cluster, truth: Truth, server: Postgres, gate: threading.Event, away: Away
) -> None:
    asked = _settle_while_away(cluster, truth, gate, away(cluster, server))
    if away is not stopped:  # a server that is stopped keeps its clients waiting, and then serves them
        assert 503 in asked, "the store was away"


def test_who_waits_while_the_store_goes_away_is_told_that_it_was_accepted(
    cluster: Cluster, truth: Truth, server: Postgres, gate: threading.Event
) -> None:
    """Its wait ends while nobody can say how the registration stands: that is no reason to say 503."""
    download = _Download(truth, gate)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(cluster.client.submit, download.submission, prefer="wait=4")
        until(lambda: download.artifact.requests, what="its download under way")
        with killed(cluster, server):
            answer = waiting.result()
    assert answer.status_code == 202, answer.text
    gate.set()
    cluster.until_final()
    cluster.check(answer.json()["id"])


@LONG
def test_an_outage_is_told_once_with_its_reason_and_no_stranger_is_told_that(
    cluster: Cluster, truth: Truth, server: Postgres
) -> None:
    processes = ("api", *WORKERS)
    cluster.kill(*processes)  # for them an earlier test's outage may not be over yet
    cluster.heal(*WORKERS)
    before = {name: len(_lines(cluster, name)) for name in processes}
    held = [cluster.client.accepted(truth.slow_artifact(8)[0]) for _ in range(4)]
    with killed(cluster, server):
        over = time.monotonic() + 6
        while time.monotonic() < over:
            answers = [cluster.client.submit(each) for each in truth.submissions(4)]
            answers.append(requests.get(f"{cluster.address}/readyz", timeout=PATIENCE_S))
            for each in answers:
                told = problem(each, 503, "store-unavailable")["detail"]
                assert told == "The store cannot be reached or cannot take this now."
    cluster.wait_for_api()
    cluster.until_final()
    cluster.check(*held)
    for name in processes:
        lines = [each for each in _lines(cluster, name)[before[name] :] if each.get("event") != "request"]
        away = [each["reason"] for each in lines if each.get("event") == "store away"]
        assert len(away) == len({*away}), f"{name} told one twice: {away}"
        assert any("Connection refused" in each for each in away), away
        troubles = [each for each in lines if each.get("level") in {"warning", "error"}]
        assert len(troubles) <= len(away) + 6, troubles


def _lines(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    text = (cluster.folder / f"{name}.log").read_text()
    assert "Traceback" not in text
    return [json.loads(each) for each in text.splitlines() if each.startswith("{")]


def test_what_was_downloaded_while_sqlite_was_locked_for_ten_seconds_is_settled_once(
    sqlite_cluster: Cluster, truth: Truth, gate: threading.Event
) -> None:
    assert 503 in _settle_while_away(sqlite_cluster, truth, gate, locked_file(sqlite_cluster)), "the store was away"


def _settle_while_away(
    cluster: Cluster, truth: Truth, gate: threading.Event, away: AbstractContextManager[None]
) -> Counter[int]:
    """Let downloads end while the store is away; return how often the api gave which answer meanwhile.

    A worker whose lease outlives that must write the outcome it has; the other's are verified again.
    """
    cluster.kill("worker-2")
    cluster.spawn_worker("patient", REGISTRY_LEASE_S=str(PATIENT_LEASE_S))
    cluster.wait_for_worker("patient")
    downloads = [_Download(truth, gate) for _ in range(16)]
    client = cluster.client
    ids = [client.accepted(each.submission) for each in downloads]
    until(lambda: all(each.artifact.requests for each in downloads), what="every download under way")
    patients = {own for own, _ in cluster.wires("patient")}
    held = [id_ for id_, each in zip(ids, downloads, strict=True) if each.ports[0] in patients]
    assert 0 < len(held) < len(ids), "both workers have their share"
    with ThreadPoolExecutor(8) as pool:
        waiting = pool.submit(client.submit, downloads[0].submission, prefer="wait=60")
        time.sleep(3)  # so that it does wait when the store goes
        with away:
            gate.set()
            until(lambda: all(each.served for each in downloads), what="the end of every download")
            left = threading.Timer(AWAY_S, lambda: None)
            left.start()
            meanwhile = [
                (each, pool.submit(_after, 0.5 * number, client.submit, each))
                for number, each in enumerate(truth.submissions(6))
            ]
            left.join()
        for submission, asked in meanwhile:
            if asked.result().status_code == 503:
                problem(asked.result(), 503, "store-unavailable")
                assert int(asked.result().headers["Retry-After"]) > 0
                client.taken(submission)
            else:
                assert asked.result().status_code == 202, asked.result().text
        assert waiting.result().status_code == 200, waiting.result().text
    cluster.until_final()
    cluster.check(*ids, *_registrations_of(cluster, [submission for submission, _ in meanwhile]))
    assert {client.look(each)["attempts"] for each in held} == {1}, "an outcome is held while the lease lasts"
    assert all(client.look(each)["attempts"] <= 2 for each in ids)
    return Counter(asked.result().status_code for _, asked in meanwhile)


class _Download:
    """An artifact that is served to its half before *gate* opens, and who fetched it when."""

    def __init__(self, truth: Truth, gate: threading.Event) -> None:
        self.ports: list[int] = []
        self.served = False
        self._gate = gate
        self.submission, self.artifact = truth.artifact()
        self.artifact.handle = self._serve

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.ports.append(handler.client_address[1])
        serve_in_halves(handler, self.artifact.body, lambda: self._gate.wait(PATIENCE_S))
        self.served = True


def _after(
    seconds: float, submit: Callable[[dict[str, str]], requests.Response], submission: dict[str, str]
) -> requests.Response:
    time.sleep(seconds)
    return submit(submission)


def _registrations_of(cluster: Cluster, submissions: list[dict[str, str]]) -> list[str]:
    """Return the one registration of each of *submissions*."""
    registrations, _ = everything_in(cluster.database_url)
    names = {each["name"] for each in submissions}
    found = {each.submission.name: each.id for each in registrations if each.submission.name in names}
    assert len(found) == len(names)
    assert sum(each.submission.name in names for each in registrations) == len(names), "none was made twice"
    return [*found.values()]


def _loses_commits(proxy: Proxy, statement: bytes, *, at_most: int) -> Callable[[Wire, bytes], bool]:
    """Lose the reply to each commit of a transaction in which *statement* was said."""

    def loses(wire: Wire, said: bytes) -> bool:
        transaction = wire.said.rpartition(b"COMMIT")[2]
        return proxy.replies_lost < at_most and said.find(b"COMMIT") >= 0 and statement in transaction

    return loses


def test_a_submission_whose_commit_lost_its_reply_is_answered_503_and_is_the_same_when_sent_again(
    cluster: Cluster, truth: Truth, closing: Callable[[Proxy], Proxy]
) -> None:
    proxy, url = proxy_to_database(cluster.database_url)
    closing(proxy)
    cluster.stop("api")
    cluster.spawn_api(REGISTRY_DATABASE_URL=url)
    cluster.wait_for_api()
    artifacts = [truth.artifact() for _ in range(10)]
    submissions = [submission for submission, _ in artifacts]
    proxy.lose_reply_to = _loses_commits(proxy, b"INSERT INTO registrations", at_most=len(artifacts))
    for submission in submissions:
        response = cluster.client.submit(submission)
        problem(response, 503, "store-unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert proxy.replies_lost == len(artifacts)
    ids = _registrations_of(cluster, submissions)  # committed, although nobody was told
    now, later = submissions[:5], submissions[5:]
    assert {cluster.client.taken(each).json()["id"] for each in now} <= {*ids, *_plugins_of(cluster, now)}
    cluster.until_final()
    assert {cluster.client.taken(each).json()["id"] for each in later} == _plugins_of(cluster, later)
    cluster.until_final()
    cluster.check(*_registrations_of(cluster, submissions))
    _verified_once(artifacts)


def _plugins_of(cluster: Cluster, submissions: list[dict[str, str]]) -> set[str]:
    names = {each["name"] for each in submissions}
    return {each.id for each in everything_in(cluster.database_url)[1] if each.name in names}


def _verified_once(artifacts: list[tuple[dict[str, str], Served]]) -> None:
    assert [len(artifact.requests) for _, artifact in artifacts] == [1] * len(artifacts)


def test_an_outcome_whose_commit_lost_its_reply_stands_as_it_is(
    cluster: Cluster, truth: Truth, closing: Callable[[Proxy], Proxy]
) -> None:
    proxy, url = proxy_to_database(cluster.database_url)
    closing(proxy)
    cluster.kill("worker-1", "worker-2")
    cluster.spawn_worker("lossy", REGISTRY_DATABASE_URL=url)
    cluster.wait_for_worker("lossy")
    alone = [truth.artifact() for _ in range(5)]
    proxy.lose_reply_to = _loses_commits(proxy, b"INSERT INTO plugins", at_most=len(alone))
    ids = []
    for submission, _ in alone:
        ids.append(cluster.client.accepted(submission))
        cluster.until_final()
        until(lambda: _sent_twice(cluster) == len(ids), what="the outcome being sent twice")
    assert proxy.replies_lost == len(alone)
    together = [truth.artifact() for _ in range(10)]
    proxy.lose_reply_to = _loses_commits(proxy, b"INSERT INTO plugins", at_most=len(alone) + 1)
    ids += [cluster.client.accepted(submission) for submission, _ in together]
    cluster.until_final()
    until(lambda: _sent_twice(cluster) > len(alone), what="each that was in the lost commit being sent twice")
    assert proxy.replies_lost == len(alone) + 1
    _verified_once([*alone, *together])
    lost_claims = [truth.artifact()[0] for _ in range(10)]
    proxy.lose_reply_to = _loses_commits(proxy, b"claimed_by", at_most=len(alone) + 1 + len(lost_claims))
    ids += [cluster.client.accepted(each) for each in lost_claims]
    cluster.until_final()
    assert proxy.replies_lost > len(alone) + 1, "however many were claimed in one commit"
    cluster.check(*ids)


def _sent_twice(cluster: Cluster) -> int:
    return len(cluster.events("lossy", "settled", outcome="lost"))


def test_on_a_full_disk_submissions_are_refused_and_nothing_that_was_accepted_is_lost(
    sqlite_cluster: Cluster, disk: SmallDisk, truth: Truth, gate: threading.Event
) -> None:
    cluster, client = sqlite_cluster, sqlite_cluster.client
    held = [truth.artifact(gate=gate) for _ in range(30)]
    ids = [client.accepted(submission) for submission, _ in held]
    until(lambda: all(artifact.requests for _, artifact in held), what="every download under way")
    refused: list[dict[str, str]] = []
    with disk.full_for([cluster.process(name).pid for name in cluster.children]):

        def stays_full() -> bool:
            """There may be room for a few more in pages that the store has already."""
            submission = truth.submissions(1)[0]
            response = client.submit(submission)
            if response.status_code == 202:
                ids.append(response.json()["id"])
                refused.clear()
                return False
            problem(response, 503, "store-unavailable")
            assert int(response.headers["Retry-After"]) > 0
            refused.append(submission)
            return len(refused) >= 20

        until(stays_full, what="a store without room")
        gate.set()
        until(
            lambda: any(cluster.events(name, "store away") for name in WORKERS), what="a worker that is refused too"
        )
        assert client.look(ids[0])["id"] == ids[0], "what is there can be read"
        assert cluster.in_flight()
    all_at_once(client.taken, refused)
    cluster.until_final()
    cluster.check(*ids, *_registrations_of(cluster, refused))
