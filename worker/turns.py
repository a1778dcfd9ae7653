"""A few quick artifacts at a time, however many threads there are.

Threads that all have work take the interpreter from each other in the middle of everything, and each artifact takes
long for all of them. One that is slow waits for its host and needs no turn, so it does not keep it. See
docs/decisions/0013-turns.md.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

AT_ONCE = 16
PATIENCE_S = 0.1
"""Who has had a turn for so long is waiting for somebody, and another may begin."""


class Turns:
    """Turns that lapse. Where artifacts are slow, *at_once* of them begin every *patience_s*."""

    def __init__(self, at_once: int = AT_ONCE, patience_s: float = PATIENCE_S) -> None:
        self._at_once = at_once
        self._patience_s = patience_s
        self._begun: dict[object, float] = {}  # the oldest first
        self._first_in_line = threading.Lock()
        self._ended = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait for a turn, and have it for the length of the block or until it lapses."""
        me = object()
        # One waits for a turn, the others for that one: else all of them would wake whenever a turn lapses.
        with self._first_in_line, self._ended:
            while (seconds := self._full_for_s()) > 0:
                self._ended.wait(seconds)
            self._begun[me] = time.monotonic()
        try:
            yield
        finally:
            with self._ended:
                del self._begun[me]
                self._ended.notify()

    def _full_for_s(self) -> float:
        """Return how long it takes until the next turn lapses, if all are taken; otherwise 0."""
        lapsed_before = time.monotonic() - self._patience_s
        fresh = [begun for begun in self._begun.values() if begun > lapsed_before]
        return fresh[0] - lapsed_before if len(fresh) >= self._at_once else 0
