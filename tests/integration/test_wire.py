"""The wire: real sockets against uvicorn with our protocol, and an app that does whatever a test needs of one."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import psutil
import pytest
import uvicorn
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from structlog.testing import capture_logs

from api.http import protocol as wire_module
from api.http.protocol import FIELDS, LINGERING, PIPELINED, Gate, over_our_wire
from shared.settings import Settings
from tests.running import until
from tests.wires import PATIENCE_S, Wire, wire, wires

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SOON = 0.8
"""A limit short enough to wait for."""


class App:
    """Answers by path, and notes what befell it."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.release = asyncio.Event()
        self.asked: list[str] = []
        self.left: list[str] = []
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loop = asyncio.get_running_loop()
        self.asked.append(scope["path"])
        self.running += 1
        try:
            await self._serve(scope, receive, send)
        finally:
            self.running -= 1

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = partial(self._answer, scope, send)
        match scope["path"]:
            case "/deaf":  # reads nothing, until it is let go
                await self.release.wait()
                await answer(b"released")
            case "/held":  # waits until it is let go, or its client has left
                release = asyncio.create_task(self.release.wait())
                await asyncio.wait(
                    {release, left := asyncio.create_task(self._left(scope, receive))}, return_when="FIRST_COMPLETED"
                )
                release.cancel()
                left.cancel()
                await answer(b"held")
            case "/large":
                await answer(bytes(64 * 2**20))
            case "/some":
                await answer(bytes(40_000))
            case "/stream":
                await StreamingResponse(self._endless())(scope, receive, send)
                self.left.append(scope["path"])
            case "/unread":  # answers without a look at the body
                await answer(b"unread")
            case _:
                body = b""
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        self.left.append(scope["path"])
                        return
                    body += message.get("body", b"")
                    if not message.get("more_body"):
                        break
                fields = [(name.decode(), value.decode("latin-1")) for name, value in scope["headers"]]
                await answer(json.dumps({"path": scope["path"], "read": len(body), "fields": fields}).encode())

    async def _left(self, scope: Scope, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left.append(scope["path"])

    async def _endless(self) -> AsyncIterator[bytes]:
        while not self.release.is_set():
            yield bytes(2**18)
            await asyncio.sleep(0)

    async def _answer(self, scope: Scope, send: Send, body: bytes) -> None:
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def let_go(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.release.set)


class Served:
    """A running server."""

    def __init__(self, *, sends: int = 2**18, **limits: Any) -> None:
        self.app = App()
        self.gate = Gate(Settings(**limits))
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, sends)
        self.port: int = self._listener.getsockname()[1]
        self._server = uvicorn.Server(over_our_wire(self.app, self.gate, lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._listener]})
        self._thread.start()

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(PATIENCE_S)
        self._listener.close()

    def idle(self) -> bool:
        """Whether nothing is held of anybody any more."""
        gate = self.gate
        return not (gate.connections or len(gate.by_address) or len(gate.lingering) or self.app.running)


@contextmanager
def served(**limits: Any) -> Iterator[Served]:
    """Serve under *limits*; when the block ends, nothing may be left of any connection."""
    it = Served(**limits)
    try:
        yield it
        until(it.idle, within_s=PATIENCE_S, what="the end of every connection")
    finally:
        if it.app.loop:
            it.app.let_go()
        it.stop()


@pytest.fixture(scope="module")
def quick() -> Iterator[Served]:
    """A server whose limits are short enough to wait for."""
    short = dict.fromkeys(("head_timeout_s", "body_timeout_s", "answer_timeout_s"), SOON)
    with served(**short, keep_alive_s=PATIENCE_S, max_head_bytes=8192) as it:
        yield it


@pytest.fixture(scope="module")
def bodies() -> Iterator[Served]:
    """A server that is quick to lose patience with a body, and with nothing else."""
    with served(body_timeout_s=SOON, head_timeout_s=10 * PATIENCE_S, keep_alive_s=PATIENCE_S) as it:
        yield it


