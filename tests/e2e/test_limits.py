"""What one client may hold of a running api, and that everybody else is served meanwhile."""

import json
import resource
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import requests

from shared.registration import Operator
from shared.store.database import open_database
from shared.store.registrations import Store
from shared.urls import sqlite_url
from tests.conftest import a_submission
from tests.e2e.test_operations import make_token
from tests.running import (
    COMMAND,
    OUR_WIRE,
    PLAIN_UVICORN,
    Registry,
    clean_environment,
    problem,
    running_api,
    until,
)
from tests.wires import Answer, Wire, wire, wires

SHORT = {
    "REGISTRY_HEAD_TIMEOUT_S": "1",
    "REGISTRY_BODY_TIMEOUT_S": "1",
    "REGISTRY_ANSWER_TIMEOUT_S": "1",
    "REGISTRY_KEEP_ALIVE_S": "1",
    "REGISTRY_MAX_HEAD_BYTES": "8192",
    "REGISTRY_MAX_CONNECTIONS": "40",
    "REGISTRY_MAX_CONNECTIONS_PER_ADDRESS": "30",
}
SMALL = {
    "REGISTRY_SYNC_WAIT_S": "60",
    "REGISTRY_MAX_WAITS_PER_TOKEN": "3",
    "REGISTRY_MAX_WAITS_PER_ADDRESS": "4",
    "REGISTRY_MAX_STREAMS_PER_TOKEN": "2",
    "REGISTRY_MAX_STREAMS_PER_ADDRESS": "3",
    "REGISTRY_MAX_REQUESTS_PER_TOKEN": "8",
    "REGISTRY_BODY_TIMEOUT_S": "60",
    "REGISTRY_KEEP_ALIVE_S": "60",
}


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with running_api(tmp_path_factory.mktemp("short") / "state", env=SHORT) as api:
        yield api


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """An api without workers: what is submitted is never final, so who waits for it waits."""
    with running_api(tmp_path_factory.mktemp("small") / "state", env=SMALL) as api:
        yield api


def request(method: str, path: str, *, token: str = "", body: object = None, **fields: str) -> bytes:
    content = json.dumps(body).encode() if body is not None else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in fields.items())]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"] if content else []
    return "\r\n".join([*lines, "", ""]).encode() + content


def submission(token: str, **fields: str) -> bytes:
    return request("POST", "/api/v1/plugins", token=token, body=a_submission(), **fields)


HEALTH = request("GET", "/healthz")

# --- every setting reaches the wire ---------------------------------------------------------------


def test_a_head_and_a_body_must_come_in_time(short: Registry) -> None:
    with wires(short.port, 2) as (head, body):
        head.send(HEALTH[:-2])
        body.send(submission(short.token)[:-1])
        for each in (head, body):
            answer = each.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (408, "request-timeout")
            assert each.ended()


def test_a_head_may_be_so_large_and_a_kept_connection_idle_for_so_long(short: Registry) -> None:
    with wires(short.port, 2) as (large, idle):
        large.send(request("GET", "/healthz", X="a" * 9000))
        assert large.answer().status == 431
        idle.send(HEALTH)
        assert idle.answer().status == 200
        assert idle.ended()


def test_there_are_so_many_connections_for_each_address_and_in_all(short: Registry) -> None:
    def opened(source: str) -> Wire:
        return connections.enter_context(wire(short.port, source=source))

    with ExitStack() as connections:
        _one_address = [opened("127.0.0.2") for _ in range(30)]
        assert opened("127.0.0.2").answer().status == 429
        others = [opened("127.0.0.3") for _ in range(10)]
        assert 503 in {each.answer().status for each in [*others[8:], opened("127.0.0.4")] if not _silent(each)}
    until(lambda: requests.get(f"{short.address}/healthz", timeout=10).status_code == 200, what="a connection")


def _silent(connection: Wire) -> bool:
    """Whether nothing was said to a connection: it is one of those that may stay for a moment."""
    connection.socket.settimeout(5)
    try:
        return not connection.socket.recv(1, 2)  # MSG_PEEK
    except TimeoutError:
        return True


# --- waiting ------------------------------------------------------------------------------------


