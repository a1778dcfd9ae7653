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
next begins. Nothing here waits for anything but its own task: not for the broker, not for another host.

**Leaving** lets the room go, cuts all attempts off, and returns when each has put its claim back.
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

from shared.egress import Egress, Target
from shared.errors import RegistryError, StoreUnavailable
from shared.logs import get_logger
from shared.registration import RegistrationId
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
"""How long it waits where nothing moves."""

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
        self._leaving = False
        self._moved = asyncio.Event()
        self._renewing = asyncio.get_running_loop().create_task(self._renew_for_ever())
        self._last_complaint = 0.0

    # --- from a bell to a task ------------------------------------------------------------------

    async def offer(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Let these wait for their turn, as far as they are due and there is room."""
        new = [each for each in registration_ids if not self._is_here(each)]
        if self._leaving or not new:
            return
        try:
            waiting = await self._keeper.look(new)
        except StoreUnavailable as error:
            log.warning("bell not answered", reason=error.detail)
            return
        until = time.monotonic() + PATIENCE_S
        for place, each in enumerate(waiting):
            if not self._is_here(each.id) and not self._leaving:
                if not await self._has_room(each.submitted_by, until):
                    log.info("no room", let_go=len(waiting) - place)
                    return
                self._room.put(Entry(each.id, each.submitted_by, self._target(each.artifact_url)))
                self._begin()

    def _is_here(self, registration_id: RegistrationId) -> bool:
        return registration_id in self._tasks or registration_id in self._room

    def _target(self, url: str) -> Target | None:
        try:
            return self._egress.check_url(url)
        except RegistryError:
            return None  # the policy has changed meanwhile; the attempt will say so

    async def _has_room(self, submitted_by: str, until: float) -> bool:
        while not self._room.fits(submitted_by):
            self._moved.clear()
            try:
                async with asyncio.timeout(min(STILL_S, until - time.monotonic())):
                    await self._moved.wait()
            except TimeoutError:
                return False
        return not self._leaving

    def _begin(self) -> None:
        """Begin attempts, as many as have a place and a slot."""
        while len(self._tasks) < self._downloads and (entry := self._room.next(self._has_slot)):
            slot = self._slots.take(entry.target or _NOWHERE)
            task = asyncio.get_running_loop().create_task(self._attempt(entry, slot))
            self._tasks[entry.id] = task
            self._moved.set()

    def _has_slot(self, target: Target | None) -> bool:
        return target is None or self._slots.free(target)

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
            back = Entry(entry.id, entry.submitted_by, busy.target)
        except StoreUnavailable as error:
            self._complain("not claimed", reason=error.detail)
        except Exception:  # whatever it is, the next has its turn; the lease will run out
            log.exception("attempt ended in a surprise", registration=entry.id)
        finally:
            self._live.pop(entry.id, None)
            del self._tasks[entry.id]
            if back is not None and not self._leaving:
                self._room.put(back)
            slot.leave()
            self._begin()

    def _complain(self, event: str, **fields: str) -> None:
        """Say what all tasks would say at once, once a second."""
        if time.monotonic() - self._last_complaint >= 1:
            self._last_complaint = time.monotonic()
            log.warning(event, **fields)

    # --- leases ---------------------------------------------------------------------------------

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                await self._renew()
            except StoreUnavailable as error:
                log.warning("leases not renewed", claims=len(self._live), reason=error.detail)
            except Exception:
                log.exception("leases not renewed")

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        attempts = [each for each in self._live.values() if asked_at - each.claimed_at > self._young_s]
        if not attempts:
            return
        ours = await self._keeper.renew(each.progress for each in attempts)
        for attempt in attempts:
            if (attempt.claim.registration_id, attempt.claim.epoch) in ours:
                attempt.renewed(asked_at)
            else:
                attempt.cut_off(LeaseLost("another worker has the claim, or it was settled"))

    # --- the end --------------------------------------------------------------------------------

    async def leave(self) -> list[RegistrationId]:
        """Put everything back; return whose turn had not come, for somebody else to be told."""
        waited = self.begin_no_more()
        for attempt in list(self._live.values()):
            attempt.cut_off(_leaving())
        await self._all_done(list(self._tasks.values()))
        self._renewing.cancel()
        return waited

    def begin_no_more(self) -> list[RegistrationId]:
        """Let what is under way be the last; return whose turn had not come."""
        self._leaving = True
        waited = self._room.clear()
        self._moved.set()
        return waited

    async def done_with(self, registration_ids: Iterable[RegistrationId]) -> None:
        """Return when none of these is here any more."""
        for each in registration_ids:
            while self._is_here(each):
                if task := self._tasks.get(each):
                    await self._all_done([task])
                else:
                    self._moved.clear()
                    await self._moved.wait()

    @staticmethod
    async def _all_done(tasks: Iterable[asyncio.Task[None]]) -> None:
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(task)


_NOWHERE = Target("", "", 0)


def _leaving() -> Released:
    return Released("this worker was told to stop")