@pytest.fixture(scope="module")
def patient() -> Iterator[Served]:
    """A server whose limits no test meets that is merely slow."""
    limits = ("head_timeout_s", "body_timeout_s", "answer_timeout_s", "keep_alive_s")
    with served(**dict.fromkeys(limits, PATIENCE_S), max_head_bytes=8192) as it:
        yield it


def told(answer_wire: Wire, status: int, code: str) -> str:
    """Check that the next answer is the whole of a problem and the last one; return its detail."""
    answer = answer_wire.answer()
    assert answer.status == status, answer
    assert answer.fields["content-type"] == "application/problem+json"
    assert answer.fields["connection"] == "close"
    document = json.loads(answer.body)
    assert (document["status"], document["code"]) == (status, code)
    assert answer_wire.ended()
    return str(document["detail"])


# --- heads --------------------------------------------------------------------------------------

HALF_HEADS = [b"G", b"\r\n", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1000, GET[:-1]]


@pytest.mark.parametrize("half", HALF_HEADS)
@pytest.mark.parametrize("before", [b"", GET, POST + b"12345"], ids=["first", "after-get", "after-post"])
def test_a_head_that_does_not_come_is_408(quick: Served, half: bytes, before: bytes) -> None:
    with wire(quick.port) as client:
        if before:
            client.send(before)
            assert client.answer().status == 200
        client.send(half)
        assert "within 0.8 s" in told(client, 408, "request-timeout")


def test_a_head_that_came_in_part_with_the_request_before_is_408_after_its_answer(quick: Served) -> None:
    with wire(quick.port) as client:
        client.send(GET + GET[:10])
        assert client.answer().status == 200
        told(client, 408, "request-timeout")


@pytest.mark.parametrize(
    "drip", [b"GET / HTTP/1.1\r\nX: " + b"a" * 4000, b"\r\n" * 2000], ids=["header", "blank-lines"]
)
def test_a_byte_now_and_then_does_not_put_the_end_off(quick: Served, drip: bytes) -> None:
    with wire(quick.port) as client:
        client.trickle(drip, pause_s=0.05)
        told(client, 408, "request-timeout")


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    with served(head_timeout_s=SOON, keep_alive_s=SOON) as it, wires(it.port, 3) as (silent, kept, late):
        kept.send(GET)
        assert kept.answer().status == 200
        late.send(POST.replace(b" / ", b" /unread "))
        assert late.answer().status == 200
        late.send(b"12345")  # and is idle from then on
        assert all(each.ended() for each in (silent, kept, late))


def head_of(size: int) -> bytes:
    return b"GET / HTTP/1.1\r\nX: " + b"a" * (size - 23) + b"\r\n\r\n"


def test_a_head_is_as_large_as_the_limit_says_and_no_larger(patient: Served) -> None:
    with wire(patient.port) as client:
        client.send(head_of(8192))
        assert client.answer().status == 200
        client.send(head_of(8193))
        assert "8192 bytes" in told(client, 431, "head-too-large")


@pytest.mark.parametrize("fields", [FIELDS, FIELDS + 1])
def test_a_head_has_so_many_fields_at_most(patient: Served, fields: int) -> None:
    with wire(patient.port) as client:
        client.send(b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * fields + b"\r\n")
        if fields == FIELDS:
            assert client.answer().status == 200
        else:
            told(client, 431, "head-too-large")


