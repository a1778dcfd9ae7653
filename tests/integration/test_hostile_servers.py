"""What a worker makes of hosts that lie, stall, flood and trick: real sockets, a real store, the composed worker.

Wherever a body is served that a lenient client would take, its digest is the declared one: so that
leniency shows as a registration.
"""

import fcntl
import gzip
import os
import socket
import ssl
import termios
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import trustme

from shared.registration import Status
from tests.contracts import now
from tests.hostile_server import (
    BODY,
    CHUNK,
    CHUNKED,
    ETAG,
    LAST_CHUNK,
    LENGTH,
    OK,
    Behaviour,
    HostileServer,
    Over,
    Wire,
    announcing_far_too_much,
    answering,
    answering_before_it_is_asked,
    breaking_after_each_byte,
    closing_at_once,
    closing_before_the_last_chunk,
    closing_in_a_chunk,
    closing_in_the_body,
    closing_in_the_head,
    closing_in_the_status_line,
    closing_when_asked_again,
    endless_body,
    endless_chunk,
    endless_chunk_extension,
    endless_chunk_of_negative_size,
    endless_chunk_size,
    endless_chunks,
    endless_continue,
    endless_early_hints,
    endless_header_line,
    endless_header_lines,
    endless_status_line,
    endless_trailer,
    endless_trailers,
    gzip_bomb,
    keeping_the_connection,
    mute,
    nested_gzip_bomb,
    never_answering,
    redirecting,
    redirecting_for_ever,
    redirecting_nowhere,
    redirecting_times,
    redirecting_with_an_endless_body,
    resetting_a_body_without_length,
    resetting_at_once,
    resetting_in_a_chunk,
    resetting_in_the_body,
    resetting_when_asked_again,
    self_signed,
    serving,
    serving_chunked,
    serving_once,
    serving_whatever_is_asked,
    tls_with,
    trickled_body,
    trickled_body_without_length,
    trickled_chunks,
    trickled_handshake,
    trickled_headers,
    trickled_interim_responses,
    trickled_trailers,
    with_chunk_size,
    with_length,
    with_transfer_encoding,
    without_status_line,
)
from tests.running import PATIENCE_S, until
from tests.workbench import (
    BAD_CERTIFICATE,
    BAD_REDIRECT,
    BAD_RESPONSE,
    BUSY,
    CONNECT_FAILED,
    DEADLINE_PASSED,
    FORBIDDEN_ADDRESS,
    LED_ASTRAY,
    MAX_BYTES,
    MISMATCH,
    MISSING,
    READ_TIMEOUT,
    REGISTERED,
    TOO_LARGE,
    TRUNCATED,
    Verdict,
    Workbench,
    attempted,
    cases,
    named,
    queued,
)
from worker.attempt import LeaseLost
from worker.fetch.parser import MAX_HEAD_BYTES
from worker.fetch.resolver import Resolver

DELAYED_ACK_S = 0.04
"""How long Linux waits with an acknowledgement, at least."""


@pytest.fixture(autouse=True)
def _close_what_one_test_had(bench: Workbench) -> Iterator[None]:
    yield
    bench.close_others()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in os.environ if each.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def _connections_kept_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.fetch.client.KEPT_S", PATIENCE_S)


# First that the bench itself is sound: a red test below is then the host's doing


@pytest.mark.parametrize("behave", named(serving, serving_chunked, answering(OK)))
def test_an_honest_host_is_believed(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    (request,) = server.requests
    assert request.all("Accept-Encoding") == ["identity"]
    assert request.all("Authorization") == request.all("Cookie") == []


# Time


@pytest.mark.parametrize(
    "behave",
    named(
        trickled_body,
        trickled_body_without_length,
        trickled_chunks,
        trickled_headers,
        trickled_trailers,
        trickled_interim_responses,
    ),
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_host_without_an_end_is_left_at_the_deadline(
    bench: Workbench, tls: ssl.SSLContext, behave: Behaviour, scheme: str
) -> None:
    with HostileServer(behave, tls=tls if scheme == "https" else None) as server:
        outcome = attempted(bench.verifier(fetch_deadline_s=2), server.url, deadline_s=2)
    assert outcome.verdict == DEADLINE_PASSED


def test_a_host_that_never_answers_is_left(bench: Workbench) -> None:
    with HostileServer(never_answering) as server:
        outcome = attempted(bench.verifier(fetch_deadline_s=1), server.url, deadline_s=1)
        assert outcome.verdict in {DEADLINE_PASSED, READ_TIMEOUT}, "a read may end a moment before the deadline"
        assert attempted(bench.verifier(read_timeout_s=0.3), server.url, deadline_s=0.3).verdict == READ_TIMEOUT


def test_a_handshake_that_never_begins_is_a_failed_connection(bench: Workbench) -> None:
    with HostileServer(mute, scheme="https") as server:
        assert attempted(bench.verifier(connect_timeout_s=1), server.url, deadline_s=1).verdict == CONNECT_FAILED


def test_a_trickled_handshake_is_left_at_the_deadline(bench: Workbench) -> None:
    with HostileServer(trickled_handshake, scheme="https") as server:
        outcome = attempted(bench.verifier(fetch_deadline_s=1), server.url, deadline_s=1)
    assert outcome.verdict in {DEADLINE_PASSED, CONNECT_FAILED}


def test_what_speaks_no_tls_is_a_failed_connection(bench: Workbench) -> None:
    with HostileServer(lambda wire: wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"), scheme="https") as server:
        assert attempted(bench.verifier(), server.url).verdict == CONNECT_FAILED


def test_a_host_that_breaks_off_after_each_byte_gets_no_more_time(bench: Workbench) -> None:
    with HostileServer(breaking_after_each_byte) as server:
        outcome = attempted(bench.verifier(fetch_deadline_s=1), server.url, deadline_s=1)
    assert outcome.verdict in {DEADLINE_PASSED, TRUNCATED}


# Connections that are kept


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "length": serving_whatever_is_asked(),
            "chunks": serving_whatever_is_asked(OK, CHUNKED, body=CHUNK + LAST_CHUNK),
        }
    ),
)
@pytest.mark.parametrize("secure", [False, True])
def test_the_next_download_comes_on_the_connection_of_the_last(
    bench: Workbench, tls: ssl.SSLContext, behave: Behaviour, secure: bool
) -> None:
    with HostileServer(behave, tls=tls if secure else None) as server:
        for _ in range(3):
            assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert (server.connections, len(server.requests)) == (1, 3)


