"""The engine: all attempts of a worker process, as tasks of one event loop.

    bell ──► offer ──► look ──► room ──► claim ──► attempt: hops, bytes, digest ──► settle
             Celery's  which    waits    one       a task, with a place of ours
             thread    are due  its turn group     and a slot of its target

**A bell is over within seconds.** Its ids are in the room by then, or are let go: either way the store knows them,
and a message that is acknowledged owes nothing (invariant 12). An id that comes again, from the sweep, is here once.

**Only what has a place and a slot is claimed**, so a worker that is killed has cost as many registrations an attempt
as it had downloads, and no more. A place is one of *downloads*; a slot is one of its target's. `_begin` gives them
out, whenever somebody comes or one is free again: it is the only thing that begins attempts.

**What ends a task.** It settles; or its attempt is cut off, by its deadline, its lease, an operator's cancel, or our
leaving; or the store is away and its lease ends. Whatever it is, `_attempt` gives place and slot back, once, and the
next begins. A task waits for its own host and for the store, and for nobody else: not for the broker, and for another
task two seconds at most, where a redirect leads to a host that has no slot.

**Leaving** lets the room go, cuts all attempts off, and is over when each has put its claim back.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence

from shared.egress import Egress, Target
from shared.errors import RegistryError, StoreUnavailable
from shared.logs import get_logger
from shared.registration import RegistrationId, Waiting
from worker.attempt import SAFETY_S, Attempt, LeaseLost, Released
from worker.keeper import Keeper
from worker.room import Entry, Room
from worker.slots import Busy, Slot, Slots
from worker.verify import Verifier

RENEW_EVERY_S = 0.75
"""A canceled download stops when its claim cannot be renewed: within a second, or with the first renewal."""
YOUNG_S = 2.0
"""A claim so young needs no renewal yet, if its lease is not short; most are settled by then."""
PATIENCE_S = 5.0
"""How long a bell may wait for room."""
STILL_S = 0.5
"""Where nobody has left for so long nobody is waited for: the sweep rings again, and others stand behind a bell."""
MAX_LED = 1024
"""Of how many first targets it is remembered where they lead."""

log = get_logger(__name__)


class Engine:
    """Verifies what it is offered, at most *downloads* at once and *downloads_each_target* from one target."""

    def __init__(
        self,
        keeper: Keeper,
        verifier: Verifier,
        egress: Egress,
        *,
        downloads: int,
        downloads_each_target: int,
        lease_s: float,
        deadline_s: float,
    ) -> None:
        self._keeper = keeper
        self._verifier = verifier
        self._egress = egress
        self._downloads = downloads
        self._lease_s = lease_s
        self._deadline_s = deadline_s
        self._young_s = min(YOUNG_S, (lease_s - SAFETY_S) / 3)
        self._room = Room()
        self._slots = Slots(downloads_each_target, self._begin)
        self._tasks: dict[RegistrationId, asyncio.Task[None]] = {}
        """Of each registration that has a place here."""
        self._live: dict[RegistrationId, Attempt] = {}
        """Of those, the ones that are claimed."""
        self._led: dict[Target, Target] = {}
        """Where first targets led whose downloads had to wait there; the latest last."""
        self._leaving = False
        self._moved = asyncio.Event()
        self._moved_at = 0.0
        self._renewing = asyncio.get_running_loop().create_task(self._renew_for_ever())

    # --- from a bell to a task ------------------------------------------------------------------

    async def offer(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Let these wait for their turn, as far as they are due and there is room."""
        new = [each for each in registration_ids if not self._is_here(each)]
        if self._leaving or not new:
            return
        try:
            waiting = await self._keeper.look(new)
        except StoreUnavailable:  # the sweep rings again
            return
        until = time.monotonic() + PATIENCE_S
        while waiting:
            waiting = [each for each in waiting if not self._let_in(each)]
            if not self._begin() and waiting and not await self._moves(until):
                log.info("no room", let_go=len(waiting))
                return

    def _let_in(self, waiting: Waiting) -> bool:
        """Let one wait for its turn, if there is room; return whether it does, or needs nothing."""
        if self._is_here(waiting.id):
            return True
        if self._leaving or not self._room.fits(waiting.submitted_by):
            return False
        self._room.put(Entry(waiting.id, waiting.submitted_by, self._target(waiting.artifact_url)))
        return True

    def _is_here(self, registration_id: RegistrationId) -> bool:
        return registration_id in self._tasks or registration_id in self._room

    def _target(self, url: str) -> Target | None:
        try:
            return self._egress.check_url(url)
        except RegistryError:
            return None  # the policy has changed meanwhile; the attempt will say so

    async def _moves(self, until: float) -> bool:
        """Wait until somebody has left the room; return whether that was soon. Where nothing moves nobody waits."""
        if self._leaving:
            return False
        patience_s = min(self._moved_at + STILL_S, until) - time.monotonic()
        self._moved.clear()
        try:
            async with asyncio.timeout(max(0, patience_s)):
                await self._moved.wait()
        except TimeoutError:
            return False
        return True

    def _begin(self) -> bool:
        """Begin attempts, as many as have a place and a slot; return whether there were any."""
        begun = len(self._tasks)
        while len(self._tasks) < self._downloads and (entry := self._room.next(self._has_slot)):
            slot = self._slots.take(self._led_to(entry.target or _NOWHERE))
            self._tasks[entry.id] = asyncio.get_running_loop().create_task(self._attempt(entry, slot))
            self._moved_at = time.monotonic()
            self._moved.set()
        return len(self._tasks) > begun

    def _has_slot(self, target: Target | None) -> bool:
        return target is None or self._slots.free(self._led_to(target))

    def _led_to(self, target: Target) -> Target:
        """Return where what leads to *target* is led to in the end, as far as that is known."""
        return self._led.get(target, target)

    # --- from a task to an outcome --------------------------------------------------------------

    async def _attempt(self, entry: Entry, slot: Slot) -> None:
        """Claim, verify, settle; then make room for the next."""
        back: Entry | None = None
        try:
            asked_at = time.monotonic()
            claim = await self._keeper.claim(entry.id)
            if claim is not None:
                attempt = Attempt(claim, deadline_s=self._deadline_s, lease_s=self._lease_s, claimed_at=asked_at)
                self._live[entry.id] = attempt
                if self._leaving:
                    attempt.cut_off(_leaving())
                await self._verifier.verify(attempt, slot)
        except Busy as busy:
            self._learn(entry.target or _NOWHERE, busy.target)
            back = entry
        except StoreUnavailable:
            pass  # the sweep rings again
        except Exception:  # whatever it is, the next has its turn; the lease will run out
            log.exception("attempt ended in a surprise", registration=entry.id)
        finally:
            slot.leave()
            self._live.pop(entry.id, None)
            del self._tasks[entry.id]
            if back is not None and not self._leaving:
                self._room.put(back)
            self._begin()

    def _learn(self, first: Target, target: Target) -> None:
        """Remember that what leads to *first* is led on to *target*, which many want."""
        self._led.pop(first, None)
        self._led[first] = target
        if len(self._led) > MAX_LED:
            del self._led[next(iter(self._led))]

    # --- leases ---------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            await self._renew()

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        attempts = [each for each in self._live.values() if asked_at - each.claimed_at > self._young_s]
        answers = await asyncio.gather(
            *(self._keeper.renew(each.progress) for each in attempts), return_exceptions=True
        )
        for attempt, ours in zip(attempts, answers, strict=True):
            if ours is True:
                attempt.renewed(asked_at)
            elif ours is False:
                attempt.cut_off(LeaseLost("another worker has the claim, or it was settled"))
        wrong = [each for each in answers if isinstance(each, Exception) and not isinstance(each, StoreUnavailable)]
        if wrong:
            log.warning("leases not renewed", claims=len(wrong), reason=str(wrong[0]))

    # --- the end --------------------------------------------------------------------------------

    async def leave(self) -> None:
        """Put back everything that is under way; `begin_no_more` comes first."""
        for attempt in list(self._live.values()):
            attempt.cut_off(_leaving())
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        self._renewing.cancel()

    def begin_no_more(self) -> list[RegistrationId]:
        """Let what is under way be the last; return whose turn had not come, for somebody else to be told."""
        self._leaving = True
        waited = self._room.clear()
        self._moved.set()
        return waited

    async def done_with(self, registration_ids: Iterable[RegistrationId]) -> None:
        """Return when none of these is here any more."""
        for each in registration_ids:
            while self._is_here(each):
                if task := self._tasks.get(each):
                    await asyncio.wait([task])
                else:
                    self._moved.clear()
                    await self._moved.wait()


_NOWHERE = Target("", "", 0)


def _leaving() -> Released:
    return Released("this worker was told to stop")