ENDLESS = {
    "header": (b"GET / HTTP/1.1\r\nX: ", b"a" * 2**16),
    "headers": (b"GET / HTTP/1.1\r\n", b"a:b\r\n" * 2**14),
    "path": (b"GET /", b"a" * 2**16),
    "blank-lines": (b"", b"\r\n" * 2**15),
    "trailer": (CHUNKED + b"0\r\nX: ", b"a" * 2**16),
    "trailers": (CHUNKED + b"0\r\n", b"a:b\r\n" * 2**14),
    "chunk-extension": (CHUNKED + b"1;", b"a" * 2**16),
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_goes_on_for_ever_is_431_and_is_kept_nowhere(kind: str) -> None:
    begin, more = ENDLESS[kind]
    with served() as it, wire(it.port) as client:
        before = psutil.Process().memory_info().rss
        client.send(begin)
        sender = threading.Thread(target=_send_until_it_breaks, args=(client, more, 90 * 2**20 // len(more)))
        sender.start()
        told(client, 431, "head-too-large")
        client.socket.close()
        sender.join()
        assert psutil.Process().memory_info().rss - before < 30 * 2**20


def _send_until_it_breaks(client: Wire, more: bytes, times: int) -> None:
    try:
        for _ in range(times):
            client.send(more)
    except OSError:
        pass


def test_a_body_may_be_much_larger_than_a_head(patient: Served) -> None:
    size = 3 * 2**20
    with wire(patient.port) as client:
        for head, body in (
            (POST.replace(b"5", str(size).encode()), b"b" * size),
            (CHUNKED, b"%x\r\n" % size + b"b" * size + b"\r\n0\r\n\r\n"),
            (CHUNKED, b"a\r\nbbbbbbbbbb\r\n" * 2_000 + b"0\r\n\r\n"),
        ):
            client.send(head + body)
            assert json.loads(client.answer().body)["read"] in {size, 20_000}


def test_trailers_are_not_headers(patient: Served) -> None:
    with wire(patient.port) as client:
        client.send(CHUNKED + b"1\r\nb\r\n0\r\nX-Forwarded-For: 203.0.113.5\r\n\r\n")
        assert [name for name, _ in json.loads(client.answer().body)["fields"]] == ["host", "transfer-encoding"]


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\x00 / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT host:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        CHUNKED + b"x\r\n",
    ],
)
def test_what_is_no_http_is_400(patient: Served, garbage: bytes) -> None:
    with wire(patient.port) as client:
        client.send(garbage)
        told(client, 400, "malformed-request")


# --- bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [POST, POST + b"1234", CHUNKED, CHUNKED + b"5\r\n12", CHUNKED + b"1\r\n1\r\n0\r\n"])
def test_a_body_that_does_not_come_is_408_and_its_app_is_told(bodies: Served, half: bytes) -> None:
    left = len(bodies.app.left)
    with wire(bodies.port) as client:
        client.send(half)
        assert "within 0.8 s" in told(client, 408, "request-timeout")
    until(lambda: len(bodies.app.left) == left + 1, what="the app being told")


def test_a_body_that_trickles_is_408(bodies: Served) -> None:
    with wire(bodies.port) as client:
        client.send(POST.replace(b"5", b"5000"))
        client.trickle(b"b" * 4999, pause_s=0.05)
        told(client, 408, "request-timeout")


def test_a_body_that_the_app_does_not_read_is_408(caplog: pytest.LogCaptureFixture) -> None:
    with served(body_timeout_s=SOON) as it, wire(it.port) as client:
        client.send(POST.replace(b" / ", b" /deaf ").replace(b"5", b"%d" % 10**9))
        sender = threading.Thread(target=_send_until_it_breaks, args=(client, b"b" * 2**16, 10**9 // 2**16))
        sender.start()
        told(client, 408, "request-timeout")
        it.app.let_go()  # what it says now is not an answer to anything
        until(lambda: not it.app.running, what="the end of the app's work")
        client.socket.close()
        sender.join()
    assert not caplog.records


def test_who_is_refused_may_send_the_rest_and_read_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "LINGER_S", PATIENCE_S)
    with served(body_timeout_s=SOON) as it, wire(it.port) as client:
        client.send(POST.replace(b" / ", b" /deaf ").replace(b"5", b"%d" % 2**30))
        until(lambda: it.app.running, what="the request")
        client.send(b"b" * 2**26)  # more than what lies between us can hold
        told(client, 408, "request-timeout")
        it.app.let_go()


def test_a_body_that_goes_on_after_the_answer_ends_too(bodies: Served) -> None:
    with wire(bodies.port) as client:
        client.send(POST.replace(b" / ", b" /unread ").replace(b"5", b"5000"))
        assert client.answer().status == 200
        client.trickle(b"b" * 4999, pause_s=0.05)
        assert client.ended()


@pytest.mark.parametrize("more", [b"2345", b"23"])
def test_a_request_that_waits_for_its_turn_has_its_time_for_the_body_from_then_on(more: bytes) -> None:
    with served(body_timeout_s=SOON) as it, wires(it.port, 2) as (client, other):
        client.send(GET.replace(b" / ", b" /held ") + POST + b"1")
        other.send(POST)
        told(other, 408, "request-timeout")  # so long it takes
        it.app.let_go()
        assert client.answer().body == b"held"
        client.send(more)
        if len(more) == 4:
            assert client.answer().status == 200
        else:
            told(client, 408, "request-timeout")


def test_a_body_has_longer_than_a_head_where_the_settings_say_so() -> None:
    with served(head_timeout_s=SOON, keep_alive_s=SOON) as it, wires(it.port, 2) as (body, head):
        body.send(POST)
        head.send(GET[:-2])
        told(head, 408, "request-timeout")  # so long it takes
        body.send(b"12345")
        assert body.answer().status == 200


# --- answers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [b"/large", b"/stream"])
@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["kept", "closing"])
def test_who_does_not_take_an_answer_is_let_go(quick: Served, path: bytes, version: bytes) -> None:
    refused = quick.gate.refused["unread-answer"]
    with wire(quick.port, receives=4096) as client:
        client.send(b"GET " + path + b" HTTP/" + version + b"\r\nHost: x\r\n\r\n")
        until(lambda: quick.gate.refused["unread-answer"] > refused, within_s=PATIENCE_S, what="being cut off")
        until(lambda: not quick.app.running, within_s=PATIENCE_S, what="the end of the app's work")


@pytest.mark.parametrize("version", [b"1.1", b"1.0"], ids=["kept", "closing"])
def test_who_does_not_take_the_end_of_an_answer_is_let_go_too(version: bytes) -> None:
    with served(sends=4096, answer_timeout_s=SOON, keep_alive_s=SOON) as it, wire(it.port, receives=4096) as client:
        client.send(b"GET /some HTTP/" + version + b"\r\nHost: x\r\n\r\n")
        until(lambda: it.gate.refused["unread-answer"], within_s=PATIENCE_S, what="being cut off")


def test_all_that_is_not_taken_fills_no_more_than_it_may() -> None:
    with (
        served(max_unread_bytes=160 * 2**20, answer_timeout_s=PATIENCE_S) as it,
        wires(it.port, 6, receives=4096) as clients,
    ):
        for each in clients:
            each.send(GET.replace(b" / ", b" /large "))
        until(lambda: it.gate.refused["unread-answer"] >= 4, within_s=PATIENCE_S, what="some being cut off")
        until(lambda: len(it.gate.connections) == 2, within_s=PATIENCE_S, what="the others being left")
        for each in clients:
            each.close()


def test_who_takes_an_answer_gets_it_whole(patient: Served) -> None:
    with wire(patient.port) as client:
        client.send(GET.replace(b" / ", b" /large "))
        assert len(client.answer().body) == 64 * 2**20


def test_who_does_not_take_an_answer_does_not_hold_up_the_end() -> None:
    it = Served()
    with wires(it.port, 5, receives=4096) as clients:
        for each in clients:
            each.send(GET.replace(b" / ", b" /stream "))
        until(lambda: it.app.running == 5, what="the streams")
        it.stop()
        assert it.idle()


# --- connections --------------------------------------------------------------------------------


def test_an_address_has_so_many_connections_and_others_have_theirs() -> None:
    with (
        served(max_connections_per_address=4, keep_alive_s=PATIENCE_S) as it,
        wires(it.port, 4) as mine,
        wire(it.port, source="127.0.0.2") as other,
    ):
        for each in (*mine, other):
            each.send(GET)
            assert each.answer().status == 200
        for _ in range(3):
            with wire(it.port) as refused:
                assert "4 connections" in told(refused, 429, "too-many-requests")
        mine[0].close()
        until(lambda: len(it.gate.by_address) == 4, what="a place")
        with wire(it.port) as again:
            again.send(GET)
            assert again.answer().status == 200


def test_a_trusted_proxy_has_as_many_connections_as_there_are() -> None:
    with (
        served(
            max_connections_per_address=2, max_connections=6, trusted_proxies="127.0.0.9", keep_alive_s=PATIENCE_S
        ) as it,
        wires(it.port, 6, source="127.0.0.9") as proxies,
    ):
        for each in proxies:
            each.send(GET)
            assert each.answer().status == 200
        with wire(it.port, source="127.0.0.9") as refused:
            refused.send(GET)
            assert "6 connections" in told(refused, 503, "overloaded")


def test_who_is_refused_a_connection_is_told_when_to_come_again() -> None:
    for limits in ({"max_connections": 1}, {"max_connections_per_address": 1}):
        with served(**limits, keep_alive_s=PATIENCE_S) as it, wire(it.port), wire(it.port) as refused:
            refused.send(GET)
            assert int(refused.answer().fields["retry-after"]) > 0


def test_many_that_are_refused_at_once_cost_no_more_than_a_few_connections() -> None:
    with (
        served(max_connections=2, head_timeout_s=PATIENCE_S) as it,
        wires(it.port, 2),
        wires(it.port, 200) as refused,
    ):
        for each in refused:
            assert each.rest().startswith(b"HTTP/1.1 503 ") or not each.rest()
        assert len(it.gate.connections) <= 2 + LINGERING


def test_who_was_refused_and_stays_is_cut_off() -> None:
    with served(max_head_bytes=4096) as it, wire(it.port) as client:
        client.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 5000)
        assert client.answer().status == 431
        until(lambda: not it.gate.connections, within_s=PATIENCE_S, what="the end of the connection")


