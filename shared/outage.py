"""An outage of something that others run: it is told once that it has begun, and once that it is over."""

import threading
from typing import Any


class Outage:
    """Whoever meets it notes it, as often as they like. *log* tells, *away* and *back* are the events."""

    def __init__(self, log: Any, *, away: str, back: str) -> None:
        self._log = log
        self._away, self._back = away, back
        self._told: set[str | None] = set()
        self._noting = threading.Lock()

    @property
    def lasts(self) -> bool:
        """Whether it was noted, and not that it is over."""
        return bool(self._told)

    def note(self, reason: str, *, word: str | None = None) -> None:
        """Tell that it has begun, and why; later that there is a new *word*, if what is away says one itself."""
        with self._noting:
            if self._told and (word is None or word in self._told):
                return
            self._told.add(word)
        self._log.warning(self._away, reason=reason)

    def over(self) -> None:
        """Tell that it is over, if there was one."""
        with self._noting:
            if not self._told:
                return
            self._told.clear()
        self._log.info(self._back)