def test_a_kept_connection_is_cut_off_at_the_deadline_as_any_other(bench: Workbench) -> None:
    verifier = bench.verifier(fetch_deadline_s=2)
    with HostileServer(keeping_the_connection) as server:
        assert attempted(verifier, server.url, deadline_s=2).verdict == REGISTERED
        assert attempted(verifier, server.url, deadline_s=2).verdict == DEADLINE_PASSED
    assert server.connections == 1


def test_who_is_done_with_a_connection_can_not_cut_it_off(bench: Workbench) -> None:
    verifier = bench.verifier()
    with HostileServer(serving_whatever_is_asked()) as server:
        attempt = verifier.claimed(queued(verifier, server.url))
        verifier.fetch(attempt)
        verifier.cut_off(attempt, LeaseLost("much later"))
        assert attempted(verifier, server.url).verdict == REGISTERED
    assert server.connections == 1


def test_who_was_cut_off_leaves_kept_connections_alone(bench: Workbench) -> None:
    verifier = bench.verifier()
    with HostileServer(serving_whatever_is_asked()) as server:
        attempt = verifier.claimed(queued(verifier, server.url))
        assert attempted(verifier, server.url).verdict == REGISTERED
        verifier.cut_off(attempt, LeaseLost("before it began"))
        with pytest.raises(LeaseLost):
            verifier.fetch(attempt)
        assert attempted(verifier, server.url).verdict == REGISTERED
    assert server.connections == 1


def test_who_is_cut_off_leaves_no_connection_to_others(bench: Workbench) -> None:
    verifier = bench.verifier()
    begun = threading.Event()

    def stall_at_first(wire: Wire) -> None:
        if not begun.is_set():
            wire.head(OK, LENGTH)
            wire.send(BODY[:-1])
            begun.set()
            wire.pause(1)
            wire.send(BODY[-1:])
        serving_whatever_is_asked()(wire)

    with HostileServer(stall_at_first) as server, ThreadPoolExecutor(1) as pool:
        attempt = verifier.claimed(queued(verifier, server.url))
        fetching = pool.submit(verifier.fetch, attempt)
        assert begun.wait(PATIENCE_S)
        verifier.cut_off(attempt, LeaseLost("in the middle"))
        with pytest.raises(LeaseLost):
            fetching.result()
        assert attempted(verifier, server.url).verdict == REGISTERED
    assert server.connections == 2


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "closes": serving_once(lambda _wire: None),
            "closes-when-asked": serving_once(closing_when_asked_again),
            "resets-when-asked": serving_once(resetting_when_asked_again),
            "answers-unasked": serving_once(answering_before_it_is_asked),
            "sends-more": serving_once(serving_whatever_is_asked(), and_more=b"x"),
            "sends-another-answer": serving_once(
                serving_whatever_is_asked(), and_more=b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
            ),
            "says-it-closes": serving_whatever_is_asked(OK, LENGTH, "Connection: close"),
            "http-1.0": serving_whatever_is_asked("HTTP/1.0 200 OK", LENGTH, "Connection: keep-alive"),
        }
    ),
)
@pytest.mark.parametrize("secure", [False, True])
def test_what_is_not_fit_to_be_kept_is_not_used_again(
    bench: Workbench, tls: ssl.SSLContext, behave: Behaviour, secure: bool
) -> None:
    with HostileServer(behave, tls=tls if secure else None) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
        time.sleep(0.5)  # what it does then has come
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.connections == 2


def test_on_a_kept_connection_a_head_is_acknowledged_at_once(bench: Workbench) -> None:
    """Or a host that sends its body when its head was acknowledged, as Nagle's algorithm has it, waits 40 ms."""
    waited_s: list[float] = []

    def serve_apart(wire: Wire) -> None:
        while True:
            wire.await_request()
            wire.head(OK, LENGTH)
            sent = time.monotonic()
            while int.from_bytes(fcntl.ioctl(wire._connection, termios.TIOCOUTQ, bytes(4)), "little"):
                time.sleep(0.0002)
            waited_s.append(time.monotonic() - sent)
            wire.send(BODY)
            wire.request = None

    verifier = bench.verifier()
    with HostileServer(serve_apart) as server:
        for _ in range(10):
            assert attempted(verifier, server.url).verdict == REGISTERED
    assert server.connections == 1
    assert min(waited_s[1:]) < DELAYED_ACK_S / 2, "the best of them: the machine may be busy"


def test_a_kept_connection_is_for_its_own_name_alone(bench: Workbench) -> None:
    other = "other.example.com"
    names = Names(["127.0.1.1"])
    verifier = bench.verifier_of_names(names)
    with HostileServer(serving_whatever_is_asked(), address="127.0.1.1") as server:
        for name in (NAME, other, NAME, other):
            assert attempted(verifier, server.url_of(name)).verdict == REGISTERED
    assert names.asked == [NAME, other]
    assert [request.all("host") for request in server.requests] == [
        [f"{name}:{server.port}"] for name in (NAME, other, NAME, other)
    ]


def test_a_kept_connection_stays_with_the_address_that_was_checked(bench: Workbench) -> None:
    verifier = bench.verifier_of_names(Names(["127.0.1.1"], ["127.0.0.2"]))
    with (
        HostileServer(serving_whatever_is_asked(), address="127.0.1.1") as server,
        HostileServer(serving, address="127.0.0.2", port=server.port) as forbidden,
    ):
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
    assert (server.connections, forbidden.connections) == (1, 0)


@pytest.mark.parametrize(("limit", "value"), [("KEPT_S", 0.1), ("KEPT_AT_MOST", 0)])
def test_a_connection_that_nobody_needs_is_closed(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, limit: str, value: float
) -> None:
    monkeypatch.setattr(f"worker.fetch.client.{limit}", value)
    closed = threading.Event()

    def notice(wire: Wire) -> None:
        with pytest.raises(Over):
            wire.await_request()
        closed.set()

    verifier = bench.new_verifier()  # which keeps no others
    for _ in range(2):
        closed.clear()
        with HostileServer(serving_once(notice)) as server:
            assert attempted(verifier, server.url).verdict == REGISTERED
            assert closed.wait(PATIENCE_S)


@pytest.mark.parametrize("resource", ["/a//b", "//a", "/a?x=%2f&y=/../z", "?q=1", "", "/%7Ea/./b/"])
def test_a_resource_is_asked_for_as_it_was_written(bench: Workbench, resource: str) -> None:
    with HostileServer(serving) as server:
        assert attempted(bench.verifier(), server.url_of(server.address, resource)).verdict == REGISTERED
    assert server.requests[0].path == (resource if resource.startswith("/") else f"/{resource}")


# Size


