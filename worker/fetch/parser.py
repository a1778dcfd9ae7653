"""The parser: an answer of HTTP/1.1, from bytes to a head and a body, without a socket.

It is fed with whatever has arrived, in pieces of any size, and says the same for every way to cut them. Whoever reads
the socket decides when and how much: so threads and an event loop can share it, and a test is bytes in, values out.

    bytes ──► HeadReader ──► Head ──► Body ──► the content, as slices of what was fed
              interim answers        by length, by chunks, or to the end of the connection
              are skipped

Strict where two readers could disagree about where something ends, for then one of them can be lied to: a field name
followed by a space, a lone CR, a doubled length, a length beside chunks, a chunk's size in anything but hex digits.
Lenient where a host is merely old: a line may end without its CR, a reason may be missing, a folded line is joined
(RFC 9112 sections 2.2, 4 and 5.2), white space around a value is no part of it (RFC 9110 section 5.5).

**Everything is bounded**: a head in bytes, interim answers and all; these in number; a chunk's line; trailers; the
framing by what it frames, so that no host makes us work more for a byte of content than for twenty. None of it is
looked at twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from shared.errors import BadResponse, Truncated

MAX_HEAD_BYTES = 64 * 1024
MAX_INTERIM = 64
"""Answers with a status of 1xx before the one that counts."""
MAX_LINE_BYTES = 4096
"""Of a chunk's line, or a trailer."""
_USUAL_LINE_BYTES = 16
MAX_TRAILERS = 100
SMALL_CHUNKS, BYTES_A_CHUNK = 4096, 256
"""So many chunks may be small; beyond them there may be one for so many bytes. Each costs what kilobytes cost."""
MAX_EXCESS_BYTES = 128 * 1024
"""How many bytes of framing there may be beyond those of content."""
BROKE_HTTP = "The artifact's host broke the rules of HTTP."
TINY_CHUNKS = "The artifact's host sends it in chunks so small that they are mostly framing."
BROKE_OFF = "The connection to the artifact's host broke before the artifact was complete."

_VERSION = b"HTTP/1."
# RFC 9112 section 4: three digits, and single spaces.
_STATUS_LINE = re.compile(rb"HTTP/1\.([0-9]) ([0-9]{3})(?: [\t\x20-\x7e\x80-\xff]*+)?+")
# RFC 9110 sections 5.1 and 5.5: a token, a colon, and no control but the tab.
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]++):([\t\x20-\x7e\x80-\xff]*+)")
_FOLDED = re.compile(rb"[ \t][\t\x20-\x7e\x80-\xff]*+")
_END_OF_HEAD = re.compile(rb"\n\r?\n")
_CHUNK_LINE = re.compile(rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,16}+)[ \t]*+(?:;[\t\x20-\x7e\x80-\xff]*+)?+")

Content = memoryview


@dataclass(frozen=True)
class Head:
    """A status and the fields beside it, names in lower case, in the order in which they came."""

    status: int
    minor_version: int
    fields: tuple[tuple[str, str], ...]

    def values(self, name: str) -> list[str]:
        """Return the values of the fields called *name*, which is in lower case."""
        return [value for field, value in self.fields if field == name]

    def value(self, name: str) -> str:
        """Return them as one, joined by commas (RFC 9110 section 5.3); nothing where there is none."""
        return ", ".join(self.values(name))

    @cached_property
    def chunked(self) -> bool:
        """Whether the body comes in chunks.

        Raises:
            BadResponse: it is coded otherwise, a length stands beside that, or the answer is of HTTP/1.0, which has
                no chunks (RFC 9112 sections 6.1 and 6.3).
        """
        codings = self.values("transfer-encoding")
        if not codings:
            return False
        chunked = len(codings) == 1 and codings[0].lower() == "chunked"
        if not chunked or self.values("content-length") or self.minor_version == 0:
            raise BadResponse(
                "The artifact's host framed its answer in a way that can be read in two.", cause="ambiguous-framing"
            )
        return True

    @cached_property
    def length(self) -> int | None:
        """How many bytes are announced, if they are.

        Raises:
            BadResponse: the length is impossible or doubled.
        """
        lengths = self.values("content-length")
        if self.chunked or not lengths:
            return None
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise BadResponse("The artifact's host sent an impossible Content-Length.", cause="impossible-length")
        return int(lengths[0].lstrip("0")[:20] or "0")

    @property
    def may_be_kept(self) -> bool:
        """Whether the connection may live on after the body (RFC 9112 section 9.3)."""
        options = {option.strip() for option in self.value("connection").lower().split(",")}
        return self.minor_version >= 1 and "close" not in options