# --- several requests on one connection -----------------------------------------------------------


def path_of(number: int) -> bytes:
    return GET.replace(b" / ", b" /%d " % number)


def test_what_is_pipelined_is_answered_in_order(patient: Served) -> None:
    with wire(patient.port) as client:
        for first in (0, PIPELINED):
            client.send(b"".join(path_of(first + number) for number in range(PIPELINED)))
            for number in range(PIPELINED):
                assert json.loads(client.answer().body)["path"] == f"/{first + number}"


def test_bodies_and_heads_may_come_in_any_pieces(patient: Served) -> None:
    requests = POST + b"12345" + CHUNKED + b"5\r\n12345\r\n0\r\n\r\n" + GET + POST + b"12345"
    for size in (1, 7, 64, len(requests)):
        with wire(patient.port) as client:
            client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for at in range(0, len(requests), size):
                client.send(requests[at : at + size])
            assert [json.loads(client.answer().body)["read"] for _ in range(4)] == [5, 5, 0, 5]


def test_more_than_may_be_pipelined_is_not_read_and_what_was_is_answered(patient: Served) -> None:
    asked = len(patient.app.asked)
    with wire(patient.port) as client:
        client.send(b"".join(path_of(number) for number in range(5000)))
        for number in range(PIPELINED + 1):
            assert json.loads(client.answer().body)["path"] == f"/{number}"
        assert client.ended()
    assert len(patient.app.asked) == asked + PIPELINED + 1


