"""Reads that grow while a stream is fast, and shrink when it is not."""

from collections.abc import Iterator
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.pace import Pace


class Wire:
    """A socket that receives *sends*, one piece at a time, *seconds_each* apart by its own clock."""

    def __init__(self, sends: list[bytes], seconds_each: float = 0.0) -> None:
        self._sends = sends
        self.seconds_each = seconds_each
        self.now = 0.0

    def recv_into(self, buffer: memoryview) -> int:
        if not self._sends:
            return 0
        self.now += self.seconds_each
        piece = self._sends.pop(0)
        taken, rest = piece[: len(buffer)], piece[len(buffer) :]
        if rest:
            self._sends.insert(0, rest)
        buffer[: len(taken)] = taken
        return len(taken)


def read_all(wire: Wire) -> Iterator[tuple[bytes, int]]:
    pace = Pace(lambda: wire.now)
    while piece := pace.read(cast("Any", wire), None):
        yield bytes(piece), pace.size


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300_000), max_size=30))
def test_every_byte_comes_once_and_in_order(sends: list[bytes]) -> None:
    assert b"".join(chunk for chunk, _ in read_all(Wire([*sends]))) == b"".join(sends)


def test_a_fast_stream_is_read_in_large_pieces() -> None:
    wire = Wire([b"x" * 2**16] * 400, seconds_each=0.001)
    assert [size for _, size in read_all(wire)][-1] == Pace.LARGE_BYTES


def test_a_slow_stream_is_read_as_it_comes() -> None:
    wire = Wire([b"x" * 1000] * 500, seconds_each=0.01)
    assert {(len(piece), size) for piece, size in read_all(wire)} == {(1000, Pace.SMALL_BYTES)}


def test_a_fast_stream_that_becomes_slow_is_read_as_it_comes() -> None:
    wire = Wire([b"x" * 2**16] * 400, seconds_each=0.001)
    stream = read_all(wire)
    assert any(size == Pace.LARGE_BYTES for _, size in stream)
    wire.seconds_each = 0.1
    next(stream)
    assert {size for _, size in stream} == {Pace.SMALL_BYTES}


def test_no_more_is_read_than_is_asked_for() -> None:
    wire = cast("Any", Wire([b"123456789"]))
    assert bytes(Pace().read(wire, 4)) == b"1234"
    assert bytes(Pace().read(wire, 4)) == b"5678"
