"""The feed and the webhooks as agents and operators use them, against a running registry and a real receiver."""

import asyncio
import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from plugin_registry_client import AsyncClient, BadRequest, Client, Event
from standardwebhooks import Webhook

from tests.conftest import a_submission, open_loopback
from tests.e2e.test_operations import make_token
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, Registry, problem, running_registry, until

Artifact = Callable[..., tuple[dict[str, str], Served]]


class Receiver:
    """Takes what webhooks are told; answers as *status* says."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str], bytes]] = []
        self.status = 204
        self.gate: threading.Event | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.told.append((self.path, {key.lower(): value for key, value in self.headers.items()}, body))
                if receiver.gate is not None:
                    receiver.gate.wait(PATIENCE_S)
                self.send_response(receiver.status)
                if 300 <= receiver.status < 400:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def at(self, path: str) -> list[tuple[dict[str, str], bytes]]:
        return [(headers, body) for where, headers, body in self.told if where == path]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def receivers() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def receiver(receivers: Receiver) -> Receiver:
    receivers.status, receivers.gate = 204, None
    return receivers


@pytest.fixture(scope="module")
def telling(origin: Origin, receivers: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    env = {
        **open_loopback(origin.port),
        "REGISTRY_EGRESS_PORTS": f"443,{origin.port},{receivers.port}",
        "REGISTRY_SWEEP_INTERVAL_S": "0.3",
        "REGISTRY_MAX_ATTEMPTS": "1",
    }
    with running_registry(tmp_path_factory.mktemp("events") / "state", env=env) as running:
        yield running


def feed(telling: Registry, after: int | None = None, **options: Any) -> dict[str, Any]:
    params = {} if after is None else {"after": after}
    answer = telling.get("/api/v1/events", params=params | {"limit": 500}, **options)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def newest(telling: Registry) -> int:
    return int(feed(telling)["nextAfter"])


def event_of(telling: Registry, registration_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        items = [each for each in feed(telling)["items"] if each["data"]["registrationId"] == registration_id]
        assert len(items) <= 1
        return items[0] if items else None

    found: dict[str, Any] = until(look, what="the event")
    return found


def make_hook(telling: Registry, url: str, **wanted: Any) -> dict[str, Any]:
    answer = telling.request("POST", "/api/v1/webhooks", json={"url": url, **wanted})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def deliveries(telling: Registry, hook: dict[str, Any], **params: Any) -> list[dict[str, Any]]:
    answer = telling.get(f"/api/v1/webhooks/{hook['id']}/deliveries", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


# --- the feed ------------------------------------------------------------------------------------


def test_what_became_of_a_registration_is_told_once_with_what_an_agent_needs(
    telling: Registry, artifact: Artifact
) -> None:
    submission, _ = artifact()
    plugin = telling.register(submission).json()
    (found,) = telling.get("/api/v1/registrations", params={"name": submission["name"]}).json()["items"]
    event = event_of(telling, found["id"])
    assert event["type"] == "registration.registered"
    assert event["data"] == {
        "registrationId": found["id"],
        "pluginId": plugin["id"],
        **{key: submission[key] for key in ("name", "version", "pluginType", "checksum")},
        **dict.fromkeys(("code", "cause", "fault", "retryable")),
    }
    assert event["timestamp"] == found["updatedAt"]
    missing, _ = artifact(status=404)
    telling.register(missing)
    (found,) = telling.get("/api/v1/registrations", params={"name": missing["name"]}).json()["items"]
    data = event_of(telling, found["id"])["data"]
    assert (data["code"], data["cause"], data["fault"], data["retryable"]) == (
        *("artifact-missing", "status-404", "submitter"),
        False,
    )
    seqs = [each["seq"] for each in feed(telling)["items"]]
    assert seqs == list(range(1, len(seqs) + 1))
    assert feed(telling, seqs[-1]) == {"items": [], "nextAfter": seqs[-1], "newest": seqs[-1]}


def test_a_page_has_its_limit_and_says_what_to_ask_for_next(telling: Registry, artifact: Artifact) -> None:
    before = newest(telling)
    for _ in range(3):
        telling.register(artifact()[0])
    until(lambda: newest(telling) >= before + 3, what="three events")
    read, after = [], before
    while items := telling.get("/api/v1/events", params={"after": after, "limit": 1}).json()["items"]:
        (item,) = items
        read.append(item["seq"])
        after = item["seq"]
    assert read == [before + 1, before + 2, before + 3]


def test_who_cannot_go_on_is_told(telling: Registry) -> None:
    for path in ("/api/v1/events", "/api/v1/events/stream"):
        found = problem(telling.get(path, params={"after": 10**9}), 410, "events-gone")
        assert "without `after`" in found["toDo"]
    for after in ("-1", "x", str(2**63)):
        problem(telling.get("/api/v1/events", params={"after": after}), 422, "invalid-fields")
    for last in ("x", "-1", "1" * 30, "\u00b2", "0" * 20 + "9" * 5000):
        answer = telling.get("/api/v1/events/stream", headers={"Last-Event-ID": last.encode()})
        problem(answer, 400, "malformed-request")


def stream(telling: Registry, into: list[dict[str, Any]], stop: threading.Event, **options: Any) -> threading.Thread:
    """Follow the feed in a thread, until *stop*; return once the stream has begun."""
    begun = threading.Event()

    def follow() -> None:
        headers = {"Authorization": f"Bearer {options.pop('token', telling.token)}", **options.pop("headers", {})}
        url = f"{telling.address}/api/v1/events/stream"
        with requests.get(url, stream=True, headers=headers, timeout=PATIENCE_S, **options) as answer:
            assert answer.status_code == 200
            begun.set()
            event: dict[str, Any] = {}
            for line in answer.iter_lines(chunk_size=None):
                name, _, value = line.decode().partition(": ")
                if name in {"id", "event", "data"}:
                    event[name] = value
                elif not line and event:
                    into.extend([event] if "data" in event else [])
                    event = {}
                if stop.is_set():
                    return

    def follow_while_it_lasts() -> None:
        with suppress(requests.RequestException):
            follow()

    thread = threading.Thread(target=follow_while_it_lasts, daemon=True)
    thread.start()
    assert begun.wait(PATIENCE_S)
    return thread


def test_the_feed_is_followed_as_it_grows_and_gone_on_with_where_it_broke_off(
    telling: Registry, artifact: Artifact
) -> None:
    before, first, stop = newest(telling), list[dict[str, Any]](), threading.Event()
    stream(telling, first, stop)
    telling.register(artifact()[0])
    until(lambda: first, what="the first event")
    assert [each["id"] for each in first] == [str(before + 1)]
    told = json.loads(first[0]["data"])
    assert (first[0]["event"], told["seq"]) == ("registration.registered", before + 1)
    stop.set()
    for _ in range(2):
        telling.register(artifact()[0])
    again: list[dict[str, Any]] = []
    stream(telling, again, threading.Event(), headers={"Last-Event-ID": first[-1]["id"]})
    until(lambda: len(again) >= 2, what="what was missed")
    assert [each["id"] for each in again] == [str(before + 2), str(before + 3)]
    whole: list[dict[str, Any]] = []
    stream(telling, whole, threading.Event(), params={"after": 0})
    until(lambda: len(whole) >= before + 3, what="all of it")
    assert [int(each["id"]) for each in whole] == list(range(1, before + 4))


def test_a_token_that_is_limited_to_names_is_told_of_those(telling: Registry, artifact: Artifact) -> None:
    token = make_token(telling, "read", names="only *")
    told: list[dict[str, Any]] = []
    after = newest(telling)
    stream(telling, told, threading.Event(), token=token, params={"after": after})
    telling.register(artifact()[0])
    telling.register(artifact()[0] | {"name": f"only {after}"})
    until(lambda: told, what="its event")
    assert [json.loads(each["data"])["data"]["name"] for each in told] == [f"only {after}"]
    page = feed(telling, after, token=token)
    assert [each["data"]["name"] for each in page["items"]] == [f"only {after}"]
    assert page["nextAfter"] == newest(telling)
    problem(telling.get("/api/v1/events", token=make_token(telling, "register")), 403, "forbidden")


def test_an_event_that_waits_for_no_sweep_is_there_at_once_for_who_follows(
    telling: Registry, artifact: Artifact
) -> None:
    """Beat is held: nothing is counted by the clock, and the monitor looks seldom."""
    told: list[dict[str, Any]] = []
    with_beat = telling.suspend("beat")
    try:
        stream(telling, told, threading.Event())
        telling.register(artifact()[0])
        until(lambda: told, within_s=4, what="the event, though nobody sweeps, and before the monitor looks")
    finally:
        with_beat.resume()


# --- webhooks ------------------------------------------------------------------------------------


def verified(headers: dict[str, str], body: bytes, secret: str | None, public_key: str) -> dict[str, Any]:
    """Return what was told, if its signatures are good: by the specification's own library, and by the key."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    signatures = [each.split(",", 1) for each in headers["webhook-signature"].split()]
    (ours,) = [base64.b64decode(text) for version, text in signatures if version == "v1a"]
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key.removeprefix("whpk_")))
    key.verify(ours, signed)
    if secret is None:
        assert {version for version, _ in signatures} == {"v1a"}
    else:
        Webhook(secret).verify(body, headers)
    found: dict[str, Any] = json.loads(body)
    return found


