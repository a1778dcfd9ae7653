"""A worker's engine, whole, in the tests' own process: what is asked of it is waited for."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shared.registration import Registration, RegistrationId, Terms
from tests.running import PATIENCE_S
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.running import Running

Answer = TypeVar("Answer")


class Verifying(Running):
    """An engine that can be waited for."""

    def verify(self, *registration_ids: RegistrationId) -> None:
        """Have these verified, as far as they are due, and wait until nobody is at them any more."""
        self.offer(registration_ids)
        self.call(self.engine.done_with(registration_ids))

    def call(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """Return what *work* returns in the engine's loop."""
        return self._loop.call(work, within_s=3 * PATIENCE_S)

    def claimed(self, registration: Registration, *, lease_s: float = 60, deadline_s: float = 60) -> Attempt:
        """Claim *registration*, as the engine does."""
        claim = self.store.claim(registration.id, worker="w", lease_s=lease_s, max_attempts=5)
        assert claim is not None

        async def attempt() -> Attempt:
            now = asyncio.get_running_loop().time()
            return Attempt(claim, deadline_s=deadline_s, lease_s=lease_s, claimed_at=now)

        return self.call(attempt())

    def fetch(self, attempt: Attempt, *, max_bytes: int = 2**20) -> Intake:
        """Fetch what *attempt* is at, as long as that is not cut off."""

        async def fetched() -> Intake:
            intake = Intake(max_bytes=max_bytes, attempt=attempt)
            slot = self.engine._slots.take(self.engine._egress.check_url(url))
            try:
                with attempt.cuttable():
                    await self.engine._verifier.fetch(url, attempt, slot, intake)
            finally:
                slot.leave()
            return intake

        url = attempt.claim.submission.artifact_url
        return self.call(fetched())

    def cut_off(self, attempt: Attempt, reason: Exception) -> None:
        """Cut *attempt* off, in the loop."""

        async def cut_off() -> None:
            attempt.cut_off(reason)

        self.call(cut_off())


def terms(lease_s: float = 30) -> Terms:
    return Terms("tests", lease_s, 5)
