"""How much to read at once: little while a stream is slow, much while it is fast."""

import socket
import time
from collections.abc import Callable

Piece = memoryview


class Pace:
    """Reads a stream in pieces that grow while it is fast.

    A slow download holds little memory and shows each byte of its progress; a fast one costs few calls.
    Every piece is a buffer of its own, which whoever gets it may keep.
    """

    SMALL_BYTES = 16 * 1024
    LARGE_BYTES = 1024 * 1024
    FAST_BYTES_A_S = 8 * 1024 * 1024
    """Who sends so much in a second, over four pieces, is read in pieces of twice the size."""
    PATIENCE_S = 0.25
    """Who takes so long over one piece is read in small ones again."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.size = self.SMALL_BYTES
        self._begun, self._arrived = now(), 0

    def read(self, wire: socket.socket, at_most: int | None) -> Piece:
        """Return up to *at_most* bytes, as many as fit this pace; none at the end of the stream."""
        piece = memoryview(bytearray(self.size if at_most is None else min(self.size, at_most)))
        begun, filled = self._now(), 0
        while filled < len(piece):
            count = wire.recv_into(piece[filled:])
            filled += count
            if not count or self.size == self.SMALL_BYTES or self._now() - begun > self.PATIENCE_S:
                break
        self._note(filled, begun, self._now())
        return piece[:filled]

    def _note(self, count: int, before: float, now: float) -> None:
        self._arrived += count
        if now - before > self.PATIENCE_S:
            self.size = self.SMALL_BYTES
        elif self._arrived < 4 * self.size:
            return
        elif self._arrived >= self.FAST_BYTES_A_S * (now - self._begun):
            self.size = min(2 * self.size, self.LARGE_BYTES)
        self._begun, self._arrived = now, 0