def public_key(telling: Registry) -> str:
    (key,) = requests.get(f"{telling.address}/.well-known/plugin-registry-keys", timeout=PATIENCE_S).json()["keys"]
    assert (key["use"], key["algorithm"]) == ("webhooks", "ed25519")
    found: str = key["publicKey"]
    return found


def test_a_hook_is_told_and_can_tell_who_told_it(telling: Registry, artifact: Artifact, receiver: Receiver) -> None:
    hook = make_hook(telling, f"{receiver.url}/signed?key=hunter2", label="bot")
    bare = make_hook(telling, f"{receiver.url}/bare", secret=False)
    assert hook["secret"].startswith("whsec_")
    assert bare["secret"] is None
    assert (hook["signatures"], bare["signatures"]) == (["v1", "v1a"], ["v1a"])
    assert "hunter2" not in json.dumps(telling.get(f"/api/v1/webhooks/{hook['id']}").json())
    submission, _ = artifact()
    telling.register(submission)
    for path, secret in (("/signed?key=hunter2", hook["secret"]), ("/bare", None)):
        until(lambda: receiver.at(path), what="that it is told")  # noqa: B023  # it is called at once
        ((headers, body),) = receiver.at(path)
        told = verified(headers, body, secret, public_key(telling))
        assert told["data"]["name"] == submission["name"]
        assert told["id"] == headers["webhook-id"]
        assert (headers["content-type"], told) == (
            "application/json",
            event_of(telling, told["data"]["registrationId"]),
        )
        assert abs(int(headers["webhook-timestamp"]) - datetime.now(UTC).timestamp()) < PATIENCE_S
    until(lambda: deliveries(telling, hook)[0]["deliveredAt"], what="the note of it")
    (delivery,) = deliveries(telling, hook)
    assert (delivery["status"], delivery["failures"], delivery["dueAt"], delivery["error"]) == (204, 0, None, None)
    for each in (hook, bare):
        assert telling.request("POST", f"/api/v1/webhooks/{each['id']}/remove").status_code == 204
        problem(telling.get(f"/api/v1/webhooks/{each['id']}"), 404, "not-found")


