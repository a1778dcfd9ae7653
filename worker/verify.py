"""The story of one registration: claim, fetch, digest, settle."""

import random
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from shared.errors import DigestMismatch, RegistryError, StoreUnavailable
from shared.logs import get_logger
from shared.registration import Claim, RegistrationId
from shared.store import Store
from worker.attempts import Attempt, Attempts, LeaseLost, Released
from worker.digest import digest
from worker.retry import RetryPolicy, next_delay_s

log = get_logger(__name__)
Answer = TypeVar("Answer")


class Fetch(Protocol):
    """How the bytes at a URL are had: a stream of chunks for the length of a block."""

    def __call__(self, url: str, attempt: Attempt, /) -> AbstractContextManager[Iterable[bytes]]:
        """Open *url*; `worker.fetch.Fetcher` says what it raises."""
        ...


@dataclass(frozen=True)
class Verifier:
    """Verifies registrations. Everything it works with is given; it owns no thread and no clock."""

    store: Store
    fetch: Fetch
    attempts: Attempts
    retry: RetryPolicy
    worker: str
    lease_s: float
    max_bytes: int

    def verify(self, registration_id: RegistrationId) -> None:
        """Bring one registration a step further, if it is due and nobody else is at it."""
        if self.attempts.leaving:
            return
        claimed_at = time.monotonic()  # before the claim: our lease ends no later than the store's
        claim = self.store.claim(
            registration_id, worker=self.worker, lease_s=self.lease_s, max_attempts=self.retry.max_attempts
        )
        if claim is None:
            return
        with self.attempts.hold(claim, claimed_at=claimed_at) as attempt:
            try:
                self._attempt(claim, attempt)
            except LeaseLost as loss:
                log.warning("claim lost", **_fields(claim), reason=str(loss))
            except Released:
                self.store.release(claim)
                log.info("claim released", **_fields(claim))

    def _attempt(self, claim: Claim, attempt: Attempt) -> None:
        """Download and judge the artifact, and settle the claim accordingly."""
        try:
            with self.fetch(claim.submission.artifact_url, attempt) as chunks:
                computed = digest(chunks, max_bytes=self.max_bytes)
            if computed.checksum != claim.submission.checksum:
                raise DigestMismatch.between(claim.submission.checksum, computed.checksum)
        except RegistryError as error:
            self._give_up(claim, attempt, error)
            return
        settled = _insist(attempt, lambda: self.store.register(claim, computed))
        outcome = settled.status if settled else "lost"
        log.info("settled", **_fields(claim), outcome=outcome, bytes=computed.size_bytes)

    def _give_up(self, claim: Claim, attempt: Attempt, error: RegistryError) -> None:
        """Settle a failed attempt: try again later, or never."""
        failure = error.failure()
        delay_s = next_delay_s(error, claim.attempt, self.retry, luck=random.random())  # noqa: S311
        if delay_s is not None:
            ours = _insist(attempt, lambda: self.store.postpone(claim, failure, delay_s=delay_s))
        elif failure.retryable:
            ours = _insist(attempt, lambda: self.store.fail(claim, failure))
        else:
            ours = _insist(attempt, lambda: self.store.reject(claim, failure))
        log.info("attempt failed", **_fields(claim), code=failure.code, again_in_s=delay_s, ours=ours)


def _insist(attempt: Attempt, settle: Callable[[], Answer]) -> Answer:
    """Settle, again and again while the store is away, for as long as the lease may be ours.

    A settlement whose reply was lost is harmless to repeat: the fence lets one through.

    Raises:
        LeaseLost: the store stayed away too long; the claim will be made again.
    """
    while True:
        try:
            return settle()
        except StoreUnavailable:
            if time.monotonic() >= attempt.lease_ends:
                raise LeaseLost("the store could not take the outcome") from None
            time.sleep(0.5)


def _fields(claim: Claim) -> dict[str, object]:
    return {"registration": claim.registration_id, "epoch": claim.epoch, "attempt": claim.attempt}
