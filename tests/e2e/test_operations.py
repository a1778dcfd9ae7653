"""What operators see and do, over the API, in metrics and on the command line: all agree with the store."""

import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import a_submission
from tests.origin import Served
from tests.running import PATIENCE_S, Registry, problem, until

Artifact = Callable[..., tuple[dict[str, str], Served]]


def make_token(registry: Registry, *scopes: str, names: str | None = None) -> str:
    options = [word for scope in scopes for word in ("--scope", scope)]
    options += ["--names", names] if names else []
    made = registry.cli("token", "create", "--state", str(registry.state), *options)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def metrics(registry: Registry) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(registry.get("/metrics").text)
    return {
        (sample.name.removeprefix("plugin_registry_"), frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def swept_at(registry: Registry) -> datetime:
    """Return when the sweep last ran."""
    seen = registry.get("/api/v1/snapshot").json()
    return datetime.fromisoformat(seen["takenAt"]) - timedelta(seconds=seen["sweptSAgo"])


def accepted(registry: Registry, submission: dict[str, str]) -> str:
    registered = registry.register(submission, prefer="respond-async")
    assert registered.status_code == 202, registered.text
    return str(registered.json()["id"])


@pytest.fixture
def failed(registry: Registry, artifact: Artifact) -> dict[str, Any]:
    """A registration that was rejected: its artifact was not there."""
    submission, _served = artifact(status=404)
    return registry.final(accepted(registry, submission))


def test_a_retry_is_a_new_registration_that_names_the_old_one(registry: Registry, failed: dict[str, Any]) -> None:
    answer = registry.request("POST", f"/api/v1/registrations/{failed['id']}/retry")
    assert answer.status_code == 202
    again = answer.json()
    assert answer.headers["Location"] == f"/api/v1/registrations/{again['id']}"
    assert (again["retryOf"], again["status"], again["attempts"]) == (failed["id"], "queued", 0)
    assert registry.final(again["id"])["status"] == "rejected"
    assert registry.get(f"/api/v1/registrations/{failed['id']}").json() == failed | {"retriedAs": again["id"]}
    listed = registry.get(f"/api/v1/registrations?name={quote(failed['name'])}&status=rejected").json()["items"]
    assert [(each["id"], each["retriedAs"]) for each in listed] == [(again["id"], None), (failed["id"], again["id"])]
    (action,) = registry.get(f"/api/v1/actions?registration={failed['id']}").json()["items"]
    assert (action["what"], action["became"], action["by"]) == ("retry", again["id"], "made with the state folder")


def test_a_retry_that_succeeds_registers_the_plugin(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact(status=404)
    old = registry.final(accepted(registry, submission))
    served.status = 200
    again = registry.request("POST", f"/api/v1/registrations/{old['id']}/retry").json()
    assert registry.final(again["id"])["status"] == "registered"
    plugin = registry.request("POST", f"/api/v1/registrations/{old['id']}/retry")
    assert (plugin.status_code, plugin.json()["name"]) == (200, submission["name"])
    problem(registry.request("POST", f"/api/v1/registrations/{again['id']}/retry"), 409, "wrong-state")


def test_a_running_download_is_canceled_without_waiting_for_its_host(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, served = artifact(body=b"x" * 200_000, gate=gate)
    waiting: list[requests.Response] = []
    client = threading.Thread(target=lambda: waiting.append(registry.register(submission)))
    client.start()
    registration_id = until(lambda: _verifying(registry, submission["name"]), what="the download")
    begun = time.monotonic()
    answer = registry.request("POST", f"/api/v1/registrations/{registration_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "canceled")
    client.join()
    document = problem(waiting[0], 409, "canceled")
    assert document["instance"] == f"/api/v1/registrations/{registration_id}"
    until(lambda: _lost(registry, registration_id), what="the worker to stop")
    assert time.monotonic() - begun < 30, "and not when its host goes on, or its time is over"
    gate.set()
    assert registry.get(f"/api/v1/registrations/{registration_id}").json()["status"] == "canceled"
    assert registry.get(f"/api/v1/plugins?name={submission['name']}").json()["items"] == []
    again = registry.request("POST", f"/api/v1/registrations/{registration_id}/cancel")
    assert again.status_code == 200, "twice does no harm"
    assert len(served.requests) == 1


def _verifying(registry: Registry, name: str) -> str | None:
    items = registry.get(f"/api/v1/registrations?name={name}&status=verifying").json()["items"]
    return items[0]["id"] if items and items[0]["bytesDownloaded"] else None


def _lost(registry: Registry, registration_id: str) -> bool:
    lines = [json.loads(line) for line in registry.output.read_text().splitlines() if line.startswith("{")]
    return any(line["event"] == "claim lost" and line["registration"] == registration_id for line in lines)


def test_what_is_final_is_not_canceled(registry: Registry, failed: dict[str, Any]) -> None:
    problem(registry.request("POST", f"/api/v1/registrations/{failed['id']}/cancel"), 409, "wrong-state")


def test_all_that_failed_for_one_cause_is_tried_again_by_page(registry: Registry, artifact: Artifact) -> None:
    gone = [registry.final(accepted(registry, artifact(status=451)[0])) for _ in range(3)]
    assert {each["problem"]["cause"] for each in gone} == {"status-451"}
    first = registry.request("POST", "/api/v1/registrations/retry?cause=status-451&limit=2").json()
    rest = registry.request(
        "POST", "/api/v1/registrations/retry", params={"cause": "status-451", "cursor": first["nextCursor"]}
    ).json()
    again = [registry.final(each) for each in (*first["retried"], *rest["retried"])]
    assert {each["retryOf"] for each in again} == {each["id"] for each in gone}
    for query in ("", "?cause=nonsense", "?since=2026-01-15T08:00:00Z", "?dryRun=true"):
        problem(registry.request("POST", f"/api/v1/registrations/retry{query}"), 422, "invalid-fields")


def test_many_are_counted_before_they_are_tried_again_and_by_host_name_and_time(
    registry: Registry, artifact: Artifact
) -> None:
    gone = [registry.final(accepted(registry, artifact(status=418)[0])) for _ in range(2)]
    host, name = urlsplit(gone[0]["artifactUrl"]).netloc, gone[0]["name"]

    def ask(**query: str) -> dict[str, Any]:
        answer = registry.request("POST", "/api/v1/registrations/retry", params=query)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    for query, number in (
        ({"cause": "status-418"}, 2),
        ({"cause": "status-418", "host": host.upper()}, 2),
        ({"cause": "status-418", "host": "other.example"}, 0),
        ({"cause": "status-418", "since": "2999-01-01T00:00:00Z"}, 0),
        ({"name": name}, 1),
    ):
        counted = ask(dryRun="true", **query)
        assert (counted["matching"], counted["retried"]) == (number, []), query
    done = registry.cli("retry", "--cause", "status-418", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "2 would be tried again.\n")
    assert registry.cli("retry", "--cause", "nonsense").returncode == 2
    done = registry.cli("retry", "--host", "other.example")
    assert (done.returncode, done.stdout) == (0, "0 would be tried again.\n")
    assert registry.get("/api/v1/registrations?cause=status-418&status=queued").json()["items"] == []
    done = registry.cli("retry", "--name", name)
    assert done.stderr.startswith("1 are to be tried again")
    assert done.stdout.startswith("1 are tried again")


def test_acting_needs_the_scope_operate_and_the_tokens_names(registry: Registry, failed: dict[str, Any]) -> None:
    reader, limited = make_token(registry, "read"), make_token(registry, "operate", names="other-*")
    for path in (f"{failed['id']}/retry", f"{failed['id']}/cancel", "retry?cause=status-404"):
        answer = registry.request("POST", f"/api/v1/registrations/{path}", token=reader)
        problem(answer, 403, "forbidden")
    for act in ("retry", "cancel"):
        path = f"/api/v1/registrations/{failed['id']}/{act}"
        problem(registry.request("POST", path, token=limited), 404, "not-found")
    untouched = registry.request("POST", "/api/v1/registrations/retry?cause=status-404", token=limited).json()
    assert untouched["retried"] == []


def test_events_tell_of_progress_and_end_with_the_outcome(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _served = artifact(body=b"x" * 300_000, gate=gate)
    registration_id = accepted(registry, submission)
    events: list[tuple[str, dict[str, Any]]] = []
    with requests.get(
        f"{registry.address}/api/v1/registrations/{registration_id}/events",
        headers={"Authorization": f"Bearer {registry.token}"},
        stream=True,
        timeout=PATIENCE_S,
    ) as stream:
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        kind = ""
        for line in stream.iter_lines(decode_unicode=True):
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            if line.startswith("data: "):
                events.append((kind, json.loads(line.removeprefix("data: "))))
                if events[-1][1]["bytesDownloaded"]:
                    gate.set()
    assert events[-1][0] == "outcome"
    assert events[-1][1]["status"] == "registered"
    assert [kind for kind, _document in events[:-1]] == ["progress"] * (len(events) - 1)
    assert any(0 < document["bytesDownloaded"] < 300_000 for _kind, document in events)
    problem(registry.get("/api/v1/registrations/registration-none/events"), 404, "not-found")


def test_a_queued_registration_tells_its_place(registry: Registry, artifact: Artifact) -> None:
    registry.final(accepted(registry, artifact()[0]))  # so that there is a rate to estimate from
    worker = registry.suspend("worker-1")
    try:
        ids = [accepted(registry, artifact()[0]) for _ in range(3)]

        def placed() -> bool:  # what was seen before them may be shown for a while
            first, _second, third = (registry.get(f"/api/v1/registrations/{each}").json() for each in ids)
            return bool(third["estimatedWaitS"]) and third["ahead"] == first["ahead"] + 2

        until(placed, what="their places")
    finally:
        worker.resume()
    assert registry.final(ids[2])["ahead"] is None


def test_metrics_and_snapshot_agree_with_the_store(registry: Registry, artifact: Artifact) -> None:
    registry.final(accepted(registry, artifact()[0]))
    page, _served = artifact(body=b"<!doctype html><html>", headers={"Content-Type": "text/html"})
    registry.final(accepted(registry, page | {"checksum": "sha256:" + "0" * 64}))
    statuses = ("queued", "verifying", "registered", "rejected", "failed", "canceled")

    def agreed() -> dict[tuple[str, frozenset[tuple[str, str]]], float] | None:
        """Return the metrics, once they and the snapshot say what the store says: they may be a look behind."""
        seen, snapshot = metrics(registry), registry.get("/api/v1/snapshot").json().get("registrations")
        stored = {each: _stored(registry, each) for each in statuses}
        told = {each: seen["registrations", frozenset({("status", each)})] for each in statuses}
        return seen if told == snapshot == stored else None

    seen = until(agreed, what="metrics and snapshot that agree with the store")
    outcomes = {labels: value for (name, labels), value in seen.items() if name == "outcomes_total"}
    html = {"status": "rejected", "code": "digest-mismatch", "cause": "html-page", "fault": "submitter"}
    assert outcomes[frozenset(html.items())] >= 1
    assert sum(outcomes.values()) == seen["registration_seconds_count", frozenset()] + _stored(registry, "canceled")
    assert seen["workers_alive", frozenset()] == 1
    assert seen["broker_up", frozenset()] == seen["store_up", frozenset()] == 1
    route = {"method": "POST", "route": "/api/v1/plugins", "status": "202"}
    assert seen["http_requests_total", frozenset(route.items())] >= 2


def _stored(registry: Registry, status: str) -> int:
    number, cursor = 0, ""
    while True:
        page = registry.get(f"/api/v1/registrations?status={status}&limit=200{cursor}").json()
        number += len(page["items"])
        if page["nextCursor"] is None:
            return number
        cursor = f"&cursor={page['nextCursor']}"


def test_metrics_are_for_those_who_may_read(registry: Registry) -> None:
    problem(requests.get(f"{registry.address}/metrics", timeout=PATIENCE_S), 401, "unauthorized")
    problem(registry.get("/metrics", token=make_token(registry, "register")), 403, "forbidden")
    assert registry.get("/metrics", token=make_token(registry, "read")).status_code == 200


def test_an_accept_header_that_makes_no_sense_gets_metrics_all_the_same(registry: Registry) -> None:
    for accept in ("application/openmetrics-text; version=abc", "text/plain;version=x"):
        answer = registry.get("/metrics", headers={"Accept": accept})
        assert (answer.status_code, "plugin_registry_store_up 1.0" in answer.text) == (200, True)


def test_no_label_of_a_metric_is_a_strangers_word(registry: Registry, artifact: Artifact) -> None:
    submission = a_submission(artifactUrl="https://strange-host.invalid/secret-path?key=1", name="strange-name")
    registry.final(accepted(registry, submission))

    def others(which: str) -> float:
        return sum(value for (name, labels), value in metrics(registry).items() if (which, "other") in labels)

    before = others("route"), others("method")
    registry.get("/strange-path/strange")
    registry.request("PROPFIND", "/api/v1/plugins")
    until(lambda: others("route") > before[0] and others("method") > before[1], what="that they are counted")
    assert "strange" not in registry.get("/metrics").text.lower()


# --- the command line ---------------------------------------------------------------------------


def test_queue_shows_what_the_api_shows(registry: Registry, failed: dict[str, Any]) -> None:

    def shows() -> bool:  # what was seen before it failed may be shown for a while
        done = registry.cli("queue", "--json")
        seen = json.loads(done.stdout)
        assert done.returncode == (8 if seen["alerts"] else 0)
        return failed["id"] in {each["id"] for each in seen["failures"]}

    until(shows, what="the failure")
    shown = registry.cli("queue")
    for word in ("queued", "verifying", "holds 0 of", "status-404 (at fault: submitter)"):
        assert word in shown.stdout, shown.stdout


def test_queue_tells_what_has_just_begun_and_wakes_nobody_for_it_yet(registry: Registry) -> None:
    broker = registry.child("valkey-server")
    broker.suspend()
    try:
        until(lambda: _says(registry, "- The broker does not answer"), what="alerts")
    finally:
        broker.resume()


def _says(registry: Registry, sentence: str) -> bool:
    done = registry.cli("queue")
    return done.returncode == 0 and sentence in done.stdout


def test_failures_are_listed_by_cause_and_time(registry: Registry, failed: dict[str, Any]) -> None:
    assert failed["id"] in registry.cli("failures").stdout
    listed = registry.cli("failures", "--cause", "status-404", "--since", "10m", "--json")
    found = json.loads(listed.stdout)["items"]
    assert failed["id"] in {each["id"] for each in found}
    assert {each["problem"]["cause"] for each in found} == {"status-404"}
    later = registry.cli("failures", "--since", "2999-01-01T00:00:00Z")
    assert (later.stdout, later.returncode) == ("", 0)
    for wrong in ("yesterday", "999999d", "0001-01-01"):
        done = registry.cli("failures", "--since", wrong)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)


def test_retry_and_cancel_from_a_shell(
    registry: Registry, failed: dict[str, Any], artifact: Artifact, gate: threading.Event
) -> None:
    again = registry.cli("retry", failed["id"])
    assert again.stdout.startswith("registration-"), again.stderr
    assert registry.final(again.stdout.strip())["retryOf"] == failed["id"]
    assert "are tried again" in registry.cli("retry", "--cause", "status-404").stdout
    assert registry.cli("retry").returncode == 2
    held = accepted(registry, artifact(body=b"x" * 200_000, gate=gate)[0])
    assert "is canceled" in registry.cli("cancel", held).stdout
    assert registry.cli("cancel", failed["id"]).returncode == 6
    assert registry.final(held)["status"] == "canceled"


def test_a_registration_canceled_while_ci_waits_ends_with_9(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _served = artifact(body=b"x" * 200_000, gate=gate)
    registration_id = accepted(registry, submission)
    until(lambda: _bytes_of(registry, registration_id), what="the download")
    ended: list[int] = []
    submissions = _submissions(registry)
    words = ["--name", submission["name"], "--version", "1.0.0", "--type", "log"]
    words += ["--url", submission["artifactUrl"], "--checksum", submission["checksum"]]
    waiting = threading.Thread(target=lambda: ended.append(registry.cli("register", *words).returncode))
    waiting.start()
    until(lambda: _submissions(registry) > submissions, what="the command's own submission, which joins")
    registry.request("POST", f"/api/v1/registrations/{registration_id}/cancel")
    waiting.join()
    assert ended == [9]


def _submissions(registry: Registry) -> int:
    return sum('"POST"' in line and '"/api/v1/plugins"' in line for line in registry.output.read_text().splitlines())


def _bytes_of(registry: Registry, registration_id: str) -> int:
    return int(registry.get(f"/api/v1/registrations/{registration_id}").json()["bytesDownloaded"])


def test_each_attempt_is_told_with_where_it_was_led_and_no_query(registry: Registry, artifact: Artifact) -> None:
    elsewhere, _ = artifact(b"elsewhere")
    led, _ = artifact(b"elsewhere", status=302, headers={"Location": elsewhere["artifactUrl"] + "?signature=secret"})
    registration_id = accepted(registry, led)
    assert registry.final(registration_id)["status"] == "registered"
    answer = registry.get(f"/api/v1/registrations/{registration_id}/attempts")
    (only,) = answer.json()["items"]
    assert (only["number"], only["bytesDownloaded"], only["problem"]) == (1, len(b"elsewhere"), None)
    assert only["hops"] == [elsewhere["artifactUrl"]]
    gone, _ = artifact(status=404)
    rejected = registry.final(accepted(registry, gone))
    (failed,) = registry.get(f"/api/v1/registrations/{rejected['id']}/attempts").json()["items"]
    assert (failed["problem"]["cause"], failed["hops"]) == ("status-404", [])


def test_a_paused_host_is_left_alone_until_it_is_resumed(registry: Registry, artifact: Artifact) -> None:
    submission, _served = artifact()
    host = urlsplit(submission["artifactUrl"]).netloc
    registration_id = accepted(registry, submission)
    paused = registry.cli("pause", host, "--note", "on fire")
    assert paused.returncode == 0, paused.stderr
    try:
        assert f"{host} is paused" in paused.stdout
        seen = registry.get(f"/api/v1/upstreams/{host}").json()
        assert (seen["host"], seen["paused"]["by"]) == (host, "made with the state folder")
        again, never = artifact()
        waiting = accepted(registry, again)
        assert any(f"{host} is paused" in each for each in registry.get("/api/v1/snapshot").json()["notes"])
        since = registry.get("/api/v1/snapshot").json()["takenAt"]
        until(lambda: swept_at(registry) > datetime.fromisoformat(since), what="a sweep")
        assert registry.get(f"/api/v1/registrations/{waiting}").json()["status"] == "queued"
        assert never.requests == []
    finally:
        resumed = registry.cli("resume", host)
    assert resumed.returncode == 0, resumed.stderr
    assert registry.final(waiting)["status"] == "registered"
    assert registry.final(registration_id)["status"] == "registered"
    found = registry.get(f"/api/v1/actions?subject={host}&what=resume").json()["items"]
    assert found[0]["registrationId"] is None
    assert registry.cli("pause", "never-seen.example.com").returncode != 0


def test_an_alert_that_is_acknowledged_says_who_knows_of_it(registry: Registry) -> None:
    done = registry.cli("acknowledge", "no-workers", "--for", "2h", "--note", "being moved")
    assert done.returncode == 0, done.stderr
    assert "no-workers wakes nobody until" in done.stdout
    known = registry.request("POST", "/api/v1/alerts/no-workers/acknowledge?note=mine&forS=60").json()["acknowledged"]
    assert known["note"] == "mine"
    assert registry.request("POST", "/api/v1/alerts/nonsense/acknowledge").status_code == 404
    assert registry.request("POST", "/api/v1/alerts/no-workers/acknowledge?forS=1").status_code == 422
    withdrawn = registry.cli("acknowledge", "no-workers", "--withdraw")
    assert "no-workers wakes people again." in withdrawn.stdout
    whats = [each["what"] for each in registry.get("/api/v1/actions?subject=no-workers").json()["items"]]
    assert whats == ["withdraw", "acknowledge", "acknowledge"]


@pytest.mark.parametrize("path", ["upstreams/x/pause", "upstreams/x/resume", "alerts/no-workers/acknowledge"])
def test_what_concerns_all_needs_a_token_that_may_operate_on_all(registry: Registry, path: str) -> None:
    for token in (make_token(registry, "read"), make_token(registry, "operate", names="ours-*")):
        assert registry.request("POST", f"/api/v1/{path}", token=token).status_code == 403
