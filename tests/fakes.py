"""Stand-ins for the outside world, for tests of our own logic only. Each passes what the real one promises."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from shared.errors import RegistryError
from shared.registration import RegistrationId
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.slots import Slot

PIECE_BYTES = 1024


async def go_on(_attempt: Attempt) -> None:
    """Let others have their turn, as whoever waits for a socket does."""
    await asyncio.sleep(0)


class FakeFetch:
    """A `worker.fetch.port.Fetch` without a network: URL -> bytes, or the error that is met there."""

    def __init__(self, artifacts: dict[str, bytes | RegistryError] | None = None) -> None:
        self.artifacts = artifacts or {}
        self.fetched: list[str] = []
        self.while_streaming: Callable[[Attempt], Awaitable[None]] = go_on

    async def __call__(self, url: str, attempt: Attempt, slot: Slot, intake: Intake, /) -> None:
        self.fetched.append(url)
        found = self.artifacts[url]
        if isinstance(found, RegistryError):
            raise found
        attempt.artifact_bytes = intake.total_bytes = len(found)
        for start in range(0, len(found), PIECE_BYTES):
            intake.take(found[start : start + PIECE_BYTES])
            await self.while_streaming(attempt)


class FakeBell:
    """Notes what was rung for."""

    def __init__(self) -> None:
        self.rung: list[list[RegistrationId]] = []

    def __call__(self, registration_ids: Sequence[RegistrationId]) -> None:
        self.rung.append(list(registration_ids))