def test_a_hook_that_fails_is_told_again_with_the_same_id_and_another_timestamp(
    telling: Registry, artifact: Artifact, receiver: Receiver
) -> None:
    receiver.status = 500
    hook = make_hook(telling, f"{receiver.url}/again", types=["registration.rejected"])
    telling.register(artifact()[0])
    telling.register(artifact(status=404)[0])
    until(lambda: deliveries(telling, hook) and deliveries(telling, hook)[0]["error"], what="that it failed")
    (delivery,) = deliveries(telling, hook, open="true")
    assert (delivery["status"], delivery["error"], delivery["type"]) == (
        500,
        "It answered 500.",
        "registration.rejected",
    )
    assert telling.get(f"/api/v1/webhooks/{hook['id']}").json()["failingSince"] is not None
    receiver.status = 200
    until(lambda: len(receiver.at("/again")) == 2, what="the second trial, five seconds later")
    (first, body), (second, again) = receiver.at("/again")
    assert first["webhook-id"] == second["webhook-id"]
    assert int(second["webhook-timestamp"]) >= int(first["webhook-timestamp"]) + 4
    assert body == again
    until(lambda: not telling.get(f"/api/v1/webhooks/{hook['id']}").json()["failingSince"], what="that it is well")
    answer = telling.request("POST", f"/api/v1/webhooks/{hook['id']}/deliveries/{delivery['id']}/redeliver")
    assert answer.status_code == 202
    until(lambda: len(receiver.at("/again")) == 3, what="that it is delivered once more")
    problem(telling.request("POST", f"/api/v1/webhooks/{hook['id']}/deliveries/x/redeliver"), 404, "not-found")
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


