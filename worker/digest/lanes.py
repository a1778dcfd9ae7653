"""Lanes: a few threads that read and hash what is large and fast, so that the loop stays free for everybody else.

In the loop a piece of a body costs what hashing it costs, and all others wait meanwhile: right for what is small or
slow, which is nearly all. A body that has shown to be fast and to have much to come is handed over, wire and parser
and all: its task awaits the lane, the lane reads pieces of a mebibyte, and a second thread hashes one while the next
arrives. That takes as little time as anything on two cores does.

    loop ── wire, body, intake ──► lane ── done, or slow again ──► loop

**Nothing is shared** but the count of what has arrived, which the loop only reads. While a lane has the three, no
task touches them but to cut them off, which shuts the wire: the lane then reads its end. A stream that turns slow
comes back, so a lane is never kept by somebody who waits. Where no lane is free the loop goes on by itself, in small
pieces, and asks again.
"""

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor

from worker.digest.intake import Intake
from worker.fetch.parser import Body
from worker.fetch.wire import RAW_BYTES, Wire

LANES = max(2, os.cpu_count() or 1)
PIECE_BYTES = 2**20
PATIENCE_S = 0.25
"""Who says nothing for so long is slow."""
SLOW_BYTES_A_S = 4 * 2**20
"""And so is who sends less than this in a second, over two of them. Half of what is fast, so that nobody goes to and
fro."""
WORTH_BYTES = 2**20
"""What is to come must be at least this, where it is known."""


class Lanes:
    """*count* lanes."""

    def __init__(self, count: int = LANES) -> None:
        self._free = count
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="lane")
        for started in [self._threads.submit(time.sleep, 0.01) for _ in range(count)]:
            started.result()  # all of them are there: later there may be no thread to be had

    @property
    def free(self) -> bool:
        """Whether a lane is to be had."""
        return self._free > 0

    async def read(self, wire: Wire, body: Body, intake: Intake) -> None:
        """Read *body* until it is done or turns slow.

        Raises:
            BadResponse, Truncated, ArtifactTooLarge, OSError: as in the loop.
        """
        reading = asyncio.get_running_loop().run_in_executor(self._threads, _read, wire, body, intake)
        self._free -= 1
        try:
            await asyncio.shield(reading)
        except asyncio.CancelledError:
            wire.shut()
            await asyncio.wait([reading])  # then it is ours again
            reading.exception()  # that it broke is no news
            raise
        finally:
            self._free += 1

    def close(self) -> None:
        """End the threads, when they are done."""
        self._threads.shutdown(wait=False)


def _read(wire: Wire, body: Body, intake: Intake) -> None:
    raw = bytearray(RAW_BYTES)
    begun, arrived = time.monotonic(), 0
    with intake.hashing_beside():
        while not body.done:
            piece, end = _piece(wire, body, raw)
            for content in body.feed(piece):
                intake.take(content)
            if isinstance(end, OSError) and not body.done:
                raise end
            if end:
                body.end()
            arrived += len(piece)
            elapsed_s = time.monotonic() - begun
            if not piece or (elapsed_s > 2 and arrived < elapsed_s * SLOW_BYTES_A_S):
                return
            if elapsed_s > 2:
                begun, arrived = time.monotonic(), 0


def _piece(wire: Wire, body: Body, raw: bytearray) -> tuple[memoryview, bool | OSError]:
    """Return what arrives before anybody loses patience, in a buffer of its own.

    And whether the connection has ended by then, or how it broke: that is told once, and may be after the body.
    """
    wanted = PIECE_BYTES if body.wanted is None else min(PIECE_BYTES, body.wanted)
    piece, filled = memoryview(bytearray(wanted)), 0
    until = time.monotonic() + PATIENCE_S
    while filled < wanted and (filled or time.monotonic() < until):
        try:
            count = wire.take(piece[filled:], raw)
        except OSError as error:
            return piece[:filled], error
        if count == 0:
            return piece[:filled], True
        if count is not None:
            filled += max(0, count)
        elif not wire.wait(max(0, until - time.monotonic())):
            break
    return piece[:filled], False
