"""The feed of events as it grows: one question to the store serves everybody who follows it (`poller.py`).

What was told lately is kept, so that who is not far behind asks the store for nothing. Who follows has what ended be
told at once: each round has what became final be counted, and so numbered, if there is anything.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress

from api.live.poller import Poller
from api.live.threads import Threads
from shared.errors import StoreUnavailable
from shared.store.counters import Counters
from shared.store.events import Event, EventPage, Events, Moved
from shared.store.tokens import name_is_like

KEPT = 2000
"""How many events are kept; of twice as many the older half goes."""
AT_ONCE = 500
PAUSE_S = 0.1


class Feed:
    """Tells followers of every event, in order, as it is numbered."""

    def __init__(self, events: Events, counters: Counters, version: Callable[[], int]) -> None:
        self._events = events
        self._counters = counters
        self._thread = Threads(1, name="feed")
        self._poller: Poller[int, bool] = Poller(self._grown, version, pause_s=PAUSE_S)
        self._kept: list[Event] = []
        self._newest: int | None = None
        """The number of the newest that is known, once anybody has followed."""
        self.run = self._poller.run
        self.wake = self._poller.wake
        self.leave = self._poller.leave
        self.close = self._thread.close

    async def follow(self, after: int, names: Sequence[str]) -> AsyncIterator[EventPage]:
        """Yield pages of every event after number *after*, of names like one of *names*, as they come.

        A page may be empty: then there were events that are not for this reader. It ends when we are told to stop, or
        the feed cannot be gone on in; who comes again is told why.
        """
        while True:
            page = self._known(after, names)
            if page is None:
                try:
                    page = await self._thread(self._events.after, after, limit=AT_ONCE, names=names)
                except (Moved, StoreUnavailable):
                    return
            if page.next_after > after:
                after = page.next_after
                yield page
            elif await self._poller.interest(after) is None:
                return

    def _known(self, after: int, names: Sequence[str]) -> EventPage | None:
        """Return what is kept of what comes after *after*; None where only the store knows."""
        if self._newest is None or after > self._newest:
            return None
        if after == self._newest:
            return EventPage((), after, after)
        if not self._kept or self._kept[0].seq > after + 1:
            return None
        begin = bisect_right(self._kept, after, key=lambda each: each.seq)
        window = self._kept[begin : begin + AT_ONCE]
        found = [each for each in window if name_is_like(each.name_key, names)]
        return EventPage(found, window[-1].seq, self._newest)

    async def _grown(self, places: Sequence[int]) -> Mapping[int, bool]:
        """Look whether there is anything new; say so to all who wait at another place than the newest.

        What is kept changes in the loop alone.
        """
        if self._newest is None:
            self._newest = await self._thread(self._events.newest)
        else:
            try:
                self._go_on(await self._thread(self._told_after, self._newest))
            except Moved:  # another store was put in this one's place
                self._kept, self._newest = [], None
        return {place: True for place in places if place != self._newest}

    def _go_on(self, page: EventPage) -> None:
        if page.newest - page.next_after > KEPT:  # nobody followed for a while: what was missed is asked of the store
            self._kept, self._newest = [], page.newest
            return
        self._kept = [*self._kept, *page.events]
        if len(self._kept) > 2 * KEPT:
            self._kept = self._kept[-KEPT:]
        self._newest = page.next_after

    def _told_after(self, after: int) -> EventPage:
        """Have what became final be numbered; return what comes after *after*."""
        with suppress(StoreUnavailable):  # what is numbered already may still be read
            if not self._counters.all_counted:
                self._counters.count()
        return self._events.after(after, limit=AT_ONCE)
