"""Heartbeat: this process tells the store every few seconds that it lives, and when it leaves."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.store.workers import SEEN_EVERY_S, Workers

log = get_logger(__name__)


class Heartbeat:
    """One worker process among the workers. *workers* is asked for in its thread: it may have to connect."""

    def __init__(self, workers: Callable[[], Workers], worker: str, lives: Callable[[], bool]) -> None:
        self._workers = workers
        self._lives = lives
        self._worker = worker
        self._left = threading.Event()
        self._telling = threading.Lock()

    def arrive(self, max_downloads: int) -> None:
        """Begin to tell, that it may hold *max_downloads* at once."""
        threading.Thread(target=self._run, args=(max_downloads,), name="heartbeat", daemon=True).start()

    def leave(self) -> None:
        """Tell, for the last time, that this process is gone."""
        self._left.set()
        with self._telling, suppress(StoreUnavailable):  # then it is found missing
            self._workers().gone(self._worker)

    def _run(self, max_downloads: int) -> None:
        while True:
            try:
                self._tell(max_downloads)
            except Exception:  # this thread must outlive any surprise
                log.exception("this worker could not say that it lives")
            time.sleep(SEEN_EVERY_S)

    def _tell(self, max_downloads: int) -> None:
        with self._telling, suppress(StoreUnavailable):  # then nothing is told, and it is found missing
            if not self._left.is_set() and self._lives():
                self._workers().here(self._worker, max_downloads=max_downloads)
