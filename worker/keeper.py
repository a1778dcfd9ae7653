"""Keeper: what an engine asks of the store, as awaitable calls; all of them share a batcher's transactions."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from shared.registration import Claim, Progress, RegistrationId, Settlement, Status, Terms, Waiting
from shared.store.batcher import Batcher
from shared.store.registrations import Asked, Look, Renewal, Store, Versions, Wish


class Keeper(Protocol):
    """Each call may raise `StoreUnavailable`; then nothing was changed, or asking again gives the same answer."""

    async def look(self, registration_ids: Iterable[RegistrationId]) -> list[Waiting]:
        """Return those that may be claimed."""
        ...

    async def claim(self, registration_id: RegistrationId) -> Claim | None:
        """Claim a registration; return None if there is nothing to do."""
        ...

    async def renew(self, progress: Progress) -> bool:
        """Renew a claim and note how far it has come; return whether it is still ours."""
        ...

    async def settle(self, settlement: Settlement) -> Status | None:
        """Write our word on a claim; return what it was settled as, None if the claim was lost."""
        ...

    async def versions(self, name: str) -> Mapping[str, str]:
        """Return the versions that a plugin has, by their checksums."""
        ...


class StoreKeeper:
    """The keeper over a real store."""

    def __init__(self, store: Store, terms: Terms) -> None:
        self._thread: Batcher[Asked, Any] = Batcher(lambda asked: store.work(asked, terms))

    async def look(self, registration_ids: Iterable[RegistrationId]) -> list[Waiting]:
        """Ask within a group."""
        waiting: list[Waiting] = await self._thread.ask(Look(tuple(registration_ids)))
        return waiting

    async def claim(self, registration_id: RegistrationId) -> Claim | None:
        """Ask within a group; whoever asks may not be cancelled meanwhile."""
        claim: Claim | None = await self._thread.ask(Wish(registration_id))
        return claim

    async def renew(self, progress: Progress) -> bool:
        """Ask within a group; one that cannot be written takes no other along."""
        ours: bool = await self._thread.ask(Renewal(progress))
        return ours

    async def settle(self, settlement: Settlement) -> Status | None:
        """Ask within a group."""
        status: Status | None = await self._thread.ask(settlement)
        return status

    async def versions(self, name: str) -> Mapping[str, str]:
        """Ask within a group."""
        versions: Mapping[str, str] = await self._thread.ask(Versions(name))
        return versions

    def close(self) -> None:
        """End the thread."""
        self._thread.close()
