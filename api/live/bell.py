"""The bell: rung after a commit. It never blocks and never fails an answer (invariant 1)."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from shared.broker import reason_of
from shared.logs import get_logger
from shared.outage import Outage
from shared.registration import RegistrationId

MAX_UNRUNG = 10_000
"""Ids kept for a broker that is slow; beyond that the oldest are left to the sweep."""
BELLS_A_SECOND = 100
"""Of one process, under load. A message costs a worker as much as an artifact does, however many it carries."""
BELLS_AT_ONCE = 8
"""So many are rung as they come, before those that follow gather."""

log = get_logger(__name__)


class Bell:
    """Rings from a thread of its own: at once while that is seldom, else for all who gathered meanwhile.

    What it cannot ring for, the sweep will.
    """

    def __init__(
        self,
        ring: Callable[[Sequence[RegistrationId]], None],
        *,
        a_second: float = BELLS_A_SECOND,
        at_once: int = BELLS_AT_ONCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Ring at most *a_second* bells, by *clock*, but *at_once* as they come."""
        self._ring = ring
        self._a_second, self._at_once = a_second, at_once
        self._clock, self._sleep = clock, sleep
        self._unrung: deque[RegistrationId] = deque(maxlen=MAX_UNRUNG)
        self._some = threading.Event()
        self._outage = Outage(log, away="broker away, the sweep will ring", back="broker back")
        self._next_at = 0.0
        """When the next bell would be rung, did all of them keep the same distance."""

    def start(self) -> None:
        """Start the thread; it ends with the process."""
        threading.Thread(target=self._run, name="bell", daemon=True).start()

    def ring(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Ring for *registration_ids* soon."""
        self._unrung.extend(registration_ids)
        self._some.set()

    def _run(self) -> None:
        while True:
            self._some.wait()
            self._sleep(self._pause_s())
            self._some.clear()
            ids = [self._unrung.popleft() for _ in range(len(self._unrung))]
            if ids:
                self._try(ids)

    def _pause_s(self) -> float:
        """Return how long others may gather for the next bell, and count that."""
        now = self._clock()
        pause_s = max(0, self._next_at - now - (self._at_once - 1) / self._a_second)
        self._next_at = max(self._next_at, now) + 1 / self._a_second
        return pause_s

    def _try(self, ids: Sequence[RegistrationId]) -> None:
        with suppress(Exception):
            self._ring(ids)
            self._outage.over()
            return
        try:  # again, once: the first may only have met a connection that had died meanwhile
            self._ring(ids)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises, the sweep rings again
            reason = reason_of(error)
            self._outage.note(reason.text, word=reason.word)
        else:
            self._outage.over()
