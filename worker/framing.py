"""Where a body ends: strictly by RFC 9112, where libraries are lenient and a stranger could make use of it."""

import http.client
import re
import time
from collections.abc import Iterator
from email.errors import FirstHeaderLineIsContinuationDefect, MissingHeaderBodySeparatorDefect
from io import BufferedReader
from typing import Any

from shared.errors import BadResponse, Truncated

BROKE_HTTP = "The artifact's host broke the rules of HTTP."
BROKE_OFF = "The connection to the artifact's host broke before the artifact was complete."
_MAX_LINE_BYTES = 4096
_MAX_TRAILER_LINES = 100
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?+\r?\n")


Chunk = bytes | memoryview


class Pace:
    """Reads a stream in pieces that grow while it is fast.

    A slow download holds little memory and shows each byte of its progress; a fast one costs few calls.
    Every chunk is a buffer of its own, which whoever gets it may keep.
    """

    SMALL_BYTES = 16 * 1024
    LARGE_BYTES = 1024 * 1024
    FAST_BYTES_A_S = 8 * 1024 * 1024
    """Who sends so much in a second, over four pieces, is read in pieces of twice the size."""
    PATIENCE_S = 0.25
    """Who takes so long over one piece is read in small ones again."""

    def __init__(self) -> None:
        self.size = self.SMALL_BYTES
        self._begun, self._arrived = time.monotonic(), 0

    def read(self, stream: BufferedReader, at_most: int | None) -> Chunk:
        """Return up to *at_most* bytes, as many as fit this pace; none at the end of the stream."""
        size = self.size if at_most is None else min(self.size, at_most)
        before = time.monotonic()
        if self.size == self.SMALL_BYTES:
            chunk: Chunk = stream.read1(size)
        else:
            buffer = bytearray(size)
            chunk = memoryview(buffer)[: stream.readinto(buffer)]
        self._note(len(chunk), before, time.monotonic())
        return chunk

    def _note(self, count: int, before: float, now: float) -> None:
        self._arrived += count
        if now - before > self.PATIENCE_S:
            self.size = self.SMALL_BYTES
        elif self._arrived < 4 * self.size:
            return
        elif self._arrived >= self.FAST_BYTES_A_S * (now - self._begun):
            self.size = min(2 * self.size, self.LARGE_BYTES)
        self._begun, self._arrived = now, 0


def announced_bytes(response: http.client.HTTPResponse) -> int | None:
    """Return the length that *response* announces, if it does.

    Raises:
        BadResponse: it is impossible, doubled, or contradicted by chunking (RFC 9112 section 6.3).
    """
    lengths = response.headers.get_all("Content-Length", [])
    encoding = response.getheader("Transfer-Encoding")
    if encoding is not None:
        if lengths or encoding.strip().lower() != "chunked":
            raise BadResponse("The artifact's host framed its answer in a way that can be read in two.")
        return None
    if not lengths:
        return None
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise BadResponse("The artifact's host sent an impossible Content-Length.")
    return int(lengths[0].lstrip("0")[:20] or "0")


def body_of(response: http.client.HTTPResponse) -> Iterator[Chunk]:
    """Yield the body of *response* as it arrives, exactly as served, until its proper end.

    Raises:
        Truncated: it ended before that.
        BadResponse: its chunks are malformed.
    """
    stream, left = response.fp, announced_bytes(response)
    if "Transfer-Encoding" in response.headers:
        yield from dechunked(stream)
        return
    pace = Pace()
    while left is None or left > 0:
        chunk = pace.read(stream, left)
        if not chunk:
            if left is None:
                return
            raise Truncated(BROKE_OFF)
        if left is not None:
            left -= len(chunk)
        yield chunk


