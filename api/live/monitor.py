"""The monitor takes snapshots of store and broker: one look for everyone who asks at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import monotonic

from api.http.counts import RequestCounts
from api.live.alerts import Alert, Seen, Watch, notes, pauses
from api.live.in_time import in_time
from api.live.threads import Threads
from shared.broker import SILENCE, Reason, reason_of
from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.outage import Outage
from shared.registration import Registration, Status
from shared.store.acknowledgements import Acknowledged
from shared.store.counters import Counters
from shared.store.snapshot import StoreSnapshot, StoreSnapshots

log = get_logger(__name__)
THREADS = 3
"""One for the store, one for the broker, one for places in the queue."""
FRESH_S = 1.0
"""How old a snapshot may be that is shown."""
SHARE = 10
"""A look that takes long is not taken more often than fits this many times into the time between two."""
LOOK_EVERY_S = 5.0
STORE_WITHIN_S = 3.0
BROKER_WITHIN_S = 1.0
"""A store or a broker that does not answer within this is shown as away."""


@dataclass(frozen=True)
class Snapshot:
    """The store's, and how many messages wait in the broker; None where that is away, and why."""

    store: StoreSnapshot
    messages_waiting: int | None
    broker_away: Reason | None = None
    alerts: Sequence[Alert] = ()
    """What is worth being woken for, the worst first."""
    early: Sequence[Alert] = ()
    """What will be, should it stay so."""
    sessions: frozenset[str] = frozenset()
    """The sessions that were good: so that those who watch need not be looked up one by one."""
    rendered: dict[bool, str] = field(default_factory=dict, compare=False)
    """The page's view of it, for who may operate and who may not, once somebody has looked."""

    @property
    def registrations(self) -> dict[Status, int]:
        """How many registrations of each status the store holds."""
        in_flight = {Status.QUEUED: self.store.queued, Status.VERIFYING: self.store.verifying}
        return {each: in_flight[each] if each in in_flight else self.store.kept.get(each, 0) for each in Status}

    @property
    def notes(self) -> list[str]:
        """What is good to know, and wakes nobody, in sentences."""
        return [*pauses(self.store), *self.other_notes]

    @property
    def other_notes(self) -> list[str]:
        """Those, but for what is paused."""
        return [*(each.sentence for each in self.early), *notes(self.store)]


@dataclass(frozen=True)
class QueuePosition:
    """A queued registration's place: how many were submitted before it, and how long these will take.

    The estimate is None where nothing has settled in the last minutes: then there is no rate to go by.
    """

    ahead: int
    estimated_wait_s: float | None
    paused: bool = False
    """Whether an operator has its host left alone: then nobody knows how long."""