@pytest.mark.parametrize(("status", "told"), [(301, "no redirect is followed"), (307, "no redirect is followed")])
def test_a_redirect_is_a_failure_and_not_followed(
    telling: Registry, receiver: Receiver, status: int, told: str
) -> None:
    receiver.status = status
    hook = make_hook(telling, f"{receiver.url}/moved{status}")
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/test")
    until(lambda: deliveries(telling, hook)[0]["error"], what="that it failed")
    assert told in deliveries(telling, hook)[0]["error"]
    assert receiver.at("/elsewhere") == []
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


def test_a_hook_that_is_gone_is_disabled_and_enabled_again(telling: Registry, receiver: Receiver) -> None:
    receiver.status = 410
    hook = make_hook(telling, f"{receiver.url}/gone")
    where = f"/api/v1/webhooks/{hook['id']}"
    tried = telling.request("POST", f"{where}/test")
    assert (tried.status_code, tried.json()["type"]) == (202, "webhook.test")
    until(lambda: telling.get(where).json()["disabledAt"], what="that it is disabled")
    assert telling.get(where).json()["disabledWhy"] == "It answered 410: gone."
    receiver.status = 204
    assert telling.request("POST", f"{where}/enable").json()["disabledAt"] is None
    told = json.loads(receiver.at("/gone")[0][1])
    assert (told["type"], told["data"]) == ("webhook.test", {"webhookId": hook["id"]})
    assert told["id"] not in {each["id"] for each in feed(telling)["items"]}
    rotated = telling.request("POST", f"{where}/rotate").json()
    assert rotated["secret"] != hook["secret"]
    telling.request("POST", f"{where}/test")
    until(lambda: len(receiver.at("/gone")) == 2, what="the test")
    headers, body = receiver.at("/gone")[1]
    for secret in (hook["secret"], rotated["secret"]):
        verified(headers, body, secret, public_key(telling))
    telling.request("POST", f"{where}/remove")


@pytest.mark.parametrize(
    ("wanted", "code", "pointer"),
    [
        ({"url": "https://10.0.0.1/hook"}, "forbidden-address", "#/url"),
        ({"url": "ftp://hooks.example.com/"}, "forbidden-url", "#/url"),
        ({"url": "https://hooks.example.com:22/"}, "forbidden-url", "#/url"),
        ({"url": "https://u:hunter2@hooks.example.com/"}, "forbidden-url", "#/url"),
        ({}, "invalid-fields", "#/url"),
        ({"url": "https://h.example.com/", "types": ["x"]}, "invalid-fields", "#/types/0"),
        ({"url": "https://h.example.com/", "names": ["["]}, "invalid-fields", "#/names/0"),
        ({"url": "https://h.example.com/", "label": "a\u202e"}, "invalid-fields", "#/label"),
        ({"url": "https://h.example.com/", "secret": "mine"}, "invalid-fields", "#/secret"),
    ],
)
def test_what_no_hook_can_be_is_refused(telling: Registry, wanted: dict[str, Any], code: str, pointer: str) -> None:
    found = problem(telling.request("POST", "/api/v1/webhooks", json=wanted), 422, code)
    assert [each["pointer"] for each in found["errors"]] == [pointer]
    assert "hunter2" not in json.dumps(found)


def test_hooks_are_for_who_operates_every_name(telling: Registry) -> None:
    for token in (make_token(telling, "read"), make_token(telling, "operate", names="x*")):
        problem(telling.get("/api/v1/webhooks", token=token), 403, "forbidden")
        wanted = {"url": "https://hooks.example.com/"}
        problem(telling.request("POST", "/api/v1/webhooks", json=wanted, token=token), 403, "forbidden")


