"""An outage of the store, told to the log once, with what the database said; the many who meet it say nothing of it.

It begins with a failure, and is over when something went well and nothing has failed for `OVER_S`: a store that takes
one in two is not well. In between a reason that has not been told yet is, up to a few: "the server is shutting down"
is followed by "connection refused", and both are worth knowing.
"""

import threading
import time
from collections.abc import Callable

from shared.logs import get_logger

OVER_S = 10.0
MAX_REASONS = 5

log = get_logger(__name__)


class StoreOutage:
    """Whether the store fails this process at the moment, and who has been told why."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Go by *clock*, in seconds."""
        self._clock = clock
        self._told: list[str] = []
        self._begun_at = self._failed_at = 0.0
        self._telling = threading.Lock()

    def failed(self, reason: str) -> None:
        """Note that something failed just now, for *reason*."""
        with self._telling:
            self._failed_at = self._clock()
            if not self._told:
                self._begun_at = self._failed_at
            if reason not in self._told and len(self._told) < MAX_REASONS:
                self._told.append(reason)
                log.warning("store away", reason=reason)

    def went_well(self) -> None:
        """Note that something went well just now."""
        if self._told and self._clock() - self._failed_at > OVER_S:
            with self._telling:
                if self._told:
                    log.info("store back", failed_for_s=round(self._failed_at - self._begun_at, 1))
                self._told = []
