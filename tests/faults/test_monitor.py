"""What operators are shown of a fault: the page, the metrics and the command say it soon, and truly."""

import json
import threading

import pytest
import requests

from api.live.monitor import BROKER_WITHIN_S, FRESH_S, STORE_WITHIN_S
from shared.store.snapshot import STALLED_AFTER_S
from shared.store.workers import GONE_AFTER_S
from tests.faults.cluster import Cluster, Truth, all_at_once
from tests.faults.postgres import Postgres
from tests.faults.shown import Shown
from tests.origin import Served
from tests.running import PATIENCE_S, until

SHOWN_WITHIN_S = 10
WRONG = "sha256:" + "0" * 64


def test_what_is_judged_by_how_long_it_is_silent_is_shown_within_ten_seconds() -> None:
    """By the limits themselves: what a clock says of the tests below depends on what else the machine does."""
    assert max(GONE_AFTER_S, STALLED_AFTER_S, STORE_WITHIN_S) + BROKER_WITHIN_S + FRESH_S <= SHOWN_WITHIN_S


@pytest.fixture
def shown(cluster: Cluster) -> Shown:
    return Shown(cluster)


def test_an_upstream_that_stalls_is_named(
    cluster: Cluster, truth: Truth, shown: Shown, gate: threading.Event
) -> None:
    ids = all_at_once(cluster.client.accepted, truth.submissions(5, gate=gate))
    shown.all_say("5 downloads have stalled", lambda: shown.metric("downloads_stalled") == 5)
    assert f"5 of 127.0.0.1:{truth.origin.port}" in shown.page()
    gate.set()
    cluster.until_final()
    until(lambda: shown.metric("downloads_stalled") == 0, what="that it is over")
    cluster.check(*ids)


def test_mistakes_of_submitters_are_told_as_such(cluster: Cluster, truth: Truth, shown: Shown) -> None:
    before = shown.metric("outcomes_total", cause="html-page", fault="submitter")
    html = Served(body=b"<!doctype html><html>Sign in", headers={"Content-Type": "text/html"})
    url = truth.origin.serve(html)
    well = sum(each["registered"] for each in shown.snapshot()["minutes"][-4:])
    wrong = [each | {"artifactUrl": url, "checksum": WRONG} for each in truth.submissions(well + 20)]
    ids = all_at_once(cluster.client.accepted, wrong)
    cluster.until_final()
    shown.all_say(
        "failed in 5 minutes by their submitters",
        lambda: shown.metric("outcomes_total", cause="html-page", fault="submitter") == before + len(ids),
    )


def test_workers_that_were_killed_are_missed(cluster: Cluster, truth: Truth, shown: Shown) -> None:
    until(lambda: shown.metric("workers_alive") == len(cluster.workers), what="that all are there")
    cluster.kill(*cluster.workers)
    ids = all_at_once(cluster.client.accepted, truth.submissions(3))
    shown.all_say("No worker lives", lambda: shown.metric("workers_alive") == 0)
    assert shown.metric("registrations", status="queued") == len(ids) == len(cluster.in_flight())


def test_a_broker_that_is_gone_is_missed(cluster: Cluster, shown: Shown) -> None:
    cluster.kill("broker")
    shown.all_say("The broker does not answer", lambda: shown.metric("broker_up") == 0)
    cluster.start_broker()
    until(lambda: shown.metric("broker_up") == 1, what="that it is back")


def test_a_broker_that_hangs_is_missed_and_nobody_waits_for_it(cluster: Cluster, shown: Shown) -> None:
    with cluster.suspended("broker"):
        shown.all_say("The broker does not answer", lambda: shown.metric("broker_up") == 0)


def test_a_store_that_is_gone_is_told_though_no_token_can_be_looked_up(
    cluster: Cluster, server: Postgres, shown: Shown
) -> None:
    until(lambda: shown.metric("store_up") == 1, what="that it is there")
    server.crash()
    try:
        until(lambda: shown.metric("store_up") == 0, what="that the store is away")
        stranger = requests.get(f"{cluster.address}/metrics", timeout=PATIENCE_S).text
        assert "plugin_registry_store_up 0.0" in stranger
        assert "plugin_registry_registrations" not in stranger
        assert "cannot be reached" in shown.page()
        assert shown.command()[0] == 7
    finally:
        server.start()
    until(lambda: shown.metric("store_up") == 1, what="that it is back")
    assert requests.get(f"{cluster.address}/metrics", timeout=PATIENCE_S).status_code == 401


def test_all_three_agree_with_the_store_after_a_storm(cluster: Cluster, truth: Truth, shown: Shown) -> None:
    """Workers are killed in the middle of it: what they had settled is counted all the same, and once."""
    statuses = ("registered", "rejected")

    def all_counted() -> bool:
        return all(
            shown.metric("outcomes_total", status=each) == shown.metric("registrations", status=each)
            for each in statuses
        )

    cluster.until_final()
    until(all_counted, what="the count of all that other tests left")
    before = {each: shown.metric("outcomes_total", status=each) for each in statuses}
    good = all_at_once(cluster.client.accepted, truth.submissions(100))
    bad = all_at_once(cluster.client.accepted, [each | {"checksum": WRONG} for each in truth.submissions(50)])
    for name in list(cluster.workers):
        cluster.kill(name)
        cluster.spawn_worker(name)
    cluster.until_final()
    cluster.check(*good)

    def counted(status: str) -> float:
        return shown.metric("outcomes_total", status=status) - before[status]

    until(lambda: counted("registered") == len(good), what="the registered ones")
    until(lambda: counted("rejected") == len(bad), what="the rejected ones")
    seen = shown.snapshot()["registrations"]
    for status, number in seen.items():
        assert shown.metric("registrations", status=status) == number
        assert f'<b id="count-{status}">{number}</b>' in shown.page()
    assert f"{seen['registered']} registered" in shown.command()[1]
    assert json.dumps(seen) == json.dumps(shown.snapshot()["registrations"])