def test_a_hook_whose_host_is_not_there_is_told_as_that(telling: Registry, receiver: Receiver) -> None:
    hook = make_hook(telling, "https://localhost.localdomain.invalid/hook")
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/test")
    until(lambda: deliveries(telling, hook)[0]["error"], what="that it failed")
    (delivery,) = deliveries(telling, hook)
    assert delivery["status"] is None
    assert "host" in delivery["error"].lower()
    assert "artifact" not in delivery["error"]
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


def test_however_many_deliveries_wait_for_a_slow_host_no_registration_does(
    telling: Registry, artifact: Artifact, receiver: Receiver
) -> None:
    receiver.gate = threading.Event()
    hooks = [make_hook(telling, f"{receiver.url}/slow/{number}") for number in range(20)]
    for each in hooks:
        for _ in range(50):
            telling.request("POST", f"/api/v1/webhooks/{each['id']}/test")
    until(lambda: any("/slow/" in path for path, *_ in receiver.told), what="that the first is held")
    begun = time.monotonic()
    for _ in range(5):
        assert telling.register(artifact()[0]).status_code == 200
    took = time.monotonic() - begun
    assert took < 20, "a delivery takes so long before it is given up"
    assert sum("/slow/" in path for path, *_ in receiver.told) <= 4, "of one host"
    receiver.gate.set()
    for each in hooks:
        telling.request("POST", f"/api/v1/webhooks/{each['id']}/remove")


def test_no_secret_reaches_a_log(telling: Registry, receiver: Receiver) -> None:
    hook = make_hook(telling, f"{receiver.url}/secret?key=hunter2")
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/test")
    until(lambda: receiver.at("/secret?key=hunter2"), what="that it is told")
    receiver.status = 500
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/test")
    for line in ("webhook told", "webhook not told"):
        until(lambda: _logged(telling, line, hook["id"]), what=line)  # noqa: B023  # it is called at once
    written = telling.output.read_text()
    assert hook["secret"].removeprefix("whsec_") not in written
    assert "hunter2" not in written
    shown = telling.get("/api/v1/webhooks").text + telling.get("/api/v1/actions").text
    assert hook["secret"].removeprefix("whsec_") not in shown
    assert "hunter2" not in shown
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


def _logged(telling: Registry, event: str, webhook_id: str) -> bool:
    return any(event in line and webhook_id in line for line in telling.output.read_text().splitlines())


def test_what_operators_see_of_a_url_is_where_it_leads(telling: Registry) -> None:
    url = "https://evil.example.net/x@hooks.good.example/y"
    hook = make_hook(telling, f"{url}?k=1")
    assert hook["url"] == url
    telling.request("POST", f"/api/v1/webhooks/{hook['id']}/remove")


@pytest.mark.parametrize("webhook_id", ["%00", "webhook-x%00", "x", "%2e%2e"])
def test_an_id_that_is_none_finds_nothing(telling: Registry, webhook_id: str) -> None:
    for method, path in (("GET", ""), ("POST", "/test"), ("POST", "/deliveries/%00/redeliver"), ("POST", "/remove")):
        answer = telling.request(method, f"/api/v1/webhooks/{webhook_id}{path}")
        assert answer.status_code in {400, 404}, (method, path)


def test_a_secret_is_changed_once_a_day(telling: Registry, receiver: Receiver) -> None:
    hook, bare = make_hook(telling, f"{receiver.url}/r"), make_hook(telling, f"{receiver.url}/b", secret=False)
    assert telling.request("POST", f"/api/v1/webhooks/{hook['id']}/rotate").status_code == 200
    for each in (hook, bare):
        problem(telling.request("POST", f"/api/v1/webhooks/{each['id']}/rotate"), 409, "wrong-state")
        telling.request("POST", f"/api/v1/webhooks/{each['id']}/remove")


def test_a_submission_has_no_url_in_any_event(telling: Registry) -> None:
    assert "://" not in json.dumps(feed(telling))
    assert a_submission()["artifactUrl"] not in json.dumps(feed(telling))


# --- from a shell, and from Python ----------------------------------------------------------------