def dechunked(stream: BufferedReader) -> Iterator[Chunk]:
    """Yield what the chunks in *stream* hold (RFC 9112 section 7.1).

    `http.client` takes for a size what `int` does: ``-1`` then reads all there is into memory, and
    ``0x10`` or ``1_0`` mean to it what they mean to nobody else.

    Raises:
        Truncated, BadResponse: as `body_of`.
    """
    pace = Pace()
    while left := _chunk_size(stream):
        while left:
            chunk = pace.read(stream, left)
            if not chunk:
                raise Truncated(BROKE_OFF)
            left -= len(chunk)
            yield chunk
        if _line(stream) not in {b"\r\n", b"\n"}:
            raise BadResponse(BROKE_HTTP)
    for _trailer in range(_MAX_TRAILER_LINES):
        line = _line(stream)
        if line in {b"\r\n", b"\n"}:
            return
        if not _LINE.fullmatch(line):
            break
    raise BadResponse(BROKE_HTTP)


def _chunk_size(stream: BufferedReader) -> int:
    found = _CHUNK_SIZE.fullmatch(_line(stream))
    if found is None:
        raise BadResponse(BROKE_HTTP)
    return int(found[1], 16)


def _line(stream: BufferedReader) -> bytes:
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise BadResponse(BROKE_HTTP) if len(line) == _MAX_LINE_BYTES else Truncated(BROKE_OFF)
    return line


MAX_HEAD_BYTES = 64 * 1024
"""Of an answer, the interim ones before it included (H7 of the hostile cases)."""
_BEGUN = re.compile(rb"H?T{0,2}P?|HTTP/[^\n]*")
"""A status line that breaks off."""
# RFC 9112 section 4: three digits. A line may end without its CR, as lenient readers allow, and hold none elsewhere.
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] [0-9]{3}(?: [\t\x20-\x7e\x80-\xff]*+)?+\r?\n")
# RFC 9110 section 5.5: no CR, NUL or other control within. What one reader takes for the end of a line hides the
# next line from another.
_LINE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*+\r?\n")
_DEFECTS = (MissingHeaderBodySeparatorDefect, FirstHeaderLineIsContinuationDefect)


class StrictResponse(http.client.HTTPResponse):
    """A response whose head is what RFC 9112 calls one, and no larger than we take.

    `http.client` takes the end of the connection for the blank line: an answer cut off before its Content-Length
    would pass for one of no length, complete and empty. After a line that is no header it looks at no other; a lone
    CR is a line's end to it, and ``+200`` a status.
    """

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.RemoteDisconnected: the connection ended within it.
            http.client.HTTPException: it is malformed.
            BadResponse: it is larger than `MAX_HEAD_BYTES`, or a line holds what none may.
        """
        stream = self.fp
        lines: Any = _Lines(stream)
        self.fp = lines
        try:
            super().begin()
        except http.client.BadStatusLine:
            if not _BEGUN.fullmatch(lines.last):
                raise
        finally:
            if self.fp is lines:
                self.fp = stream
        if lines.last not in {b"\r\n", b"\n"}:
            raise http.client.RemoteDisconnected("the connection ended within the head")
        if any(isinstance(defect, _DEFECTS) for defect in self.headers.defects):
            raise http.client.HTTPException("a line of the head is no header, and those after it were not read")


class _Lines:
    """A stream of which lines are read, each of them fit for a head, up to a number of bytes in all."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._left = MAX_HEAD_BYTES
        self._first = True
        self.last = b""

    def readline(self, _limit: int) -> bytes:
        line: bytes = self._stream.readline(self._left + 1)
        self.last = line
        self._left -= len(line)
        if self._left < 0:
            raise BadResponse(
                f"The artifact's host sent a head of more than {MAX_HEAD_BYTES} bytes.", cause="head-too-large"
            )
        if line.endswith(b"\n"):  # else the connection ended, which `begin` tells
            if not (_STATUS_LINE if self._first else _LINE).fullmatch(line):
                raise BadResponse(BROKE_HTTP, cause="malformed-head")
            self._first = line in {b"\r\n", b"\n"}  # after an interim answer another begins
        return line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
