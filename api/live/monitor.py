"""Sight: what operators see of store and broker, looked at once for everyone who asks at the same time."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from fastapi.concurrency import run_in_threadpool

from api.http.counts import Answers
from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.registration import Registration, Status
from shared.store.counters import Tallies
from shared.store.snapshot import Overview, Overviews

log = get_logger(__name__)
FRESH_S = 1.0
"""How old a sight may be that is shown."""
SHARE = 10
"""A look that takes long is not taken more often than fits this many times into the time between two."""
COUNTED_EVERY_S = 5.0
SILENT_S = 15.0
"""After so long without a sweep something is wrong: it runs every other second."""
OLD_S = 30.0
SURGE_FROM, SURGE_SHARE = 5, 0.5
STORE_WITHIN_S = 3.0
"""So is a store."""
BROKER_WITHIN_S = 1.0
"""A broker that does not answer within this is shown as away."""


@dataclass(frozen=True)
class Sighting:
    """The store's overview, and the bells that wait in the broker; None where it did not answer."""

    overview: Overview
    bells: int | None
    sessions: frozenset[str] = frozenset()
    """The sessions that were good: so that those who watch need not be looked up one by one."""
    rendered: dict[bool, str] = field(default_factory=dict, compare=False)
    """The page's view of it, for who may operate and who may not, once somebody has looked."""

    @property
    def registrations(self) -> dict[Status, int]:
        """How many registrations of each status the store holds."""
        in_flight = {Status.QUEUED: self.overview.queued, Status.VERIFYING: self.overview.verifying}
        return {each: in_flight[each] if each in in_flight else self.overview.kept.get(each, 0) for each in Status}

    @property
    def trouble(self) -> list[str]:
        """What is wrong, in sentences, the worst first.

        The alert rules in ``deploy/`` say the same, but wait longer, and not for a single download or retry.
        """
        return list(_trouble(self))


def _trouble(seen: Sighting) -> Iterator[str]:
    it = seen.overview
    if seen.bells is None:
        yield "The broker does not answer: new work waits for the sweep, and the sweep for the broker."
    if not any(each.alive for each in it.workers):
        yield "No worker lives: nothing is verified."
    if it.swept_s_ago is None or it.swept_s_ago > SILENT_S:
        since = "never ran" if it.swept_s_ago is None else f"has not run for {it.swept_s_ago:.0f} s"
        yield f"The sweep {since}: retries and what was missed wait. Is beat running, and a worker?"
    if it.oldest_due_s is not None and it.oldest_due_s > OLD_S:
        flows = "work flows, too slowly" if it.settled_a_second else "nothing flows"
        yield f"The oldest registration has been due for {it.oldest_due_s:.0f} s: {flows}."
    if it.all_stalled:
        worst = max(it.upstreams, key=lambda each: each.stalled, default=None)
        where = f", {worst.stalled} of {worst.host}" if worst and worst.stalled else ""
        yield f"{_downloads(it.all_stalled)} stalled{where}."
    settled, failed = it.settled_lately
    if failed >= SURGE_FROM and failed > settled * SURGE_SHARE:
        yield f"{failed} of the last {settled} registrations failed; the newest: {_reason(it.failures)}."
    if it.retrying:
        cause, number = max(it.retrying.items(), key=lambda each: each[1])
        yield f"{sum(it.retrying.values())} wait to be tried again, {number} of them for {cause}."


def _downloads(number: int) -> str:
    return "1 download has" if number == 1 else f"{number} downloads have"


def _reason(failures: Sequence[Registration]) -> str:
    failure = failures[0].failure if failures else None
    return f"{failure.cause}, at fault: {failure.fault}" if failure else "unknown"


@dataclass(frozen=True)
class QueuePosition:
    """A queued registration's place: how many were submitted before it, and how long these will take.

    The estimate is None where nothing has settled in the last minutes: then there is no rate to go by.
    """

    ahead: int
    estimated_wait_s: float | None