def test_a_shell_reads_the_feed_and_makes_hooks(telling: Registry, artifact: Artifact, receiver: Receiver) -> None:
    after = newest(telling)
    submission, _ = artifact(status=404)
    telling.register(submission)
    until(lambda: newest(telling) > after, what="its event")
    read = telling.cli("events", "--after", str(after))
    assert read.stdout.startswith(f"{after + 1}  ")
    assert f"registration.rejected  {submission['name']} 1.0.0  status-404 (at fault: submitter)" in read.stdout
    as_json = telling.cli("events", "--after", str(after), "--json").stdout
    assert [json.loads(line)["seq"] for line in as_json.splitlines()] == [after + 1]
    assert telling.cli("events", "--after", "999999").returncode == 2
    made = telling.cli("webhook", "add", f"{receiver.url}/shell?key=hunter2", "--type", "registration.rejected")
    assert made.returncode == 0, made.stderr
    (secret,) = made.stdout.splitlines()
    assert secret.startswith("whsec_")
    webhook_id = made.stderr.split()[0]
    assert telling.cli("webhook", "test", webhook_id).returncode == 0
    until(lambda: "delivered" in telling.cli("webhook", "deliveries", webhook_id).stdout, what="the delivery")
    delivery_id = telling.cli("webhook", "deliveries", webhook_id).stdout.split()[0]
    assert telling.cli("webhook", "redeliver", webhook_id, delivery_id).returncode == 0
    until(lambda: len(receiver.at("/shell?key=hunter2")) == 2, what="the second")
    assert telling.cli("webhook", "rotate", webhook_id).stdout.startswith("whsec_")
    assert telling.cli("webhook", "rotate", webhook_id).returncode == 6
    listed = telling.cli("webhook", "list").stdout
    assert f"{webhook_id}  {receiver.url}/shell" in listed
    assert "hunter2" not in listed
    assert "is told again" in telling.cli("webhook", "enable", webhook_id).stdout
    assert json.loads(telling.cli("webhook", "remove", webhook_id, "--json").stdout)["removed"] is True
    assert telling.cli("webhook", "remove", webhook_id).returncode == 2
    bare = telling.cli("webhook", "add", f"{receiver.url}/bare2", "--no-secret", "--json")
    assert json.loads(bare.stdout)["secret"] is None
    telling.cli("webhook", "remove", json.loads(bare.stdout)["id"])


def test_an_agent_follows_the_feed_and_misses_nothing_while_the_registry_is_away(
    telling: Registry, artifact: Artifact
) -> None:
    with Client(telling.address, telling.token) as client:
        after = client.newest_event()
        heard: list[Event] = []
        follower = threading.Thread(target=lambda: heard.extend(islice(client.events(after), 3)), daemon=True)
        follower.start()
        telling.register(artifact()[0])
        until(lambda: newest(telling) > after, what="the first event")
        telling.child("api.main").kill()
        until(lambda: _answers(telling), what="that it answers again")
        for _ in range(2):
            telling.register(artifact()[0])
        follower.join(PATIENCE_S)
        assert [each.seq for each in heard] == [after + 1, after + 2, after + 3]
        assert {each.type for each in heard} == {"registration.registered"}
        assert heard[0].data["registrationId"].startswith("registration-")
        assert [each.seq for each in client.events_so_far(after)] == [after + 1, after + 2, after + 3]
        with pytest.raises(BadRequest) as gone:
            next(client.events(10**9))
        assert gone.value.code == "events-gone"


def _answers(telling: Registry) -> bool:
    try:
        return telling.get("/api/v1/events").status_code == 200
    except requests.ConnectionError:
        return False


def test_the_feed_is_awaited_too(telling: Registry, artifact: Artifact) -> None:
    async def heard() -> list[int]:
        async with AsyncClient(telling.address, telling.token) as client:
            seqs: list[int] = []
            async with asyncio.timeout(PATIENCE_S):
                async for event in client.events(after):
                    seqs.append(event.seq)  # there is no end of them
                    if len(seqs) == 2:
                        break
            return seqs

    after = newest(telling)
    for _ in range(2):
        telling.register(artifact()[0])
    assert asyncio.run(heard()) == [after + 1, after + 2]
