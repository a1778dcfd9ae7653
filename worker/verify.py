"""The story of one registration: claim, fetch, digest, settle."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from shared.errors import DigestMismatch, RegistryError, StoreUnavailable
from shared.logs import get_logger
from shared.registration import Claim, Digest, RegistrationId
from shared.store import Store
from shared.tracing import note, span
from worker.artifact import Fetch, Seen
from worker.attempts import Attempt, Attempts, LeaseLost, Released
from worker.digest import digest
from worker.hosts import Hosts, host_of
from worker.retry import RetryPolicy, next_delay_s

log = get_logger(__name__)
Answer = TypeVar("Answer")

VERSIONS_COMPARED = 200
"""How many versions of a plugin are looked at to explain a mismatch."""


@dataclass(frozen=True)
class Verifier:
    """Verifies registrations. Everything it works with is given; it owns no thread and no clock."""

    store: Store
    fetch: Fetch
    explain: Callable[[str, Digest, Seen, Mapping[str, str]], DigestMismatch]
    """Says why a declared and a computed digest differ, given what was seen and the plugin's other versions."""
    attempts: Attempts
    hosts: Hosts
    retry: RetryPolicy
    worker: str
    lease_s: float
    max_bytes: int

    def verify(self, registration_id: RegistrationId) -> RegistrationId | None:
        """Bring a registration a step further, if it is due and nobody else is at it.

        Returns:
            one that found every slot of its host taken, and is to be verified now that there is one.
        """
        if self.attempts.leaving or self.hosts.is_parked(registration_id):
            return None
        claimed_at = time.monotonic()  # before the claim: our lease ends no later than the store's
        claim = self.store.claim(
            registration_id, worker=self.worker, lease_s=self.lease_s, max_attempts=self.retry.max_attempts
        )
        if claim is None:
            return None
        host = host_of(claim.submission.artifact_url)
        if not self.hosts.enter(host):
            self.store.release(claim, soon=False)
            return None if self.hosts.park(host, registration_id) else registration_id
        try:
            with self.attempts.hold(claim, claimed_at=claimed_at) as attempt:
                self._attempt(claim, attempt)
        finally:
            next_id = self.hosts.leave(host)
        return next_id

    def _attempt(self, claim: Claim, attempt: Attempt) -> None:
        """Make one attempt, unless it is ended from outside."""
        try:
            with span("verify", parent=claim.trace, role="consumer", **attempt.fields):
                self._judge(claim, attempt)
        except LeaseLost as loss:
            log.warning("claim lost", reason=str(loss), **attempt.fields)
        except Released:
            self.store.release(claim, soon=True)
            log.info("claim released", **attempt.fields)

    def _judge(self, claim: Claim, attempt: Attempt) -> None:
        """Download the artifact, compare the digests, and settle the claim accordingly."""
        try:
            with span("fetch"), self.fetch(claim.submission.artifact_url, attempt) as download:
                computed = digest(download.pieces, max_bytes=self.max_bytes)
            self._compare(claim, computed, download.seen)
        except RegistryError as error:
            self._give_up(claim, attempt, error)
            return
        with span("settle"):
            settled = _insist(attempt, lambda: self.store.register(claim, computed))
        outcome = settled or "lost"
        note({"outcome": outcome, "bytes": computed.size_bytes})
        log.info("settled", outcome=outcome, bytes=computed.size_bytes, **attempt.fields)

    def _compare(self, claim: Claim, computed: Digest, seen: Seen) -> None:
        """Make sure that what was served is what was declared.

        Raises:
            DigestMismatch: it is not; the message says why, as far as can be known.
        """
        declared = claim.submission.checksum
        if computed.checksum == declared:
            return
        versions = {
            plugin.checksum: plugin.version
            for plugin in self.store.plugins(limit=VERSIONS_COMPARED, filters={"name": claim.submission.name})
        }
        raise self.explain(declared, computed, seen, versions)

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
        note({"code": failure.code, "cause": failure.cause})
        log.info(
            "attempt failed",
            code=failure.code,
            cause=failure.cause,
            again_in_s=delay_s,
            ours=ours,
            **attempt.fields,
        )


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
