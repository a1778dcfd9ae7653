"""An outage of something that others run: it is told once that it has begun, and once that it is over.

Those who meet it may be several, each in its own way: one cannot connect, another cannot send over what it has. It
begins with the first who notes it, and is over when it is for all of them.
"""

import threading
from typing import Any


class Outage:
    """Is noted as often as one likes. *log* tells, *away* and *back* are the events."""

    def __init__(self, log: Any, *, away: str, back: str) -> None:
        self._log = log
        self._away, self._back = away, back
        self._met_by: set[str] = set()
        self._told: set[str | None] = set()
        self._noting = threading.Lock()

    @property
    def lasts(self) -> bool:
        """Whether somebody has met it, for whom it is not over."""
        return bool(self._met_by)

    def note(self, reason: str, *, word: str | None = None, by: str = "") -> None:
        """Tell that it has begun, and why; later only of a *word* that is new, said by what is away itself."""
        with self._noting:
            known = self.lasts and (word is None or word in self._told)
            self._met_by.add(by)
            self._told.add(word)
        if not known:
            self._log.warning(self._away, reason=reason)

    def over(self, *, by: str = "") -> None:
        """Tell that it is over, if that was the last for whom it lasted."""
        with self._noting:
            ends = self._met_by == {by}
            self._met_by.discard(by)
            if not self._met_by:
                self._told.clear()
        if ends:
            self._log.info(self._back)
