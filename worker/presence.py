"""Presence: this process tells the store every few seconds that it lives, and when it leaves."""

import threading
from collections.abc import Callable
from contextlib import suppress

from shared.census import SEEN_EVERY_S, Census
from shared.errors import StoreUnavailable
from worker.attempts import repeat


class Presence:
    """One worker process in the census. *census* is asked for in its thread: it may have to connect."""

    def __init__(self, census: Callable[[], Census], worker: str) -> None:
        self._census = census
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
        self._tell(threads)
        repeat(lambda: self._tell(threads), SEEN_EVERY_S)

    def _tell(self, threads: int) -> None:
        with self._telling, suppress(StoreUnavailable):  # the heartbeat says so already
            if not self._left.is_set():
                self._census().here(self._worker, threads=threads)
