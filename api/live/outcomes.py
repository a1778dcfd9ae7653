"""Waiting for outcomes: one question to the store serves every waiting request (`poller.py`)."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence

from api.live.poller import Poller
from api.live.threads import Threads
from shared.registration import RegistrationId, Settled
from shared.store.registrations import Store


class Outcomes:
    """Tells requests when their registrations are final."""

    def __init__(self, store: Store, version: Callable[[], int]) -> None:
        """Look in *store* when its *version* is another one (`shared/store/changes.py`)."""
        self._store = store
        self._thread = Threads(1, name="outcomes")
        self._poller: Poller[RegistrationId, Settled] = Poller(self._settled, version)
        self.run = self._poller.run
        self.wake = self._poller.wake
        self.leave = self._poller.leave
        self.close = self._thread.close

    async def wait(
        self,
        registration_id: RegistrationId,
        timeout_s: float,
        left: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> Settled | None:
        """Return the registration once it is final, or None: after *timeout_s*, or when we are told to stop.

        *left* returns when whoever waits has left; then there is no more waiting either.
        """
        if timeout_s <= 0:
            return None
        settled = self._poller.interest(registration_id)
        leaving = asyncio.create_task(left()) if left else None
        if leaving:
            leaving.add_done_callback(lambda _left: settled.cancel())
        try:
            await asyncio.wait([settled], timeout=timeout_s)
            return settled.result() if settled.done() and not settled.cancelled() else None
        finally:
            settled.cancel()
            if leaving:
                leaving.cancel()

    async def _settled(self, registration_ids: Sequence[RegistrationId]) -> Mapping[RegistrationId, Settled]:
        found = await self._thread(self._store.settled, registration_ids)
        return {each.registration.id: each for each in found}