def waits(api: Registry, token: str, *, source: str = "127.0.0.1") -> bool:
    """Whether a submission is waited for, and not answered at once."""
    with wire(api.port, source=source) as client:
        client.send(submission(token, Prefer="wait=1"))
        answer = client.answer()
    assert answer.status == 202, "it is taken in any case"
    return "preference-applied" in answer.fields


def test_a_submission_that_finds_no_place_to_wait_is_taken_and_answered_at_once(small: Registry) -> None:
    token, other, third = (make_token(small, "register", "read") for _ in range(3))
    with wires(small.port, 3) as waiting:
        for each in waiting:
            each.send(submission(token))
        until(lambda: not waits(small, token), what="all places of the token being taken")
        with wire(small.port) as client:
            client.send(submission(token))  # by default it would wait for a minute
            answer = client.answer()
            assert answer.status == 202
            taken = json.loads(answer.body)["id"]
        assert small.get(f"/api/v1/registrations/{taken}", token=token).json()["status"] == "queued"
        with wire(small.port) as client:
            client.send(request("GET", f"/api/v1/registrations/{taken}", token=token, Prefer="wait=60"))
            answer = client.answer()
            assert (answer.status, json.loads(answer.body)["status"]) == (200, "queued")
            assert "preference-applied" not in answer.fields
        assert waits(small, other), "each token has places of its own"
        with wire(small.port) as fourth:
            fourth.send(submission(other))
            until(lambda: not waits(small, third), what="all places of the address being taken")
            assert waits(small, third, source="127.0.0.2"), "each address has places of its own"
    until(lambda: waits(small, token), what="places again, when those who waited have vanished")


def test_who_does_not_wait_needs_no_place(small: Registry) -> None:
    with wires(small.port, 3) as waiting:
        for each in waiting:
            each.send(submission(small.token))
        until(lambda: not waits(small, small.token), what="all places being taken")
        answer = small.register(a_submission(), prefer="respond-async")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (202, "respond-async")
    until(lambda: waits(small, small.token), what="places")


# --- event streams --------------------------------------------------------------------------------


def stream(connection: Wire, token: str, registration: str) -> None:
    connection.send(request("GET", f"/api/v1/registrations/{registration}/events", token=token))


def begun(connection: Wire) -> bool:
    """Whether a stream begins; where it is refused, it is a problem that says what to do."""
    head = connection.head()
    if head.status == 200:
        assert head.fields["content-type"].startswith("text/event-stream")
        return True
    assert (head.status, head.fields["content-type"]) == (429, "application/problem+json")
    assert int(head.fields["retry-after"]) > 0
    return False


def test_there_are_so_many_streams_for_each_token_and_each_address(small: Registry) -> None:
    token, other = (make_token(small, "register") for _ in range(2))
    registration = small.register(a_submission(), prefer="respond-async", token=token).json()["id"]

    def follows(token: str, source: str = "127.0.0.1") -> bool:
        connection = streams.enter_context(wire(small.port, source=source))
        stream(connection, token, registration)
        return begun(connection)

    with ExitStack() as streams:
        assert follows(token)
        assert follows(token)
        assert not follows(token)
        assert not follows(token, "127.0.0.2")
        assert follows(other)
        assert not follows(other), "the address has three"
        assert follows(other, "127.0.0.2")
        answer = small.get(f"/api/v1/registrations/{registration}/events", token=token)
        assert "2 event streams" in problem(answer, 429, "too-many-requests")["detail"]

    def all_free() -> bool:
        with ExitStack() as again:
            opened = [again.enter_context(wire(small.port)) for _ in range(2)]
            for each in opened:
                stream(each, token, registration)
            return all(begun(each) for each in opened)

    until(all_free, what="places again, when those who followed have vanished")


def test_the_pages_stream_counts_as_its_sessions_token(small: Registry) -> None:
    token = make_token(small, "register", "read")
    registration = small.register(a_submission(), prefer="respond-async", token=token).json()["id"]
    with requests.Session() as browser:
        browser.post(f"{small.address}/operations/sign-in", data={"token": token}, timeout=10)
        live = f"{small.address}/operations/live"

        def opens() -> bool:
            with browser.get(live, stream=True, timeout=10) as answer:
                assert answer.status_code in {200, 429}
                return answer.status_code == 200

        until(opens, what="a place for the address")
        with ExitStack() as streams:
            for _ in range(2):
                until(partial(_begins, streams, small, token, registration), what="a place for a stream")
            assert not opens()
        until(opens, what="a place again")