class Monitor:
    """Looks at most once a second, however many ask."""

    def __init__(
        self,
        snapshots: StoreSnapshots,
        counters: Counters,
        counts: RequestCounts,
        look_at_broker: Callable[[], int],
        sessions: Callable[[], frozenset[str]] = frozenset,
        acknowledged: Callable[[], Mapping[str, Acknowledged]] = dict,
        *,
        ask: Threads | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Look at the store through *ask*, and by *clock*, in seconds."""
        self._ask_store = ask or Threads(THREADS, name="monitor")
        self._clock = clock
        self._snapshots = snapshots
        self._counters = counters
        self._counts = counts
        self._look_at_broker = look_at_broker
        self._sessions = sessions
        self._acknowledged = acknowledged
        self._known: Mapping[str, Acknowledged] = {}
        """The alerts that somebody has acknowledged, when the store last answered."""
        self._last: Snapshot | None = None
        self._fresh_until = 0.0
        self._changed = 0
        """How often somebody has changed what is seen."""
        self._looking = asyncio.Lock()
        self._asking: asyncio.Task[int | None] | None = None
        self._broker_away: Reason | None = None
        self._seeing: asyncio.Task[tuple[Snapshot | None, float]] | None = None
        self._leaving = asyncio.Event()
        self._watch = Watch()
        self.alerts: Sequence[Alert] = ()
        """Those of the last look, whether or not the store answered it."""
        self._unseen = Outage(log, away="store not seen", back="store seen again")
        self._uncounted = Outage(log, away="answers not counted", back="answers counted again")

    async def now(self) -> Snapshot:
        """Return what is seen, no more than about a second old.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        async with self._looking:
            if self._clock() >= self._fresh_until:
                self._last, self._fresh_until = await self._take()
            if self._last is None:
                raise StoreUnavailable("The store does not answer in time.")
            return self._last

    def look_again(self) -> None:
        """Have whoever asks next be shown what is so then: a look under way is older than what was changed."""
        self._fresh_until = 0.0
        self._changed += 1

    async def _take(self) -> tuple[Snapshot | None, float]:
        """Return what is seen, None where the store does not say, and until when that will do.

        A look that takes too long is left to itself; no other is begun before it is over.
        """
        if self._seeing is None or self._seeing.done():
            self._seeing = asyncio.create_task(self._see())
        changed = self._changed
        done, _pending = await asyncio.wait({self._seeing}, timeout=STORE_WITHIN_S)
        seen, took_s = self._seeing.result() if done else (None, 0.0)
        fresh_s = max(FRESH_S, SHARE * took_s) if changed == self._changed else 0.0
        return self._watched(seen), self._clock() + fresh_s

    def _watched(self, seen: Snapshot | None) -> Snapshot | None:
        """Return what is *seen*, with what is to be told of it."""
        looked_at = Seen(seen.store, seen.broker_away) if seen is not None else Seen(None, self._broker_away)
        at = seen.store.taken_at if seen is not None else datetime.now(UTC)
        alerts, early = self._watch.look(looked_at, now_s=self._clock(), at=at)
        known = {name: each for name, each in self._known.items() if each.until > at}
        self.alerts = [replace(each, acknowledged=known.get(each.name)) for each in alerts]
        return replace(seen, alerts=self.alerts, early=early) if seen is not None else None

    async def _see(self) -> tuple[Snapshot | None, float]:
        begun = self._clock()
        asking = asyncio.create_task(self.broker())
        try:
            store, sessions, self._known = await self._ask_store(self._look)
        except StoreUnavailable:
            return None, 0.0
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may go well, and many wait for this one
            self._unseen.note(str(error) or type(error).__name__)
            return None, 0.0
        self._unseen.over()
        took_s = self._clock() - begun
        return Snapshot(store, *await asking, sessions=sessions), took_s

    async def place_of(self, registration: Registration) -> QueuePosition | None:
        """Return where *registration* stands in the queue, if it is queued and due."""
        if registration.status is not Status.QUEUED:
            return None
        try:
            store = (await self.now()).store
            if paused := any(each.host == registration.host for each in store.paused):
                return QueuePosition(0, None, paused)
            if registration.attempts:
                return None
            rate = store.settled_a_second
            ahead = await in_time(self._ask_store(self._snapshots.ahead_of, registration), STORE_WITHIN_S)
        except StoreUnavailable:
            return None
        return QueuePosition(ahead, round((ahead + 1) / rate, 1) if rate else None)

    async def snapshots(self) -> AsyncIterator[Snapshot | None]:
        """Yield what is seen, again and again, until we are told to stop; None while the store does not answer."""
        while not self._leaving.is_set():
            try:
                yield await self.now()
            except StoreUnavailable:
                yield None
            with suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), FRESH_S)

    def leave(self) -> None:
        """Let everyone go who goes on looking: this process is about to stop."""
        self._leaving.set()

    async def run(self) -> None:
        """Look, though nobody asks, for as long as the process lives: to count answers, and to know of alerts."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with suppress(StoreUnavailable):
                await self.now()

    def _look(self) -> tuple[StoreSnapshot, frozenset[str], Mapping[str, Acknowledged]]:
        self.count_answers()
        with suppress(StoreUnavailable):  # it may still be read
            self._counters.count()
        return self._snapshots.take(), self._sessions(), self._acknowledged()

    def count_answers(self) -> None:
        """Add how requests were answered to the store's counters; later, where it cannot take that now."""
        counted = self._counts.drain()
        try:
            self._counters.add(counted)
        except Exception as error:  # noqa: BLE001  # nothing that is counted here may end the api
            self._counts.put_back(counted)
            if not isinstance(error, StoreUnavailable):  # which the store tells
                self._uncounted.note(str(error) or type(error).__name__)
        else:
            self._uncounted.over()

    async def broker(self) -> tuple[int | None, Reason | None]:
        """Return how many messages wait, or why that is not known, whether or not the store answers.

        What the broker does not say soon is not waited for; it is not asked again before it has.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _pending = await asyncio.wait({self._asking}, timeout=BROKER_WITHIN_S)
        messages = self._asking.result() if done else None
        return messages, (self._broker_away or SILENCE) if messages is None else None

    async def _ask(self) -> int | None:
        try:
            messages = await self._ask_store(self._look_at_broker)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises: it is away
            self._broker_away = reason_of(error)
            return None
        self._broker_away = None
        return messages
