"""The loop: one uvloop on a thread of its own, where an engine lives, and somebody who sees when it is held up.

All tasks of a loop wait for the one that runs. So whatever can take long runs elsewhere: look-ups, diagnosis, the
store, digests of what is large. A call that holds the loop up nevertheless is logged, with where it was: a monitor on
another thread looks at it while it lasts.
"""

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

import uvloop

from shared.logs import get_logger

HELD_UP_S = 0.1
LOOK_EVERY_S = 0.02
STILL_S = 2.0
"""A loop that has not moved for so long does not live, until it moves again."""
FRAMES = 4
"""How many of the innermost calls are told."""

Answer = TypeVar("Answer")
log = get_logger(__name__)


class LoopThread:
    """A loop that runs until it is closed, for callers on other threads."""

    def __init__(self, name: str = "engine") -> None:
        self.loop = uvloop.new_event_loop()
        self._seen_at = time.monotonic()
        self._closed = threading.Event()
        self._calling = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()
        threading.Thread(target=self._monitor, name=f"{name} monitor", daemon=True).start()

    def call(self, work: Coroutine[Any, Any, Answer], *, within_s: float | None = None) -> Answer:
        """Run *work* in the loop and return what it returns, or raise what it raises.

        Raises:
            TimeoutError: it takes longer than *within_s*; it was told to stop.
            CancelledError: the loop is closed, or was before it was done.
        """
        with self._calling:  # what comes after `close` would never run, and its caller wait for ever
            if self._closed.is_set():
                work.close()
                raise CancelledError
            running = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return running.result(within_s)
        except TimeoutError:
            running.cancel()
            raise

    @property
    def moves(self) -> bool:
        """Whether something has run here lately."""
        return time.monotonic() - self._seen_at < STILL_S

    def close(self) -> None:
        """Stop the loop, and what still runs in it."""
        with self._calling:
            if self._closed.is_set():
                return
            self._closed.set()
            self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.call_soon(self._be_seen)
        self.loop.run_forever()
        left = asyncio.all_tasks(self.loop)
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    def _be_seen(self) -> None:
        self._seen_at = time.monotonic()
        self.loop.call_later(LOOK_EVERY_S, self._be_seen)

    def _monitor(self) -> None:
        """Look whether the loop moves. What holds it is seen while it lasts, how long is known afterwards."""
        where = ""
        stuck_since, told = 0.0, False
        while not self._closed.wait(LOOK_EVERY_S):
            seen_at = self._seen_at
            if stuck_since and seen_at != stuck_since:
                log.warning("loop held up", for_ms=int((seen_at - stuck_since) * 1000), by=where)
                stuck_since = 0.0
            elif not stuck_since and time.monotonic() - seen_at > HELD_UP_S + LOOK_EVERY_S:
                stuck_since, where = seen_at, self._where()
            elif stuck_since and not self.moves and not told:
                log.error("loop does not move", by=self._where())
            told = bool(stuck_since) and not self.moves

    def _where(self) -> str:
        frame = sys._current_frames().get(self._thread.ident or 0)
        calls = traceback.extract_stack(frame)[-FRAMES:] if frame else []
        return " > ".join(f"{call.name} ({call.filename.rpartition('/')[2]}:{call.lineno})" for call in calls)