def _begins(streams: ExitStack, api: Registry, token: str, registration: str, *, behind: bytes = b"") -> bool:
    connection = streams.enter_context(wire(api.port))
    stream(connection, token, registration)
    connection.send(behind)
    return begun(connection)


def test_a_stream_that_is_refused_or_breaks_holds_nothing(small: Registry) -> None:
    token = make_token(small, "register")
    for path in ("registration-none", "%00", "x" * 200):
        for _ in range(4):
            assert small.get(f"/api/v1/registrations/{path}/events", token=token).status_code == 404
    registration = small.register(a_submission(), prefer="respond-async", token=token).json()["id"]
    for _ in range(4):
        with ExitStack() as streams:  # each vanishes with a second request that waits behind it
            until(partial(_begins, streams, small, token, registration, behind=HEALTH), what="a place")
    with ExitStack() as streams:
        until(partial(_begins, streams, small, token, registration), what="a place")


# --- requests in flight ---------------------------------------------------------------------------


def test_a_token_has_so_many_requests_in_flight(small: Registry) -> None:
    token = make_token(small, "register", "read")
    with wires(small.port, 16) as slow:
        for each in slow:  # half of which will do, whatever else of this token's is in flight
            each.send(submission(token)[:-1])
        (full,) = until(lambda: _refused(small, token), what="eight requests in flight")
        assert "8 requests in flight" in problem(full, 429, "too-many-requests")["detail"]
        assert int(full.headers["Retry-After"]) > 0
        assert small.get("/api/v1/plugins").status_code == 200, "others are served"
    until(lambda: not _refused(small, token), what="places again")


def test_the_command_waits_for_a_place_as_for_anything_that_passes(small: Registry) -> None:
    token = make_token(small, "register", "read")
    followed = small.register(a_submission(), prefer="respond-async").json()["id"]
    name = a_submission()["name"]
    fields = [*("--name", name, "--version", "1.0.0", "--type", "log"), *("--checksum", "sha256:" + "ab" * 32)]
    arguments = ["register", *fields, "--url", "https://artifacts.example.com/x", "--timeout", "10"]
    env = clean_environment({"REGISTRY_URL": small.address, "REGISTRY_TOKEN": token})
    with ExitStack() as held:
        for _ in range(2):  # so that it cannot follow, and has to ask
            until(partial(_begins, held, small, token, followed), what="a place for a stream")
        process = held.enter_context(subprocess.Popen([*COMMAND, *arguments], env=env, stderr=subprocess.PIPE))
        registrations = f"/api/v1/registrations?name={name}"
        until(lambda: small.get(registrations).json()["items"], within_s=60, what="the registration")
        for _ in range(16):
            held.enter_context(wire(small.port)).send(submission(token)[:-1])
        until(lambda: _refused(small, token), what="eight requests in flight")
        _output, said = process.communicate(timeout=60)
    assert process.returncode == 5, said
    assert b"Still queued" in said


def _refused(api: Registry, token: str) -> list[requests.Response]:
    answer = api.get("/api/v1/plugins", token=token)
    return [answer] if answer.status_code == 429 else []


def test_an_api_that_is_told_to_stop_lets_everybody_go(tmp_path: Path) -> None:
    with running_api(tmp_path / "state", env=SMALL) as api, wires(api.port, 6) as clients:
        registration = api.register(a_submission(), prefer="respond-async").json()["id"]
        for each in clients[:2]:
            stream(each, api.token, registration)
            assert begun(each)
        for each in clients[2:4]:
            each.send(submission(api.token))
        clients[4].send(submission(api.token)[:-1])
        clients[5].send(HEALTH[:-2])
        until(lambda: api.get("/api/v1/registrations").json()["items"][2:], what="the submissions")
        api.process.terminate()
        assert api.process.wait(60) in {0, -15}
        assert [each.answer().status for each in clients[2:4]] == [202, 202]
        assert all(each.rest() is not None for each in clients)
        assert "Traceback" not in api.output.read_text()


# --- everything at once -----------------------------------------------------------------------------


