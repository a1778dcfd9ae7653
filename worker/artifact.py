"""The port between the story and the network: what `verify` needs of whoever fetches."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from worker.attempts import Attempt
from worker.diagnose import SMALL_BYTES

Piece = tuple[int, bytes | memoryview]
"""Bytes of an artifact, and the offset they begin at: where the last piece ended, or 0 to begin again."""

HEAD_BYTES = 4 * 1024
"""How much is remembered of one that is larger."""


@dataclass
class Seen:
    """What a stream showed while it passed. It is used to explain a mismatch, and never shown."""

    media_type: str = ""
    content_encoding: str = ""
    head: bytearray = field(default_factory=bytearray)

    def note(self, piece: Piece, *, total_bytes: int | None = None) -> None:
        """Remember a small artifact, or the first bytes of a large one. *total_bytes* is its length, where known."""
        offset, chunk = piece
        if offset <= len(self.head):
            del self.head[offset:]
            self.head += chunk[: SMALL_BYTES + 1 - offset]
            if (total_bytes or len(self.head)) > SMALL_BYTES:
                del self.head[HEAD_BYTES:]


@dataclass(frozen=True)
class Download:
    """An artifact on its way in: its pieces, in order, and what they showed so far."""

    pieces: Iterable[Piece]
    seen: Seen


class Fetch(Protocol):
    """How the bytes at a URL are had, for the length of a block."""

    def __call__(self, url: str, attempt: Attempt, /) -> AbstractContextManager[Download]:
        """Open *url* and tell *attempt* how far it has come.

        Raises, in the block too:
            Rejected: what is there, or where it is, rules the artifact out.
            Unavailable: it could not be had this time.
        """
        ...