@pytest.mark.parametrize("behave", named(endless_body, endless_chunks, endless_chunk))
def test_a_body_without_an_end_is_too_large(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == TOO_LARGE


def test_an_announced_excess_is_believed_and_not_read(bench: Workbench) -> None:
    with HostileServer(announcing_far_too_much) as server:
        outcome = attempted(bench.verifier(), server.url, deadline_s=0)
    assert outcome.verdict == TOO_LARGE
    assert outcome.registration.bytes_downloaded <= 64 * 1024


@pytest.mark.parametrize(
    ("behave", "verdicts"),
    cases(
        {
            "endless-continue": (endless_continue, {BAD_RESPONSE}),
            "endless-early-hints": (endless_early_hints, {BAD_RESPONSE}),
            "endless-status-line": (endless_status_line, {BAD_RESPONSE}),
            "endless-header-lines": (endless_header_lines, {BAD_RESPONSE}),
            "endless-header-line": (endless_header_line, {BAD_RESPONSE}),
            "endless-chunk-extension": (endless_chunk_extension, {BAD_RESPONSE, DEADLINE_PASSED, TRUNCATED}),
            "endless-chunk-size": (endless_chunk_size, {BAD_RESPONSE, DEADLINE_PASSED, TRUNCATED}),
            "endless-chunk-of-negative-size": (endless_chunk_of_negative_size, {BAD_RESPONSE, TRUNCATED}),
            "endless-trailers": (endless_trailers, {BAD_RESPONSE}),
            "endless-trailer": (endless_trailer, {BAD_RESPONSE, DEADLINE_PASSED, TRUNCATED}),
        }
    ),
)
def test_what_has_no_end_is_not_kept(bench: Workbench, behave: Behaviour, verdicts: set[Verdict]) -> None:
    with HostileServer(behave) as server:
        outcome = attempted(bench.verifier(fetch_deadline_s=1), server.url, deadline_s=1)
    assert outcome.verdict in verdicts


@pytest.mark.parametrize(
    ("encoding", "content"),
    cases(
        {
            "gzip": ("gzip", gzip_bomb),
            "gzip-in-gzip": ("gzip, gzip", nested_gzip_bomb),
            "gzip-ten-times-over": (", ".join(["gzip"] * 10), nested_gzip_bomb),
            "gzip-that-is-none": ("gzip", lambda: BODY),
            "unknown": ("plain-nonsense", lambda: BODY),
        }
    ),
)
@pytest.mark.parametrize("chunked", [False, True], ids=["with-length", "chunked"])
def test_the_bytes_served_are_what_counts_packed_as_they_are(
    bench: Workbench, encoding: str, content: Callable[[], bytes], chunked: bool
) -> None:
    served = content()
    assert len(served) < MAX_BYTES
    framing = CHUNKED if chunked else f"Content-Length: {len(served)}"
    body = b"%x\r\n%s\r\n%s" % (len(served), served, LAST_CHUNK) if chunked else served
    with HostileServer(answering(OK, f"Content-Encoding: {encoding}", framing, body=body)) as server:
        outcome = attempted(bench.verifier(), server.url, declared=served)
    assert outcome.verdict == REGISTERED
    assert outcome.registration.bytes_downloaded == len(served)
    assert server.requests[0].all("Accept-Encoding") == ["identity"]


# Framing


@pytest.mark.parametrize(
    "behave",
    named(
        closing_at_once,
        closing_in_the_status_line,
        closing_in_the_head,
        closing_in_the_body,
        closing_in_a_chunk,
        closing_before_the_last_chunk,
        resetting_at_once,
        resetting_in_the_body,
        resetting_in_a_chunk,
        resetting_a_body_without_length,
    ),
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_breaks_is_tried_again(
    bench: Workbench, tls: ssl.SSLContext, behave: Behaviour, scheme: str
) -> None:
    with HostileServer(behave, tls=tls if scheme == "https" else None) as server:
        assert attempted(bench.verifier(), server.url).verdict == TRUNCATED


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "negative": with_length(f"-{len(BODY)}"),
            "minus-one": with_length("-1"),
            "not-a-number": with_length("many"),
            "hexadecimal": with_length(hex(len(BODY))),
            "with-plus": with_length(f"+{len(BODY)}"),
            "with-underscore": with_length("8_00"),
            "fraction": with_length(f"{len(BODY)}.0"),
            "superscript": with_length("80\xb2"),
            "empty": with_length(""),
            "doubled-the-same": with_length(str(len(BODY)), str(len(BODY))),
            "doubled-different": with_length(str(len(BODY)), "5"),
            "doubled-one-empty": with_length(str(len(BODY)), ""),
            "comma-joined-the-same": with_length(f"{len(BODY)}, {len(BODY)}"),
            "comma-joined-different": with_length(f"5, {len(BODY)}"),
            "with-chunked": answering(OK, LENGTH, CHUNKED, body=b"%x\r\n%s\r\n" % (len(BODY), BODY) + LAST_CHUNK),
            "with-chunked-before": answering(
                OK, CHUNKED, LENGTH, body=b"%x\r\n%s\r\n" % (len(BODY), BODY) + LAST_CHUNK
            ),
            "with-identity": answering(OK, LENGTH, "Transfer-Encoding: identity"),
        }
    ),
)
def test_an_impossible_length_is_rejected(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE


def test_a_length_of_thousands_of_digits_is_rejected(bench: Workbench) -> None:
    """Python refuses to make an int of them, with an error that is nobody's to expect."""
    with HostileServer(with_length("9" * 5000)) as server:
        assert attempted(bench.verifier(), server.url).verdict in {BAD_RESPONSE, TOO_LARGE}


def test_a_length_shorter_than_the_body_cuts_it(bench: Workbench) -> None:
    with HostileServer(with_length(str(len(BODY) - 1))) as server:
        assert attempted(bench.verifier(), server.url).verdict == MISMATCH


@pytest.mark.parametrize(
    "encoding",
    [
        "gzip",
        "identity",
        "gzip, chunked",
        "chunked, gzip",
        "chunked, chunked",
        "xchunked",
        "chunked;q=1",
        '"chunked"',
        "",
    ],
)
def test_an_unknown_transfer_encoding_is_rejected(bench: Workbench, encoding: str) -> None:
    behave = with_transfer_encoding(encoding)
    with HostileServer(behave) as server:
        wire = b"%x\r\n%s\r\n" % (len(BODY), BODY) + LAST_CHUNK
        assert attempted(bench.verifier(), server.url, declared=wire).verdict == BAD_RESPONSE


@pytest.mark.parametrize(
    "size",
    cases(
        {
            "no-hexadecimal": b"many",
            "empty": b"",
            "negative": b"-5",
            "minus-one": b"-1",
            "minus-zero": b"-0",
            "with-plus": b"+%x" % len(BODY),
            "with-prefix": b"0x%x" % len(BODY),
            "with-underscore": b"3_20",
            "sixteen-digits": b"f" * 16,
            "seventeen-digits": b"f" * 17,
            "ten-thousand-digits": b"f" * 10_000,
        }
    ),
)
def test_an_impossible_chunk_is_refused(bench: Workbench, size: bytes) -> None:
    with HostileServer(with_chunk_size(size)) as server:
        assert attempted(bench.verifier(), server.url).verdict in {BAD_RESPONSE, TRUNCATED}


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "http-0.9": without_status_line,
            "garbage": answering("\x00\x01\x02 garbage \xff"),
            "another-protocol": answering("SSH-2.0-OpenSSH_9.6"),
            "icy": answering("ICY 200 OK", LENGTH),
            "http-2": answering("HTTP/2.0 200 OK", LENGTH),
            "empty-line-first": answering("", OK, LENGTH),
            "status-999999": answering("HTTP/1.1 999999 Far Out", LENGTH),
            "status-abc": answering("HTTP/1.1 abc OK", LENGTH),
            "status-negative": answering("HTTP/1.1 -200 OK", LENGTH),
            "status-missing": answering("HTTP/1.1", LENGTH),
            "a-line-that-is-no-header": answering(OK, "X-Powered-By PHP", LENGTH),
            "header-of-70-kb": answering(OK, LENGTH, f"X-Padding: {'x' * 70_000}"),
        }
    ),
)
def test_what_is_not_http_is_rejected(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "cr-before-the-end-of-a-line": answering(OK, "X: a\r", LENGTH),
            "cr-in-a-value": answering(OK, f"X: a\r{LENGTH}"),
            "cr-in-a-name": answering(OK, "X\r: a", LENGTH),
            "cr-in-the-reason": answering("HTTP/1.1 200 O\rK", LENGTH),
            "nul": answering(OK, "X: a\0b", LENGTH),
            "vertical-tab": answering(OK, "X: a\vb", LENGTH),
            "form-feed": answering(OK, "X: a\fb", LENGTH),
            "escape": answering(OK, "X: a\x1b[2J", LENGTH),
            "delete": answering(OK, "X: a\x7f", LENGTH),
            "nul-in-the-length": answering(OK, f"{LENGTH}\0"),
            "status-with-plus": answering("HTTP/1.1 +200 OK", LENGTH),
            "status-of-four-digits": answering("HTTP/1.1 0200 OK", LENGTH),
            "status-with-underscore": answering("HTTP/1.1 2_0 OK", LENGTH),
            "status-of-other-digits": answering("HTTP/1.1 \xb2\xb0\xb0 OK", LENGTH),
            "two-spaces": answering("HTTP/1.1  200 OK", LENGTH),
            "tab-before-the-status": answering("HTTP/1.1\t200 OK", LENGTH),
            "version-without-number": answering("HTTP/1.x 200 OK", LENGTH),
            "version-of-two-digits": answering("HTTP/1.11 200 OK", LENGTH),
            "interim-status-with-plus": answering("HTTP/1.1 +100 Continue", "", OK, LENGTH),
            "nul-in-an-interim-answer": answering("HTTP/1.1 100 Continue", "X: \0", "", OK, LENGTH),
            "nul-in-a-chunk-extension": with_chunk_size(b"1;a=\0"),
            "cr-in-a-trailer": answering(OK, "Transfer-Encoding: chunked", body=b"0\r\nX: a\r\r\n\r\n"),
            "nul-in-a-trailer": answering(OK, "Transfer-Encoding: chunked", body=b"0\r\nX: a\0\r\n\r\n"),
        }
    ),
)
def test_a_head_that_can_be_read_in_two_ways_is_refused(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "bytes-beyond-ascii": answering(OK, "X: \xe9\xff", LENGTH),
            "tab-in-a-value": answering(OK, "X: a\tb", LENGTH),
            "no-reason": answering("HTTP/1.1 200 ", LENGTH),
            "no-space-before-no-reason": answering("HTTP/1.1 200", LENGTH),
            "nothing-in-a-value": answering(OK, "X:", LENGTH),
            "continue-first": answering("HTTP/1.1 100 Continue", "X: a", "", OK, LENGTH),
            "150-headers": answering(OK, LENGTH, *(f"X-Header-{n}: x" for n in range(150))),
            "spaces-around-a-value": answering(OK, f"Content-Length: \t {len(BODY)} \t"),
            "a-folded-line": answering(OK, "X: a", "  b", "\tc", LENGTH),
            "early-hints-first": answering("HTTP/1.1 103 Early Hints", "Link: </a>", "", OK, LENGTH),
            "some-interim-answers": answering(*("HTTP/1.1 102 Processing", "") * 60, OK, LENGTH),
            "60-kb": answering(OK, LENGTH, *(f"X-{n}: {'x' * 1000}" for n in range(60))),
        }
    ),
)
def test_a_head_that_is_merely_untidy_is_read(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "lines-of-1-kb": answering(OK, LENGTH, *(f"X-{n}: {'x' * 1000}" for n in range(66))),
            "lines-of-64-kb": answering(OK, LENGTH, *(f"X-{n}: {'x' * 65_000}" for n in range(99))),
            "one-line": answering(OK, LENGTH, f"X: {'x' * 2**22}"),
            "interim-answers": answering(*("HTTP/1.1 100 Continue", f"X: {'x' * 10_000}", "") * 7, OK, LENGTH),
        }
    ),
)
def test_a_head_is_bounded_as_a_whole_and_many_at_once_take_little(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        outcome = attempted(bench.verifier(), server.url)
        assert outcome.verdict == BAD_RESPONSE
        assert outcome.registration.failure is not None
        assert outcome.registration.failure.cause == "answer-head-too-large"
        verifier = bench.verifier(max_downloads_per_host=40)
        many = [queued(verifier, server.url).id for _ in range(40)]
        tracemalloc.start()
        verifier.verify(*many)
        growth_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert {now(verifier.store, each).status for each in many} == {Status.REJECTED}
    assert growth_bytes < 40 * 8 * MAX_HEAD_BYTES


@pytest.mark.parametrize(
    ("behave", "cause"),
    cases(
        {
            "chunks-of-one-byte": (
                answering(OK, CHUNKED, body=b"1\r\nx\r\n" * 20_000 + LAST_CHUNK),
                "tiny-chunks",
            ),
            "chunks-of-eight-bytes": (
                answering(OK, CHUNKED, body=b"8\r\n12345678\r\n" * 20_000 + LAST_CHUNK),
                "tiny-chunks",
            ),
            "long-chunk-extensions": (
                answering(OK, CHUNKED, body=(b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 40 + LAST_CHUNK),
                "tiny-chunks",
            ),
            "many-interim-answers": (answering(*("HTTP/1.1 100 Continue", "") * 65, OK, LENGTH), "interim-answers"),
        }
    ),
)
def test_a_host_that_makes_us_work_for_nothing_is_refused_by_name(
    bench: Workbench, behave: Behaviour, cause: str
) -> None:
    with HostileServer(behave) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert outcome.verdict == BAD_RESPONSE
    assert outcome.registration.failure is not None
    assert outcome.registration.failure.cause == cause


def test_chunks_of_a_line_of_text_each_are_read(bench: Workbench) -> None:
    lines = [b"line %06d %s\n" % (n, b"x" * (n % 1000)) for n in range(2_000)]
    body = b"".join(b"%x\r\n%s\r\n" % (len(line), line) for line in lines) + LAST_CHUNK
    with HostileServer(answering(OK, CHUNKED, body=body)) as server:
        outcome = attempted(bench.verifier(), server.url, declared=b"".join(lines))
    assert outcome.verdict == REGISTERED


@pytest.mark.parametrize(
    "body",
    cases(
        {
            "comments": b"<!---->" * 48 + b"x",
            "many-comments": b"<!---->" * 30_000 + b"x",
            "a-checksum-and-spaces": b"ab" * 32 + b" " * 800 + b"\nX\nY",
            "a-checksum-and-more-spaces": b"ab" * 32 + b" " * 200_000 + b"\nX\nY",
            "empty-members": gzip.compress(b"") * 10_000,
        }
    ),
)
def test_no_body_holds_a_worker_up_over_why_it_differs(bench: Workbench, body: bytes) -> None:
    with HostileServer(answering(OK, f"Content-Length: {len(body)}", body=body)) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert outcome.verdict == MISMATCH
    assert outcome.registration.failure is not None
    assert outcome.registration.failure.cause == "different-content"


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Do to each connection what is next, and to all that follow what is last."""
    rest = list(behaviours)

    def behave(wire: Wire) -> None:
        next_one = rest.pop(0) if len(rest) > 1 else rest[0]
        next_one(wire)

    return behave


HALF, MORE = len(BODY) // 2, len(BODY) // 2 + 10
BROKEN_OFF = answering(OK, LENGTH, ETAG, body=BODY[:HALF])


def the_rest(start: int, end: int, *lines: str, body: bytes | None = None) -> Behaviour:
    """Answer with the rest from *start* on, which ends at *end* whatever it announces."""
    span = f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}"
    return answering(
        "HTTP/1.1 206 Partial Content", span, ETAG, *lines, body=BODY[start:end] if body is None else body
    )


@pytest.mark.parametrize(
    "too_short",
    cases(
        {
            "without-a-length": the_rest(HALF, MORE),
            "in-chunks": the_rest(HALF, MORE, CHUNKED, body=b"a\r\n" + BODY[HALF:MORE] + b"\r\n" + LAST_CHUNK),
        }
    ),
)
def test_a_rest_that_ends_early_is_not_the_end(bench: Workbench, too_short: Behaviour) -> None:
    with HostileServer(in_turn(BROKEN_OFF, too_short, the_rest(MORE, len(BODY)))) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.connections == 3


def test_a_rest_that_is_too_long_is_refused(bench: Workbench) -> None:
    with HostileServer(in_turn(BROKEN_OFF, the_rest(HALF, len(BODY), body=BODY[HALF:] + b"more"))) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE


# Statuses


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "101": answering("HTTP/1.1 101 Switching Protocols", LENGTH),
            "201": answering("HTTP/1.1 201 Created", LENGTH),
            "203": answering("HTTP/1.1 203 Non-Authoritative Information", LENGTH),
            "204": answering("HTTP/1.1 204 No Content", LENGTH),
            "205": answering("HTTP/1.1 205 Reset Content", LENGTH),
            "206": answering("HTTP/1.1 206 Partial Content", LENGTH),
            "206-with-range": answering(
                "HTTP/1.1 206 Partial Content", LENGTH, f"Content-Range: bytes 0-{len(BODY) - 1}/{len(BODY)}"
            ),
            "299": answering("HTTP/1.1 299 Whatever", LENGTH),
            "300": answering("HTTP/1.1 300 Multiple Choices", LENGTH, "Location: /elsewhere.tar.gz"),
            "304": answering("HTTP/1.1 304 Not Modified", LENGTH),
            "305": answering("HTTP/1.1 305 Use Proxy", LENGTH, "Location: /elsewhere.tar.gz"),
            "999": answering("HTTP/1.1 999 Far Out", LENGTH),
        }
    ),
)
def test_only_a_complete_200_counts(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_artifact_that_is_not_there_for_us_is_missing(bench: Workbench, status: int) -> None:
    with HostileServer(answering(f"HTTP/1.1 {status} No", LENGTH, 'WWW-Authenticate: Basic realm="x"')) as server:
        assert attempted(bench.verifier(), server.url).verdict == MISSING
    assert server.connections == 1


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_busy_host_is_tried_again(bench: Workbench, status: int) -> None:
    with HostileServer(answering(f"HTTP/1.1 {status} Later", LENGTH)) as server:
        assert attempted(bench.verifier(), server.url).verdict == BUSY
    assert server.connections == 1


def test_a_login_page_is_not_the_artifact(bench: Workbench) -> None:
    page = b"<!doctype html><title>Log in</title>"
    behave = answering(OK, "Content-Type: text/html", f"Content-Length: {len(page)}", body=page)
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == MISMATCH


def delay_after(bench: Workbench, retry_after: str, status: int = 503) -> float:
    """Return how long a host that answers *retry_after* is given; without it, 0.5 to 1 s, and 60 at most."""
    verifier = bench.verifier(max_attempts=2, retry_base_s=1, retry_cap_s=60)
    behave = answering(f"HTTP/1.1 {status} Later", f"Retry-After: {retry_after}", LENGTH)
    with HostileServer(behave) as server:
        outcome = attempted(verifier, server.url)
    assert outcome.verdict == ("queued", "upstream-busy", "upstream")
    registration = outcome.registration
    assert registration.next_attempt_at is not None
    return (registration.next_attempt_at - registration.updated_at).total_seconds()


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_in_seconds_is_honoured(bench: Workbench, status: int) -> None:
    assert delay_after(bench, "30", status) == pytest.approx(30, abs=0.1)


def test_a_retry_after_as_a_date_is_honoured(bench: Workbench) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 5 < delay_after(bench, date) <= 30


@pytest.mark.parametrize("retry_after", ["61", "99999", "9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_huge_retry_after_is_cut_to_the_cap(bench: Workbench, retry_after: str) -> None:
    assert delay_after(bench, retry_after) == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize(
    "retry_after",
    [
        "",
        "0",
        "-5",
        "-99999",
        "1e9",
        "inf",
        "nan",
        "soon",
        "30 seconds",
        "\xb3\xb2",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "Mon, 01 Jan 0001 00:00:00 GMT",
        "Mon, 99 Foo 2024 99:99:99 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2024 00:00:00 +99999999999",
    ],
)
def test_a_senseless_retry_after_does_no_harm(bench: Workbench, retry_after: str) -> None:
    assert 0.4 < delay_after(bench, retry_after) < 1.1


# Redirects


def test_ten_redirects_are_followed(bench: Workbench) -> None:
    with HostileServer(redirecting_times(10)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.connections == 11


@pytest.mark.parametrize(
    "behave",
    cases(
        {
            "eleven-hops": redirecting_times(11),
            "a-loop": redirecting_for_ever,
            "without-location": redirecting_nowhere,
            "empty-location": redirecting(""),
            "no-url": redirecting("http://[::1/"),
        }
    ),
)
def test_a_redirect_that_leads_nowhere_is_rejected(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_REDIRECT
    assert server.connections <= 11


def test_the_body_of_a_redirect_is_not_read(bench: Workbench) -> None:
    with HostileServer(redirecting_with_an_endless_body) as server:
        assert attempted(bench.verifier(), server.url, deadline_s=0).verdict == REGISTERED


@pytest.mark.parametrize(
    ("location", "verdict"),
    cases(
        {
            "forbidden-address": ("http://127.0.0.2:{port}/x", LED_ASTRAY),
            "forbidden-address-without-scheme": ("//127.0.0.2:{port}/x", LED_ASTRAY),
            "forbidden-address-as-ipv6": ("http://[::ffff:127.0.0.2]:{port}/x", LED_ASTRAY),
            "forbidden-address-as-number": ("http://2130706434:{port}/x", LED_ASTRAY),
            "forbidden-address-in-hexadecimal": ("http://0x7f.0.0.2:{port}/x", LED_ASTRAY),
            "metadata-service": ("http://169.254.169.254:{port}/latest/meta-data", LED_ASTRAY),
            "single-label": ("http://intranet:{port}/x", BAD_REDIRECT),
            "localhost": ("http://localhost:{port}/x", BAD_REDIRECT),
            "file": ("file:///etc/passwd", BAD_REDIRECT),
            "gopher": ("gopher://127.0.0.2:{port}/x", BAD_REDIRECT),
            "data": ("data:text/plain,artifact", BAD_REDIRECT),
            "userinfo": ("http://127.0.0.1:{port}@127.0.0.2:{port}/x", BAD_REDIRECT),
            "userinfo-of-ours": ("http://user:word@127.0.0.1:{port}/x", BAD_REDIRECT),
            "backslash": ("http://127.0.0.1:{port}\\@127.0.0.2:{port}/x", BAD_REDIRECT),
            "forbidden-port": ("http://127.0.0.1:22/x", BAD_REDIRECT),
            "no-port": ("http://127.0.0.1/x", BAD_REDIRECT),
            "no-host": ("http://:{port}/x", BAD_REDIRECT),
        }
    ),
)
def test_a_redirect_to_where_we_may_not_go_is_not_followed(bench: Workbench, location: str, verdict: Verdict) -> None:
    with (
        HostileServer(serving, address="127.0.0.2") as forbidden,
        HostileServer(redirecting(location.format(port=forbidden.port)), port=forbidden.port) as server,
    ):
        assert attempted(bench.verifier(), server.url).verdict == verdict
    assert forbidden.connections == 0
    assert server.connections == 1


def test_a_redirect_from_https_to_http_is_not_followed(bench: Workbench, tls: ssl.SSLContext) -> None:
    with HostileServer(serving) as plain, HostileServer(redirecting(plain.url), tls=tls) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_REDIRECT
    assert plain.connections == 0


def test_no_cookie_is_carried_to_the_next_hop(bench: Workbench) -> None:
    with HostileServer(redirecting("/elsewhere.tar.gz", "Set-Cookie: crumb=1; Path=/")) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert len(server.requests) == 4
    for request in server.requests:
        assert request.all("Cookie") == request.all("Authorization") == request.all("Referer") == []


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_environment_lends_no_proxy_and_no_credentials(
    bench: Workbench, tls: ssl.SSLContext, scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "missing.pem"))
    with HostileServer(serving) as proxy, HostileServer(serving, tls=tls if scheme == "https" else None) as server:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://{proxy.address}:{proxy.port}")
            monkeypatch.setenv(name.lower(), f"http://{proxy.address}:{proxy.port}")
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert proxy.connections == 0
    (request,) = server.requests
    assert request.path == "/artifact.tar.gz"
    assert request.all("Authorization") == request.all("Proxy-Authorization") == []


# Certificates


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_that_is_in_order_is_accepted(
    bench: Workbench, authority: trustme.CA, version: ssl.TLSVersion
) -> None:
    with HostileServer(serving, tls=tls_with(authority.issue_cert("127.0.0.1"), version=version)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED


@pytest.mark.parametrize(
    "issue",
    cases(
        {
            "for-another-address": lambda ca: ca.issue_cert("127.0.0.2"),
            "for-a-name": lambda ca: ca.issue_cert("artifacts.example.com"),
            "for-our-address-as-common-name": lambda ca: ca.issue_cert("a.example.com", common_name="127.0.0.1"),
            "expired": lambda ca: ca.issue_cert(
                "127.0.0.1", not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=datetime(2020, 2, 1, tzinfo=UTC)
            ),
            "not-yet-valid": lambda ca: ca.issue_cert(
                "127.0.0.1", not_before=datetime(2990, 1, 1, tzinfo=UTC), not_after=datetime(2991, 1, 1, tzinfo=UTC)
            ),
            "self-signed": lambda _ca: self_signed(),
            "of-an-unknown-issuer": lambda _ca: trustme.CA().issue_cert("127.0.0.1"),
        }
    ),
)
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_certificate_that_is_not_in_order_is_rejected(
    bench: Workbench,
    authority: trustme.CA,
    issue: Callable[[trustme.CA], trustme.LeafCert],
    version: ssl.TLSVersion,
) -> None:
    with HostileServer(serving, tls=tls_with(issue(authority), version=version)) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_CERTIFICATE
    assert server.requests == []


def test_a_certificate_is_checked_at_every_hop(bench: Workbench, tls: ssl.SSLContext) -> None:
    stranger = tls_with(trustme.CA().issue_cert("127.0.0.1"))
    with (
        HostileServer(serving, tls=stranger) as elsewhere,
        HostileServer(redirecting(elsewhere.url), tls=tls) as server,
    ):
        assert attempted(bench.verifier(), server.url).verdict == BAD_CERTIFICATE
    assert elsewhere.requests == []


def test_the_environment_lends_no_trust(
    bench: Workbench, authority: trustme.CA, tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "authority.pem"))
    with HostileServer(serving, tls=tls) as server:
        assert attempted(bench.verifier(egress_ca_file=None), server.url).verdict == BAD_CERTIFICATE


# Names


NAME = "artifacts.example.com"


class Names:
    """A resolver that answers what it is told: once each, the last one for ever."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int, timeout_s: float, submitted_by: str) -> list[str]:
        self.asked.append(host)
        return [*(self._answers.pop(0) if len(self._answers) > 1 else self._answers[0])]


@pytest.fixture
def hosts() -> Iterator[list[HostileServer]]:
    """Three hosts on one port: at two addresses that may be reached, and at one that may not."""
    with (
        HostileServer(serving, address="127.0.1.1") as first,
        HostileServer(serving, address="127.0.1.2", port=first.port) as second,
        HostileServer(serving, address="127.0.0.2", port=first.port) as forbidden,
    ):
        yield [first, second, forbidden]


@pytest.mark.parametrize(
    "answer",
    cases(
        {
            "first": ["127.0.0.2", "127.0.1.1", "127.0.1.2"],
            "in-the-middle": ["127.0.1.1", "127.0.0.2", "127.0.1.2"],
            "last": ["127.0.1.1", "127.0.1.2", "127.0.0.2"],
            "beyond-those-that-are-tried": [*(f"127.0.1.{n}" for n in range(1, 9)), "127.0.0.2"],
            "alone": ["127.0.0.2"],
            "mapped": ["127.0.1.1", "::ffff:127.0.1.1"],
            "loopback-v6": ["127.0.1.1", "::1"],
            "link-local-with-scope": ["fe80::1%lo", "127.0.1.1"],
            "nat64": ["127.0.1.1", "64:ff9b::7f00:2"],
            "metadata": ["127.0.1.1", "169.254.169.254"],
            "no-address": ["127.0.1.1", "artifacts.example.com"],
        }
    ),
)
def test_one_forbidden_answer_rules_a_name_out(
    bench: Workbench, hosts: list[HostileServer], answer: list[str]
) -> None:
    verifier = bench.verifier_of_names(Names(answer))
    assert attempted(verifier, hosts[0].url_of(NAME)).verdict == FORBIDDEN_ADDRESS
    for host in hosts:
        host.close()
        assert host.connections == 0


def test_a_name_that_changes_its_answer_between_hops_is_checked_again(bench: Workbench) -> None:
    names = Names(["127.0.1.1"], ["127.0.0.2"])
    with (
        HostileServer(redirecting("/elsewhere.tar.gz"), address="127.0.1.1") as server,
        HostileServer(serving, address="127.0.0.2", port=server.port) as forbidden,
    ):
        assert attempted(bench.verifier_of_names(names), server.url_of(NAME)).verdict == LED_ASTRAY
    assert (server.connections, forbidden.connections) == (1, 0)
    assert names.asked == [NAME, NAME]


@pytest.mark.parametrize("behave", named(serving, serving_chunked))
def test_a_name_that_changes_its_answer_between_attempts_is_checked_again(
    bench: Workbench, behave: Behaviour
) -> None:
    verifier = bench.verifier_of_names(Names(["127.0.1.1"], ["127.0.0.2"]))
    with (
        HostileServer(behave, address="127.0.1.1") as server,
        HostileServer(serving, address="127.0.0.2", port=server.port) as forbidden,
    ):
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
        assert attempted(verifier, server.url_of(NAME)).verdict == FORBIDDEN_ADDRESS
    assert (server.connections, forbidden.connections) == (1, 0)


def test_a_name_is_resolved_once_for_a_connection(bench: Workbench, hosts: list[HostileServer]) -> None:
    names = Names(["127.0.1.1"], ["127.0.0.2"])
    assert attempted(bench.verifier_of_names(names), hosts[0].url_of(NAME)).verdict == REGISTERED
    assert names.asked == [NAME]


def test_a_second_address_is_tried_when_the_first_refuses(bench: Workbench) -> None:
    with HostileServer(serving, address="127.0.1.2") as server:
        verifier = bench.verifier_of_names(Names(["127.0.1.1", "127.0.1.2"]))
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
    assert server.connections == 1


@pytest.mark.parametrize(("place", "verdict"), [(5, REGISTERED), (32, REGISTERED), (33, CONNECT_FAILED)])
def test_all_addresses_get_their_chance(bench: Workbench, place: int, verdict: Verdict) -> None:
    with HostileServer(serving, address=f"127.0.1.{place}") as server:
        verifier = bench.verifier_of_names(Names([f"127.0.1.{n}" for n in range(1, 35)]))
        assert attempted(verifier, server.url_of(NAME)).verdict == verdict
    assert server.connections == (verdict == REGISTERED)


@pytest.mark.parametrize("silent", [1, 4, 6])
def test_addresses_that_do_not_answer_leave_the_others_their_chance(bench: Workbench, silent: int) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(HostileServer(serving, address="127.0.1.9"))
        for n in range(1, silent + 1):
            stack.enter_context(_full(f"127.0.1.{n}", server.port))
        names = Names([*(f"127.0.1.{n}" for n in range(1, silent + 1)), "127.0.1.9"])
        verifier = bench.verifier_of_names(names, connect_timeout_s=5)
        before = _open_files()
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
        until(lambda: _open_files() <= before + 2, what="the other sockets to be closed")
    assert server.connections == 1


@contextmanager
def _full(address: str, port: int) -> Iterator[None]:
    """Take *port* of *address*, with nothing left for who wants to connect: they hear nothing."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((address, port), backlog=0))
        assert listener.getsockname()[1] == port
        for _ in range(2):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex((address, port))
        yield


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_name_without_addresses_is_a_failed_connection(bench: Workbench) -> None:
    assert attempted(bench.verifier_of_names(Names([])), f"https://{NAME}:8443/x").verdict == CONNECT_FAILED


def test_host_header_and_server_name_are_the_name(bench: Workbench, authority: trustme.CA) -> None:
    tls = tls_with(authority.issue_cert(NAME))
    with HostileServer(serving, address="127.0.1.1", tls=tls) as server:
        verifier = bench.verifier_of_names(Names(["127.0.1.1"]))
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
    assert server.server_names == [NAME]
    assert server.requests[0].all("Host") == [f"{NAME}:{server.port}"]


def test_a_common_name_is_no_name(bench: Workbench, authority: trustme.CA) -> None:
    verifier = bench.verifier_of_names(Names(["127.0.1.1"]))
    tls = tls_with(authority.issue_cert(common_name=NAME))
    with HostileServer(serving, address="127.0.1.1", tls=tls) as server:
        assert attempted(verifier, server.url_of(NAME)).verdict == BAD_CERTIFICATE


def test_a_certificate_for_the_address_is_not_one_for_the_name(bench: Workbench, authority: trustme.CA) -> None:
    tls = tls_with(authority.issue_cert("127.0.1.1"))
    with HostileServer(serving, address="127.0.1.1", tls=tls) as server:
        verifier = bench.verifier_of_names(Names(["127.0.1.1"]))
        assert attempted(verifier, server.url_of(NAME)).verdict == BAD_CERTIFICATE


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Ends a look-up that hangs; set at the end of the test at the latest."""
    release = threading.Event()
    yield release
    release.set()


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch, release: threading.Event) -> str:
    """A name whose look-up by the system hangs until its release; every other name is at 127.0.1.1."""

    def look_up(host: str, port: int, **_options: object) -> list[Any]:
        if host == "slow.example.com":
            release.wait()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.1.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return "slow.example.com"


def test_ten_hosts_that_redirect_to_one_share_its_slots(bench: Workbench) -> None:
    """H4: slots are of what is connected to. Who finds none puts its claim back at no cost, and waits its turn."""
    at_once, most, counting = 0, 0, threading.Lock()

    def serve_slowly(wire: Wire) -> None:
        nonlocal at_once, most
        wire.await_request()
        with counting:
            at_once += 1
            most = max(most, at_once)
        wire.pause(0.7)  # so that the last of them lose patience
        with counting:
            at_once -= 1
        serving(wire)

    def redirect(wire: Wire) -> None:
        wire.head("HTTP/1.1 302 Found", f"Location: {one.url_of('one.example.com')}", "Content-Length: 0")

    verifier = bench.verifier_of_names(Names(["127.0.1.1"]), max_downloads_per_host=2)
    with HostileServer(serve_slowly, address="127.0.1.1") as one, HostileServer(redirect, address="127.0.1.1") as ten:
        registrations = [queued(verifier, ten.url_of(f"h{number}.example.com")) for number in range(10)]
        verifier.verify(*(each.id for each in registrations))
    ended = [now(verifier.store, each.id) for each in registrations]
    assert {(each.status, each.attempts) for each in ended} == {(Status.REGISTERED, 1)}
    assert most == 2


def test_where_all_of_a_host_lead_to_another_hardly_any_asks_the_first_in_vain(bench: Workbench) -> None:
    """As all releases of a code host do: it is learnt where they lead, and they wait for a slot of that."""

    def redirect(wire: Wire) -> None:
        wire.head("HTTP/1.1 302 Found", f"Location: {objects.url_of('objects.example.com')}", "Content-Length: 0")

    def serve_slowly(wire: Wire) -> None:
        wire.await_request()
        wire.pause(0.3)
        serving(wire)

    verifier, count = bench.verifier_of_names(Names(["127.0.1.1"]), max_downloads_per_host=4), 100
    with (
        HostileServer(serve_slowly, address="127.0.1.1") as objects,
        HostileServer(redirect, address="127.0.1.1") as releases,
    ):
        registrations = [queued(verifier, releases.url_of("releases.example.com", f"/{n}")) for n in range(count)]
        verifier.verify(*(each.id for each in registrations))
    ended = [now(verifier.store, each.id) for each in registrations]
    assert {(each.status, each.attempts) for each in ended} == {(Status.REGISTERED, 1)}
    assert len(objects.requests) == count
    assert len(releases.requests) < 1.2 * count


def test_an_honest_download_is_served_beside_many_that_make_us_work(bench: Workbench) -> None:
    """H5: each of those is refused by name, after what a few kilobytes cost."""
    hostile = [answering(OK, CHUNKED, body=b"1\r\nx\r\n" * 20_000), endless_continue]
    verifier = bench.verifier(max_downloads_per_host=64)
    with ExitStack() as servers:
        hosts = [servers.enter_context(HostileServer(behave)) for behave in hostile]
        honest = servers.enter_context(HostileServer(serving))
        bad = [queued(verifier, hosts[number % 2].url) for number in range(32)]
        verifier.offer([each.id for each in bad])
        assert attempted(verifier, honest.url).verdict == REGISTERED
        verifier.verify(*(each.id for each in bad))
    causes = {each.failure.cause for it in bad if (each := now(verifier.store, it.id)).failure}
    assert causes == {"tiny-chunks", "interim-answers"}


def test_where_a_connection_has_led_is_checked_too(bench: Workbench) -> None:
    verifier = bench.verifier(egress_allow_networks="0.0.0.0/32")  # whoever connects to it reaches 127.0.0.1
    with HostileServer(serving) as server:
        assert attempted(verifier, server.url.replace("127.0.0.1", "0.0.0.0")).verdict == FORBIDDEN_ADDRESS


def test_a_resolver_that_hangs_ends_by_the_connect_timeout(bench: Workbench, hanging: str) -> None:
    with HostileServer(serving, address="127.0.1.1") as server:
        verifier = bench.verifier_of_names(Resolver(), connect_timeout_s=1)
        assert attempted(verifier, server.url_of(hanging), deadline_s=1).verdict == CONNECT_FAILED
    assert server.connections == 0


def test_a_resolver_that_hangs_holds_no_other_download_up(
    bench: Workbench, hanging: str, release: threading.Event
) -> None:
    verifier = bench.verifier_of_names(Resolver(), connect_timeout_s=PATIENCE_S, fetch_deadline_s=2 * PATIENCE_S)

    def statuses() -> set[Status]:
        return {now(verifier.store, each.id).status for each in slow}

    with HostileServer(serving, address="127.0.1.1") as server:
        slow = [queued(verifier, server.url_of(hanging)) for _ in range(4)]
        verifier.offer([each.id for each in slow])
        until(lambda: statuses() == {Status.VERIFYING}, what="all of them in the middle of their look-ups")
        assert attempted(verifier, server.url_of(NAME)).verdict == REGISTERED
        assert statuses() == {Status.VERIFYING}
        release.set()
        verifier.verify(*(each.id for each in slow))
    assert statuses() == {Status.REGISTERED}