class Sight:
    """Looks at most once a second, however many ask."""

    def __init__(
        self,
        overviews: Overviews,
        tallies: Tallies,
        answers: Answers,
        waiting: Callable[[], int],
        sessions: Callable[[], frozenset[str]] = frozenset,
    ) -> None:
        self._overviews = overviews
        self._tallies = tallies
        self._answers = answers
        self._waiting = waiting
        self._sessions = sessions
        self._last: Sighting | None = None
        self._fresh_until = 0.0
        self._looking = asyncio.Lock()
        self._asking: asyncio.Task[int | None] | None = None
        self._seeing: asyncio.Task[tuple[Sighting | None, float]] | None = None
        self._leaving = asyncio.Event()

    async def now(self) -> Sighting:
        """Return what is seen, no more than about a second old.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        async with self._looking:
            if monotonic() >= self._fresh_until:
                self._last, self._fresh_until = await self._take()
            if self._last is None:
                raise StoreUnavailable("The store does not answer in time.")
            return self._last

    async def _take(self) -> tuple[Sighting | None, float]:
        """Return what is seen, None where the store does not say, and until when that will do.

        A look that takes too long is left to itself; no other is begun before it is over.
        """
        if self._seeing is None or self._seeing.done():
            self._seeing = asyncio.create_task(self._see())
        done, _pending = await asyncio.wait({self._seeing}, timeout=STORE_WITHIN_S)
        seen, took_s = self._seeing.result() if done else (None, 0.0)
        return seen, monotonic() + max(FRESH_S, SHARE * took_s)

    async def _see(self) -> tuple[Sighting | None, float]:
        begun = monotonic()
        asking = asyncio.create_task(self._bells())
        try:
            overview, sessions = await run_in_threadpool(self._look)
        except Exception as error:  # noqa: BLE001  # whatever it is, the next look may go well, and many wait for this one
            log.warning("store not seen", reason=str(error) or type(error).__name__)
            return None, 0.0
        took_s = monotonic() - begun
        return Sighting(overview, await asking, sessions), took_s

    async def place_of(self, registration: Registration) -> QueuePosition | None:
        """Return where *registration* stands in the queue, if it is queued and due."""
        if registration.status is not Status.QUEUED or registration.attempts:
            return None
        try:
            rate = (await self.now()).overview.settled_a_second
            ahead = await run_in_threadpool(self._overviews.ahead_of, registration)
        except StoreUnavailable:
            return None
        return QueuePosition(ahead, round((ahead + 1) / rate, 1) if rate else None)

    async def sightings(self) -> AsyncIterator[Sighting | None]:
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
        """Keep the store's count of answers up to date, though nobody looks, for as long as the process lives."""
        while True:
            await asyncio.sleep(COUNTED_EVERY_S)
            await run_in_threadpool(self.count_answers)

    async def bells(self) -> int | None:
        """Return how many bells wait in the broker, whether or not the store answers."""
        return await self._bells()

    def _look(self) -> tuple[Overview, frozenset[str]]:
        self.count_answers()
        with suppress(StoreUnavailable):  # it may still be read
            self._tallies.count()
        return self._overviews.take(), self._sessions()

    def count_answers(self) -> None:
        """Add how requests were answered to the store's tallies; later, where it cannot take that now."""
        counted = self._answers.drain()
        try:
            self._tallies.add(counted)
        except Exception as error:  # noqa: BLE001  # nothing that is counted here may end the api
            self._answers.put_back(counted)
            log.warning("answers not counted", reason=str(error) or type(error).__name__)

    async def _bells(self) -> int | None:
        """Return what the broker says, if it says so soon; it is not asked again before it has."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        done, _pending = await asyncio.wait({self._asking}, timeout=BROKER_WITHIN_S)
        return self._asking.result() if done else None

    async def _ask(self) -> int | None:
        with suppress(Exception):  # whatever the broker's client raises: it does not answer
            return await run_in_threadpool(self._waiting)
        return None