@pytest.mark.parametrize(
    "behind", [b"garbage\r\n\r\n", b"\x16\x03", b"GET / HTTP/1.1\r\nX: " + b"a" * 9000, CHUNKED + b"x\r\n"]
)
def test_a_refusal_is_not_taken_for_the_answer_to_what_was_asked_before(behind: bytes) -> None:
    with served(max_head_bytes=8192) as it, wire(it.port) as client:
        client.send(GET.replace(b" / ", b" /held ") + GET)
        until(lambda: "/held" in it.app.asked, what="the first request")
        client.send(behind)
        until(lambda: it.gate.refused, what="the refusal")
        it.app.let_go()
        assert client.answer().body == b"held"
        assert client.answer().status == 200
        assert client.ended()


def test_a_client_that_vanishes_takes_along_the_request_whose_turn_it_is() -> None:
    with served() as it:
        with wire(it.port) as client:
            client.send(GET.replace(b" / ", b" /held ") + GET)
            until(lambda: it.app.running, what="the first request")
        until(lambda: it.app.left == ["/held"], what="the app being told")
        assert it.app.asked == ["/held"], "the second had not its turn"


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
def test_another_protocol_that_is_offered_is_declined_by_an_answer(patient: Served, protocol: bytes) -> None:
    upgrade = b"\r\nConnection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
    with wire(patient.port) as client:
        chunked, none = CHUNKED[:-4] + upgrade + b"2\r\n12\r\n0\r\n\r\n", POST.replace(b"5", b"0")[:-4] + upgrade
        client.send(GET[:-4] + upgrade + GET + POST[:-4] + upgrade + b"12345" + GET + chunked + none + GET)
        assert [json.loads(client.answer().body)["read"] for _ in range(7)] == [0, 0, 5, 0, 2, 0, 0]
        for at in range(len(chunked)):
            client.send(chunked[at : at + 1])
        assert json.loads(client.answer().body)["read"] == 2