class HeadReader:
    """Reads the head of an answer; interim ones (1xx but 101) before it are skipped (RFC 9110 section 15.2)."""

    def __init__(self) -> None:
        self._arrived = bytearray()
        self._searched = 0
        self._spent = 0
        self._interim = 0

    @property
    def rest(self) -> bytes:
        """What was fed beyond the head: the beginning of the body."""
        return bytes(self._arrived)

    def feed(self, piece: bytes | memoryview) -> Head | None:
        """Return the head, once it is whole.

        Raises:
            BadResponse: it is none, or more than is read of one.
        """
        self._arrived += piece
        while found := _END_OF_HEAD.search(self._arrived, self._searched):
            lines = bytes(self._arrived[: found.start() + 1])
            del self._arrived[: found.end()]
            self._searched, self._spent = 0, self._spent + found.end()
            self._check_size(0)
            head = _parsed(lines)
            if head.status // 100 != 1 or head.status == 101:
                return head
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise BadResponse(
                    f"The artifact's host sent more than {MAX_INTERIM} interim answers.", cause="interim-answers"
                )
        self._searched = max(0, len(self._arrived) - 2)
        self._check_size(len(self._arrived))
        if not self._may_be_one():
            raise BadResponse(BROKE_HTTP, cause="malformed-head")
        return None

    def end(self) -> None:
        """Say that the connection has ended within the head.

        Raises:
            Truncated: always.
        """
        raise Truncated(BROKE_OFF)

    def _check_size(self, more: int) -> None:
        if self._spent + more > MAX_HEAD_BYTES:
            raise BadResponse(
                f"The artifact's host sent a head of more than {MAX_HEAD_BYTES} bytes.", cause="answer-head-too-large"
            )

    def _may_be_one(self) -> bool:
        """Whether what has arrived may become a head: what speaks another protocol is told by its first bytes."""
        line, end, _ = bytes(self._arrived[: len(_VERSION)]).partition(b"\n")
        return not end and (_VERSION.startswith(line))


def _parsed(lines: bytes) -> Head:
    """Return the head in *lines*, the blank one left out.

    Raises:
        BadResponse: a line is none of a head.
    """
    status_line, *rest = (line.removesuffix(b"\r") for line in lines.removesuffix(b"\n").split(b"\n"))
    status = _STATUS_LINE.fullmatch(status_line)
    if status is None:
        raise BadResponse(BROKE_HTTP, cause="malformed-head")
    fields: list[tuple[str, list[str]]] = []
    for line in rest:
        if field := _FIELD.fullmatch(line):
            fields.append((field[1].decode("ascii").lower(), [_text(field[2])]))
        elif fields and _FOLDED.fullmatch(line):
            fields[-1][1].append(_text(line))
        else:
            raise BadResponse(BROKE_HTTP, cause="malformed-head")
    joined = tuple((name, " ".join(filter(None, parts))) for name, parts in fields)
    return Head(int(status[2]), int(status[1]), joined)


def _text(value: bytes) -> str:
    return value.strip(b" \t").decode("latin-1")


