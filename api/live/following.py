"""Following registrations: one question to the store serves everyone who follows one (`poller.py`)."""

from collections.abc import AsyncIterator, Mapping, Sequence

from api.live.poller import Poller
from api.live.threads import Threads
from shared.registration import Registration, RegistrationId
from shared.store.registrations import Store

PAUSE_S = 0.25


class Following:
    """Tells followers of every change, until their registration is final."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread = Threads(1, name="following")
        self._poller: Poller[RegistrationId, Registration | None] = Poller(self._some, lambda: 0, pause_s=PAUSE_S)
        self.run = self._poller.run
        self.leave = self._poller.leave
        self.close = self._thread.close

    async def changes(self, registration: Registration) -> AsyncIterator[Registration]:
        """Yield *registration*, then each change of it that is seen, the final one last.

        It ends before that when we are told to stop, or the registration is gone.
        """
        yield registration
        while not registration.status.final:
            found = await self._poller.interest(registration.id)
            if found is None:
                return
            if found != registration:
                registration = found
                yield registration

    async def _some(self, registration_ids: Sequence[RegistrationId]) -> Mapping[RegistrationId, Registration | None]:
        """Return what there is of each, None where there is nothing."""
        found = {each.id: each for each in await self._thread(self._store.some, registration_ids)}
        return {each: found.get(each) for each in registration_ids}
