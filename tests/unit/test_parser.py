"""Bytes in, a head and a body out: the same for every way to cut the bytes, and never more lenient than is meant."""

from collections.abc import Sequence
from itertools import pairwise

import h11
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from shared.errors import BadResponse, RegistryError, Truncated
from tests.bounded import within_cpu_s
from worker.fetch.parser import MAX_HEAD_BYTES, MAX_INTERIM, SMALL_CHUNKS, Body, Head, HeadReader

Read = tuple[Head, bytes, bool, bool] | tuple[type[RegistryError], str]
"""A head, the content, whether the body is done, whether more came after it; or what was refused, and why."""


def read(pieces: Sequence[bytes], *, ended: bool = True) -> Read:
    """Return what *pieces*, as they arrive one after the other, are read as."""
    try:
        return _read(pieces, ended=ended)
    except RegistryError as error:
        return type(error), error.cause


def _read(pieces: Sequence[bytes], *, ended: bool) -> tuple[Head, bytes, bool, bool]:
    reader, rest = HeadReader(), list(pieces)
    head = None
    while head is None:
        if not rest:
            reader.end()
        head = reader.feed(rest.pop(0))
    body = Body(head)
    content = b"".join(bytes(each) for piece in (reader.rest, *rest) for each in body.feed(piece))
    if ended and not body.done:
        body.end()
    return head, content, body.done, body.surplus


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


