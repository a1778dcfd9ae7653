"""Presence: this process tells the store every few seconds that it lives, and when it leaves."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.store.workers import SEEN_EVERY_S, Census

log = get_logger(__name__)


class Presence:
    """One worker process in the census. *census* is asked for in its thread: it may have to connect."""

    def __init__(self, census: Callable[[], Census], worker: str, lives: Callable[[], bool]) -> None:
        self._census = census
        self._lives = lives
        self._worker = worker
        self._left = threading.Event()
        self._telling = threading.Lock()

    def arrive(self, threads: int) -> None:
        """Begin to tell, that *threads* downloads may be held here."""
        threading.Thread(target=self._run, args=(threads,), name="presence", daemon=True).start()

    def leave(self) -> None:
        """Tell, for the last time, that this process is gone."""
        self._left.set()
        with self._telling, suppress(StoreUnavailable):  # then it is found missing
            self._census().gone(self._worker)

    def _run(self, threads: int) -> None:
        while True:
            try:
                self._tell(threads)
            except Exception:  # this thread must outlive any surprise
                log.exception("this worker could not say that it lives")
            time.sleep(SEEN_EVERY_S)

    def _tell(self, threads: int) -> None:
        with self._telling, suppress(StoreUnavailable):  # the heartbeat says so already
            if not self._left.is_set() and self._lives():
                self._census().here(self._worker, threads=threads)