def test_a_body_that_is_not_for_us_is_refused_behind_an_offer_of_another_protocol_too(
    patient: Served, caplog: pytest.LogCaptureFixture
) -> None:
    offered = POST.split(b"\r\n")[0] + b"\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    with wire(patient.port) as client:
        client.send(offered + b"Transfer-Encoding: gzip\r\n\r\n12345")
        told(client, 400, "malformed-request")
    assert "Traceback" not in caplog.text


def test_a_body_in_crumbs_is_refused_and_one_in_pieces_is_not(patient: Served) -> None:
    with wire(patient.port) as client:
        client.send(CHUNKED + b"1\r\nb\r\n" * 4000 + b"0\r\n\r\n")
        assert json.loads(client.answer().body)["read"] == 4000
        client.send(CHUNKED + b"1\r\nb\r\n" * 5000 + b"0\r\n\r\n")
        assert "larger ones" in told(client, 400, "malformed-request")


# --- ordinary clients ---------------------------------------------------------------------------


def test_a_client_may_ask_before_it_sends_a_body(patient: Served) -> None:
    with wire(patient.port) as client:
        client.send(POST[:-2] + b"Expect: 100-continue\r\n\r\n")
        assert client.answer().status == 100
        client.send(b"12345")
        assert json.loads(client.answer().body)["read"] == 5


def test_http_1_0_and_connection_close_end_after_the_answer(patient: Served) -> None:
    for head in (GET.replace(b"1.1", b"1.0"), GET[:-2] + b"Connection: close\r\n\r\n"):
        with wire(patient.port) as client:
            client.send(head + b"x" * 100)
            assert client.answer().fields["connection"] == "close"
            assert client.ended()


# --- what is said of it -------------------------------------------------------------------------


def test_refusals_are_counted_in_one_line_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_module, "LOGGED_EVERY_S", 2.0)
    with capture_logs() as lines, served() as it:
        for _ in range(50):
            with wire(it.port) as client:
                client.send(b"garbage\r\n\r\n")
                assert client.answer().status == 400
        said = len(lines)
        until(lambda: sum(each["malformed"] for each in lines) == 50, what="the count")
    assert said <= 25, "however slow this machine is, it is not a line for each"
    assert {each["last_from"] for each in lines} == {"127.0.0.1"}