HEADS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\nContent-Length: 3\n\n",
    b"HTTP/1.1 100\r\n\r\nHTTP/1.1 200 \r\nX: a\r\n b\r\nContent-Length:\t4 \r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nX: a\r\r\nContent-Length: 5\r\n\r\n",
]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"1;a=b\r\nx\r\nA \r\n0123456789\r\n0\r\nT: x\r\n\r\n",
    b"5\r\nhelloo\r\n",
]
_bytes = st.sampled_from([*b"\r\n\t :;,0159afAFxHTP/.\x00\x0b\x7f\x80\xff"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer that is right, or a few bytes off."""
    data = bytearray(draw(st.sampled_from(HEADS)) + draw(st.sampled_from(BODIES)) + draw(st.sampled_from(BODIES)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["put", "insert", "delete"])):
            case "put":
                data[place] = draw(_bytes)
            case "insert":
                data.insert(place, draw(_bytes))
            case "delete" if len(data) > 1:
                del data[place]
    return bytes(data)


@settings(deadline=None, max_examples=1000)
@given(answers(), st.lists(st.integers(0, 400), max_size=8))
@example(HEADS[3] + b"abc", list(range(200)))
@example(HEADS[1] + BODIES[3], list(range(200)))
def test_the_same_is_read_however_the_bytes_are_cut(data: bytes, places: list[int]) -> None:
    assert read(cut(data, places)) == read([data]) == read([data[n : n + 1] for n in range(len(data))])


@settings(deadline=None, max_examples=500, suppress_health_check=[HealthCheck.filter_too_much])
@given(answers())
def test_what_both_take_is_what_h11_reads(data: bytes) -> None:
    """h11 is stricter in places (a folded line) and laxer in others; where neither refuses, both read the same."""
    try:
        head, ours, done, surplus = _read([data], ended=True)
    except RegistryError:
        assume(False)
    assume(done and not surplus)
    assume(head.status not in {204, 304})  # of which h11 reads no body, and we read none but of 200 and 206
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    client.receive_data(b"")
    content, status = b"", 0
    try:
        while not isinstance(event := client.next_event(), h11.EndOfMessage | h11.ConnectionClosed):
            if isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                content += bytes(event.data)
            assume(event is not h11.PAUSED and event is not h11.NEED_DATA)
    except h11.RemoteProtocolError:
        assume(False)
    assert (head.status, ours) == (status, content)


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "malformed-head"),
        (b"HTTP/1.1 200 OK\r\n X: a\r\n\r\n", "malformed-head"),
        (b"HTTP/1.1 200 OK\r\n: a\r\n\r\n", "malformed-head"),
        (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "malformed-head"),
        (b"HTTP/1.1 200 OK\r\nX: \x00\r\n\r\n", "malformed-head"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "malformed-head"),
        (b"HTTP/2 200\r\n\r\n", "malformed-head"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "malformed-head"),
        (b"S", "malformed-head"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "ambiguous-framing"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "ambiguous-framing"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "ambiguous-framing"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "impossible-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "impossible-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", "impossible-length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "impossible-length"),
        (HEADS[1] + b"0x5\r\n", "malformed-chunks"),
        (HEADS[1] + b"-1\r\n", "malformed-chunks"),
        (HEADS[1] + b"12345678123456781\r\n", "malformed-chunks"),
        (HEADS[1] + b"\r\n", "malformed-chunks"),
        (HEADS[1] + b"1\r\nxx\r\n", "malformed-chunks"),
        (HEADS[1] + b"0\r\nX : a\r\n\r\n", "malformed-chunks"),
        (HEADS[1] + b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n", "too-many-trailers"),
        (HEADS[1] + b"1" * 5000, "chunk-line-too-long"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * MAX_HEAD_BYTES, "answer-head-too-large"),
        (b"HTTP/1.1 100 OK\r\n\r\n" * (MAX_INTERIM + 1), "interim-answers"),
        (HEADS[1].replace(b"1.1", b"1.0"), "ambiguous-framing"),
        (HEADS[1] + b"1\r\nx\r\n" * (SMALL_CHUNKS + 20), "tiny-chunks"),
        (HEADS[1] + b"64\r\n" + b"x" * 100 + b"\r\n" + b"8\r\n12345678\r\n" * (SMALL_CHUNKS + 200), "tiny-chunks"),
        (HEADS[1] + (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 40, "tiny-chunks"),
    ],
    ids=lambda value: repr(value)[:50],
)
def test_what_can_be_read_in_two_ways_or_has_no_measure_is_refused(data: bytes, cause: str) -> None:
    assert read([data]) == (BadResponse, cause)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"H",
        b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        HEADS[0] + b"hell",
        HEADS[1],
        HEADS[1] + b"5\r\nhel",
        HEADS[1] + b"5\r\nhello\r\n",
        HEADS[1] + b"0\r\n",
        HEADS[1] + b"0\r\nX: a\r\n",
    ],
)
def test_what_breaks_off_is_told_as_that(data: bytes) -> None:
    assert read([data] if data else [])[0] is Truncated


def test_a_length_is_read_to_its_last_byte_and_no_further() -> None:
    body = Body(Head(200, 1, (("content-length", "5"),)))
    assert body.wanted == 5
    assert [bytes(each) for each in body.feed(b"hel")] == [b"hel"]
    assert body.wanted == 2
    assert [bytes(each) for each in body.feed(b"lo and more")] == [b"lo"]
    assert (body.done, body.surplus, body.ended_by_itself) == (True, True, True)


def test_a_body_to_the_end_of_the_connection_ends_there_and_leaves_none_to_keep() -> None:
    body = Body(Head(200, 0, ()))
    assert [bytes(each) for each in body.feed(b"hello")] == [b"hello"]
    assert not body.done
    body.end()
    assert (body.done, body.ended_by_itself) == (True, False)


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [(1, (), True), (0, (), False), (0, ("keep-alive",), False), (1, ("close",), False), (1, ("x, Close",), False)],
)
def test_a_connection_lives_on_only_where_http_1_1_lets_it(
    version: int, connection: tuple[str, ...], kept: bool
) -> None:
    assert Head(200, version, tuple(("connection", each) for each in connection)).may_be_kept is kept


def fed_byte_by_byte(data: bytes) -> None:
    read([data[n : n + 1] for n in range(len(data))])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 10_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"\r" * 60_000,
        b"HTTP/1.1 200 OK" + b"\n\r" * 30_000,
        HEADS[1] + b"1;" + b"\r" * 60_000,
        HEADS[1] + b"1\r\nx\r\n" * 12_000,
    ],
    ids=lambda data: repr(data[-12:]),
)
def test_what_arrives_byte_by_byte_costs_what_it_costs_at_once(data: bytes) -> None:
    within_cpu_s(2, fed_byte_by_byte, data)
