"""Where a body ends: strictly by RFC 9112, where libraries are lenient and a stranger could make use of it."""

import http.client
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

import requests

from shared.errors import BadResponse, Truncated

CHUNK_BYTES = 64 * 1024
BROKE_HTTP = "The artifact's host broke the rules of HTTP."
BROKE_OFF = "The connection to the artifact's host broke before the artifact was complete."
_MAX_LINE_BYTES = 4096
_MAX_TRAILER_LINES = 100
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r?\n")


def announced_bytes(response: requests.Response) -> int | None:
    """Return the length that *response* announces, if it does.

    Raises:
        BadResponse: it is impossible, doubled, or contradicted by chunking (RFC 9112 section 6.3).
    """
    lengths = response.raw.headers.getlist("Content-Length")
    if "Transfer-Encoding" in response.headers:
        if lengths or response.headers["Transfer-Encoding"].strip().lower() != "chunked":
            raise BadResponse("The artifact's host framed its answer in a way that can be read in two.")
        return None
    if not lengths:
        return None
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
        raise BadResponse("The artifact's host sent an impossible Content-Length.")
    return int(lengths[0][:20])


def body_of(response: requests.Response) -> Iterator[bytes]:
    """Yield the body of *response* as it arrives, exactly as served, until its proper end.

    Raises:
        Truncated: it ended before that.
        BadResponse: its chunks are malformed.
    """
    if response.raw.chunked:
        yield from dechunked(response.raw._fp.fp)  # type: ignore[union-attr]  # it is there before the body is read
        return
    while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
        yield chunk


def dechunked(stream: BinaryIO) -> Iterator[bytes]:
    """Yield what the chunks in *stream* hold (RFC 9112 section 7.1).

    urllib3 takes for a size what `int` does: ``-1`` then reads all there is into memory, and
    ``0x10`` or ``1_0`` mean to it what they mean to nobody else.

    Raises:
        Truncated, BadResponse: as `body_of`.
    """
    while left := _chunk_size(stream):
        while left:
            chunk = stream.read1(min(left, CHUNK_BYTES))  # type: ignore[attr-defined]  # it is buffered
            if not chunk:
                raise Truncated(BROKE_OFF)
            left -= len(chunk)
            yield chunk
        if _line(stream) not in {b"\r\n", b"\n"}:
            raise BadResponse(BROKE_HTTP)
    for _trailer in range(_MAX_TRAILER_LINES):
        if _line(stream) in {b"\r\n", b"\n"}:
            return
    raise BadResponse(BROKE_HTTP)


def _chunk_size(stream: BinaryIO) -> int:
    found = _CHUNK_SIZE.fullmatch(_line(stream))
    if found is None:
        raise BadResponse(BROKE_HTTP)
    return int(found[1], 16)


def _line(stream: BinaryIO) -> bytes:
    line = stream.readline(_MAX_LINE_BYTES)
    if not line.endswith(b"\n"):
        raise BadResponse(BROKE_HTTP) if len(line) == _MAX_LINE_BYTES else Truncated(BROKE_OFF)
    return line


class StrictResponse(http.client.HTTPResponse):
    """A response whose head must end with its blank line.

    `http.client` takes the end of the connection for it: an answer cut off before its
    Content-Length would pass for one of no length, complete and empty.
    """

    def begin(self) -> None:
        """Read the head.

        Raises:
            http.client.RemoteDisconnected: the connection ended within it.
        """
        stream = self.fp
        lines: Any = _Lines(stream)
        self.fp = lines
        try:
            super().begin()
        finally:
            if self.fp is lines:
                self.fp = stream
        if lines.last not in {b"\r\n", b"\n"}:
            raise http.client.RemoteDisconnected("the connection ended within the head")


class _Lines:
    """A stream that remembers the last line that was read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.last = b""

    def readline(self, *limit: int) -> bytes:
        self.last = self._stream.readline(*limit)
        return self.last

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