class Body:
    """The body that a head announces, piece by piece, exactly as served."""

    def __init__(self, head: Head) -> None:
        """Begin to read the body of *head*.

        Raises:
            BadResponse: *head* announces it in a way that can be read in two.
        """
        self._left = head.length
        self._take = self._take_chunked if head.chunked else self._take_sized
        self._to_the_end = self._left is None and not head.chunked
        self._line = bytearray()
        self._read_line = self._read_chunk_line
        self._chunks = self._framing = self._content = self._trailers = 0
        self.done = self._left == 0
        self.surplus = False
        """Whether bytes came after its end: then nobody can say where the next answer begins."""

    @property
    def ended_by_itself(self) -> bool:
        """Whether it is done and the connection goes on."""
        return self.done and not self._to_the_end

    @property
    def wanted(self) -> int | None:
        """How many bytes can be read without reading beyond the end, where that is known."""
        return self._left if self._take == self._take_sized else None

    def feed(self, piece: bytes | memoryview) -> Iterator[Content]:
        """Yield what *piece* holds of the content, as slices of it, which hold on to it.

        Raises:
            BadResponse: it is malformed, or framed in far smaller chunks than anybody has use for.
        """
        rest = memoryview(piece)
        while rest and not self.done:
            content, rest = self._take(rest)
            if content:
                yield content
        self.surplus = self.surplus or bool(rest)

    def end(self) -> None:
        """Say that the connection has ended.

        Raises:
            Truncated: before the body had.
        """
        if not self.done and not self._to_the_end:
            raise Truncated(BROKE_OFF)
        self.done = True

    def _take_sized(self, rest: memoryview) -> tuple[Content, memoryview]:
        """Take what belongs to a body of known length, or to one that goes on to the end of the connection."""
        if self._left is None:
            return rest, rest[:0]
        content, rest = rest[: self._left], rest[self._left :]
        self._left -= len(content)
        self.done = self._left == 0
        return content, rest

    def _take_chunked(self, rest: memoryview) -> tuple[Content, memoryview]:
        """Take some of a chunk, or of a line between chunks (RFC 9112 section 7.1)."""
        if self._left:
            content, rest = rest[: self._left], rest[self._left :]
            self._left -= len(content)
            self._content += len(content)
            return content, rest
        looked_at = bytes(rest[:_USUAL_LINE_BYTES])
        if b"\n" not in looked_at:
            looked_at = bytes(rest[: MAX_LINE_BYTES + 1])
        end = looked_at.find(b"\n") + 1
        taken = looked_at[: end or len(looked_at)]
        self._line += taken
        self._framing += len(taken)
        if len(self._line) > MAX_LINE_BYTES:
            raise BadResponse(
                f"The artifact's host sent a line of more than {MAX_LINE_BYTES} bytes between chunks.",
                cause="chunk-line-too-long",
            )
        if self._framing > self._content + MAX_EXCESS_BYTES:
            raise BadResponse(TINY_CHUNKS, cause="tiny-chunks")
        if end:
            line, self._line = bytes(self._line[:-1]).removesuffix(b"\r"), bytearray()
            self._read_line(line)
        return rest[:0], rest[len(taken) :]

    def _read_chunk_line(self, line: bytes) -> None:
        found = _CHUNK_LINE.fullmatch(line)
        if found is None:
            raise BadResponse(BROKE_HTTP, cause="malformed-chunks")
        self._chunks += 1
        if self._chunks > SMALL_CHUNKS + self._content // BYTES_A_CHUNK:
            raise BadResponse(TINY_CHUNKS, cause="tiny-chunks")
        self._left = int(found[1] or b"0", 16)
        self._read_line = self._read_chunk_end if self._left else self._read_trailer

    def _read_chunk_end(self, line: bytes) -> None:
        if line:
            raise BadResponse(BROKE_HTTP, cause="malformed-chunks")
        self._read_line = self._read_chunk_line

    def _read_trailer(self, line: bytes) -> None:
        """Read a trailer, which says nothing that counts (RFC 9110 section 6.5.1)."""
        self._trailers += 1
        if line and self._trailers > MAX_TRAILERS:
            raise BadResponse(
                f"The artifact's host sent more than {MAX_TRAILERS} trailers.", cause="too-many-trailers"
            )
        if line and not (_FIELD.fullmatch(line) or _FOLDED.fullmatch(line)):
            raise BadResponse(BROKE_HTTP, cause="malformed-chunks")
        self.done = not line
