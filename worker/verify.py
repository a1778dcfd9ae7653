"""The story of one registration that is claimed: fetch, digest, compare, settle."""

import asyncio
import time
from dataclasses import dataclass, replace
from secrets import SystemRandom

from shared.errors import RegistryError, Shortage, StoreUnavailable, Surprise, Truncated
from shared.logs import get_logger
from shared.registration import Claim, Digest, Settlement, Status
from shared.tracing import note, span
from worker.attempt import Attempt, LeaseLost, Released
from worker.digest.explain import Explainer
from worker.digest.intake import Intake
from worker.fetch.port import Fetch
from worker.keeper import Keeper
from worker.retry import RetryPolicy, next_delay_s
from worker.slots import Busy, Slot

log = get_logger(__name__)
INSIST_EVERY_S = 0.5
MAX_SHORTAGES = 100
"""After so many claims that counted for nothing one counts: whatever we lack, each registration has an end."""
_CHANCE = SystemRandom()  # its own: whoever seeds the one that all share would have all retries come at once
_FROM_OUTSIDE = (LeaseLost, Released, Busy)


@dataclass(frozen=True)
class Verifier:
    """Verifies what is claimed. Everything it works with is given; it owns no thread."""

    keeper: Keeper
    fetch: Fetch
    explain: Explainer
    retry: RetryPolicy
    max_bytes: int

    async def verify(self, attempt: Attempt, slot: Slot) -> None:
        """Make one attempt, holding a *slot* of whom it connects to, unless it is ended from outside.

        Raises:
            Busy: there was no slot for where a redirect led; the claim was put back.
        """
        claim = attempt.claim
        try:
            with span("verify", parent=claim.trace, role="consumer", **attempt.fields):
                await self._judge(attempt, slot)
        except LeaseLost as loss:
            log.warning("claim lost", reason=str(loss), **attempt.fields)
        except Released:
            await self._put_back(attempt)
        except Busy:
            await self._put_back(attempt)
            raise

    async def _put_back(self, attempt: Attempt) -> None:
        try:
            await self.keeper.settle(Settlement.released(attempt.claim))
        except StoreUnavailable as error:
            log.warning("claim not released", reason=error.detail, **attempt.fields)
        else:
            log.info("claim released", **attempt.fields)

    async def _judge(self, attempt: Attempt, slot: Slot) -> None:
        """Download the artifact, compare the digests, and settle the claim accordingly."""
        claim = attempt.claim
        try:
            with attempt.cuttable(), span("fetch"):
                intake = await self._taken_in(attempt, slot)
            slot.leave()
            computed = intake.digest()
            await self._compare(attempt, computed, intake)
        except RegistryError as error:
            slot.leave()
            await self._not_verified(attempt, error)
            return
        except _FROM_OUTSIDE:
            raise
        except Exception:  # an attempt that ends in a surprise counts as any that failed
            log.exception("attempt ended in a surprise", **attempt.fields)
            slot.leave()
            await self._not_verified(attempt, Surprise("The registry failed while it verified this artifact."))
            return
        with span("settle"):
            settled = await self._insist(attempt, Settlement.registered(claim, computed))
        self._tell(attempt, settled, computed)

    async def _taken_in(self, attempt: Attempt, slot: Slot) -> Intake:
        """Return the artifact, as it was taken in; fetched twice, where one download proves nothing against it.

        A body that goes on to the end of the connection may have been cut, and one whose rest was asked for may hold
        what does not belong together: such a one differs from what was declared only if two agree.

        Raises:
            Truncated: they do not.
            Rejected, Unavailable: it cannot be had.
        """
        submission = attempt.claim.submission
        intake = Intake(max_bytes=self.max_bytes, attempt=attempt)
        await self.fetch(submission.artifact_url, attempt, slot, intake)
        if not (intake.open_ended or intake.pieced) or intake.digest().checksum == submission.checksum:
            return intake
        again = Intake(max_bytes=self.max_bytes, attempt=attempt)
        await self.fetch(submission.artifact_url, attempt, slot, again)
        proves = not (again.open_ended or again.pieced)
        if proves or again.digest().checksum in {submission.checksum, intake.digest().checksum}:
            return again
        if again.open_ended:
            raise Truncated(
                "The artifact's host announces no length, and two downloads differ: one or both were cut short. "
                "Have it send Content-Length, or chunks.",
                cause="unannounced-length",
            )
        raise Truncated(
            "The connection broke again and again, and what came after it differed.", cause="pieced-together"
        )

    async def _compare(self, attempt: Attempt, computed: Digest, intake: Intake) -> None:
        """Make sure that what was served is what was declared.

        Raises:
            DigestMismatch: it is not; the message says why, as far as can be known.
        """
        claim = attempt.claim
        if computed.checksum == claim.submission.checksum:
            return
        with attempt.cuttable(by_deadline=False):
            raise await self.explain(claim, computed, intake, await self._versions(claim))

    @staticmethod
    def _tell(attempt: Attempt, settled: Status | None, computed: Digest) -> None:
        outcome = settled or "lost"
        note({"outcome": outcome, "bytes": computed.size_bytes})
        log.info("settled", outcome=outcome, bytes=computed.size_bytes, **attempt.fields)

    async def _versions(self, claim: Claim) -> dict[str, str]:
        """Return the plugin's other versions, by their checksums; none where the store is away: they only explain."""
        try:
            return dict(await self.keeper.versions(claim.submission.name))
        except StoreUnavailable:
            return {}

    async def _not_verified(self, attempt: Attempt, error: RegistryError) -> None:
        """Settle a failed attempt: try again later, or never."""
        claim, failure = attempt.claim, error.failure()
        shortage = isinstance(error, Shortage) and claim.epoch - claim.attempt < MAX_SHORTAGES
        delay_s = next_delay_s(error, 0 if shortage else claim.attempt, self.retry, luck=_CHANCE.random())
        if delay_s is not None:
            settlement = Settlement.postponed(claim, failure, delay_s=delay_s, given_back=shortage)
        elif failure.retryable:
            settlement = Settlement.failed(claim, failure)
        else:
            settlement = Settlement.rejected(claim, failure)
        settled = await self._insist(attempt, settlement)
        note({"code": failure.code, "cause": failure.cause})
        log.info(
            "attempt failed",
            code=failure.code,
            cause=failure.cause,
            again_in_s=delay_s,
            held=settled is not None,
            **attempt.fields,
        )

    async def _insist(self, attempt: Attempt, settlement: Settlement) -> Status | None:
        """Settle, again and again while the store is away, for as long as the lease may be ours.

        A settlement whose reply was lost is harmless to repeat: the fence lets one through.

        Raises:
            LeaseLost: the store stayed away too long; the claim will be made again.
        """
        settlement = replace(settlement, trip=attempt.trip)
        while True:
            try:
                return await self.keeper.settle(settlement)
            except StoreUnavailable:
                if time.monotonic() >= attempt.lease_ends:
                    raise LeaseLost("the store could not take the outcome") from None
                await asyncio.sleep(INSIST_EVERY_S)