@pytest.fixture
def many_files() -> Iterator[None]:
    """A test that is everybody's client has need of as many files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, before[1]), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_connections_leave_files_for_the_store(tmp_path: Path, many_files: None) -> None:
    env = {
        "REGISTRY_MAX_CONNECTIONS_PER_ADDRESS": "0",
        "REGISTRY_HEAD_TIMEOUT_S": "60",
        "REGISTRY_KEEP_ALIVE_S": "60",
    }
    with running_api(tmp_path / "state", open_files=256, env=env) as api, wire(api.port) as early:
        early.send(HEALTH)
        assert early.answer().status == 200
        with ExitStack() as opened:
            connections = [opened.enter_context(wire(api.port)) for _ in range(300)]
            assert any(_refusal(each) == 503 for each in connections[256:])
            for _ in range(5):
                early.send(submission(api.token, Prefer="respond-async"))
                assert early.answer().status == 202
        assert "Too many open files" not in api.output.read_text()


def _refusal(connection: Wire) -> int:
    with suppress(OSError, ConnectionError):
        return connection.answer().status
    return 0


@pytest.mark.timeout(400)
def test_everybody_else_is_served_whatever_hostile_clients_hold(tmp_path: Path, many_files: None) -> None:
    with running_api(tmp_path / "state", env={}, open_files=4096) as api, ExitStack() as hostile:
        token = make_token(api, "register", "read")
        large = {"configSchema": json.dumps({"description": "x" * 60_000})}
        accepted = [api.register(a_submission(**large), prefer="respond-async", token=token) for _ in range(60)]

        def connect(number: int, source: str, first: bytes, *, receives: int | None = None) -> list[Wire]:
            opened = [hostile.enter_context(wire(api.port, source=source, receives=receives)) for _ in range(number)]
            for each in opened:
                with suppress(OSError):  # it was refused
                    each.send(first)
            return opened

        half_heads = connect(320, "127.0.0.2", HEALTH[:-2])
        (endless,) = connect(1, "127.0.0.3", HEALTH[:-2] + b"X: ")
        sender = threading.Thread(target=_send, args=(endless, b"a" * 2**20, 90))
        sender.start()
        follow = request("GET", f"/api/v1/registrations/{accepted[0].json()['id']}/events", token=token)
        streams = [each for number in range(6) for each in connect(250, f"127.0.1.{number + 1}", follow)]
        connect(200, "127.0.0.4", submission(token)[:-1])
        connect(200, "127.0.0.5", request("GET", "/api/v1/registrations?limit=200", token=token), receives=4096)

        refused = sum(each.head().status == 429 for each in streams)
        assert len(streams) - 64 <= refused < len(streams)
        for _ in range(10):
            assert requests.get(f"{api.address}/healthz", timeout=30).status_code == 200
            assert api.register(a_submission(), prefer="respond-async").status_code == 202
        sender.join()
        assert _refusal(endless) in {431, 0}
        assert {_refusal(each) for each in half_heads[256:]} <= {429, 0}
        assert {_refusal(each) for each in half_heads[:200]} == {408}
        assert 1 <= api.output.read_text().count("clients refused") <= 5, "a line a minute"


def _send(connection: Wire, data: bytes, times: int) -> None:
    with suppress(OSError):
        for _ in range(times):
            connection.send(data)


# --- whose request it is ------------------------------------------------------------------------------


def bad_tokens(api: Registry, forwarded: str) -> list[int]:
    """Return how twenty bad tokens are answered, each with another `X-Forwarded-For`."""
    with wire(api.port) as client:
        answers: list[Answer] = []
        for number in range(20):
            client.send(
                request("GET", "/api/v1/plugins", token="prg_bad", **{"X-Forwarded-For": forwarded.format(number)})
            )
            answers.append(client.answer())
    return [each.status for each in answers]


@pytest.mark.parametrize("served_by", [OUR_WIRE, PLAIN_UVICORN], ids=["ours", "uvicorn"])
def test_bad_tokens_are_limited_whatever_their_sender_says_of_its_address(
    tmp_path: Path, served_by: tuple[str, ...]
) -> None:
    with running_api(tmp_path / "state", served_by=served_by, env={"REGISTRY_BAD_TOKENS_A_MINUTE": "10"}) as api:
        began = time.monotonic()
        statuses = [
            status
            for forwarded in (
                "203.0.113.{}",
                "203.0.113.{}:99",
                "203.0.113.{}:9_9",
                "[2001:db8:{}::1]:99",
                "x{}",
                "{}",
            )
            for status in bad_tokens(api, forwarded)
        ]
        grown = 1 + int((time.monotonic() - began) * 10 / 60)
        assert set(statuses[:8]) == {401}
        assert statuses.count(401) <= 2 * (10 + grown), "two names they may count under, the address and none"


def test_bad_tokens_are_counted_by_whom_a_trusted_proxy_names(tmp_path: Path) -> None:
    env = {"REGISTRY_BAD_TOKENS_A_MINUTE": "10", "REGISTRY_TRUSTED_PROXIES": "127.0.0.0/8"}
    with running_api(tmp_path / "state", env=env) as api:
        assert set(bad_tokens(api, "198.51.100.1, 203.0.113.{}, 127.0.0.9")) == {401}
        forged = bad_tokens(api, "203.0.113.{}, 198.51.100.7")
        assert (set(forged[:8]), forged[-1]) == ({401}, 429)


@pytest.mark.parametrize(("trusted", "secure"), [("", False), ("127.0.0.1", True)])
def test_a_trusted_proxy_alone_makes_the_cookie_secure(tmp_path: Path, trusted: str, secure: bool) -> None:
    with running_api(tmp_path / "state", env={"REGISTRY_TRUSTED_PROXIES": trusted}) as api:
        answer = requests.post(
            f"{api.address}/operations/sign-in",
            data={"token": api.token},
            headers={"X-Forwarded-Proto": "https"},
            allow_redirects=False,
            timeout=10,
        )
        assert ("Secure" in answer.headers["Set-Cookie"]) is secure


# --- what one submitter may have in flight --------------------------------------------------------


def test_a_submitter_that_has_its_quota_in_flight_is_told_what_to_do_and_others_are_served(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    env = {"REGISTRY_IN_FLIGHT_PER_TOKEN": "2"}
    with running_api(tmp_path_factory.mktemp("quota") / "state", env=env) as api:
        bodies = [a_submission() for _ in range(3)]
        first, second, third = (api.register(each, prefer="respond-async") for each in bodies)
        assert (first.status_code, second.status_code) == (202, 202)
        refused = problem(third, 429, "quota-used-up")
        assert refused["retryable"] is True
        assert "2 registrations" in refused["detail"]
        assert "REGISTRY_IN_FLIGHT_PER_TOKEN" in refused["detail"]
        assert int(third.headers["Retry-After"]) > 0
        again = api.register(bodies[0], prefer="respond-async")
        assert again.json()["id"] == first.json()["id"], "to send the same again is always safe"
        made = api.cli("token", "create", "--state", str(api.state), "--scope", "register")
        other = api.register(bodies[2], prefer="respond-async", token=made.stdout.strip())
        assert other.status_code == 202


# --- the feed for many --------------------------------------------------------------------------------


def test_a_thousand_that_follow_the_feed_cost_little_and_hear_each_event_once(tmp_path: Path) -> None:
    unlimited = ("STREAMS_PER_TOKEN", "STREAMS_PER_ADDRESS", "REQUESTS_PER_TOKEN", "CONNECTIONS_PER_ADDRESS")
    env = {f"REGISTRY_MAX_{each}": "0" for each in unlimited}
    with running_api(tmp_path / "state", env=env) as api, ExitStack() as open_ones:
        accepted = api.register(a_submission(), prefer="respond-async").json()["id"]
        process = psutil.Process(api.process.pid)
        before = process.memory_info().rss
        wires_ = [open_ones.enter_context(wire(api.port)) for _ in range(1000)]
        for each in wires_:
            each.send(request("GET", "/api/v1/events/stream", token=api.token))
        assert {each.head().status for each in wires_} == {200}
        cost = process.memory_info().rss - before
        assert cost < 100 * 2**20
        with closing(open_database(sqlite_url(api.state / "registry.db"))) as database:
            Store(database).cancel(accepted, Operator("tests", "token-1"))
        for each in wires_:
            begun, told = each.until(b"id: 0\n\n"), each.until(b"id: 1\n") + each.until(b"\n\n")
            assert b"data" not in begun
            assert accepted.encode() in told
