"""Following registrations: one poll of the store serves everyone who follows one, and none holds a thread."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

from fastapi.concurrency import run_in_threadpool

from shared.logs import get_logger
from shared.registration import Registration, RegistrationId
from shared.store.registrations import Store

POLL_S = 0.25

log = get_logger(__name__)


class Following:
    """Tells followers of every change, until their registration is final."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._followed: Counter[RegistrationId] = Counter()
        self._found: dict[RegistrationId, Registration | None] = {}
        """What the last poll was asked for, and what it found of that."""
        self._somebody = asyncio.Event()
        self._look = asyncio.Event()
        self._leaving = False

    async def changes(self, registration: Registration) -> AsyncIterator[Registration]:
        """Yield *registration*, then each change of it that is seen, the final one last.

        It ends before that when we are told to stop, or the registration is gone.
        """
        yield registration
        self._followed[registration.id] += 1
        self._somebody.set()
        try:
            while not registration.status.final and not self._leaving:
                await self._look.wait()
                if registration.id not in self._found:
                    continue  # we came while that poll was with the store: it says nothing of ours
                found = self._found[registration.id]
                if found is None:
                    return
                if found != registration:
                    registration = found
                    yield registration
        finally:
            self._followed[registration.id] -= 1
            self._followed += Counter()  # drops those that nobody follows any more

    def leave(self) -> None:
        """Let every follower go: this process is about to stop."""
        self._leaving = True
        self._look.set()

    async def run(self) -> None:
        """Poll for as long as the process lives, and only while somebody follows."""
        while True:
            await self._somebody.wait()
            if not self._followed:
                self._somebody.clear()
                continue
            try:
                asked = list(self._followed)
                found = await run_in_threadpool(self._store.some, asked)
                self._found = {**dict.fromkeys(asked), **{each.id: each for each in found}}
            except Exception as error:  # noqa: BLE001  # whatever it is, the next poll may go well
                log.warning("registrations not read", reason=str(error) or type(error).__name__)
            self._look.set()
            self._look = asyncio.Event()  # for the next look
            await asyncio.sleep(POLL_S)
