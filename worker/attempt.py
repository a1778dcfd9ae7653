"""One attempt at a registration: what it has claimed, how far it has come, and what may end it from outside.

Its download is cut off at once, wherever it waits, when its deadline passes, its lease is about to end or was lost,
or the worker is told to stop. What it writes to the store is not: an outcome is settled or it is not, so nothing that
settles may be interrupted. `cuttable` marks what may be.
"""

import asyncio
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from shared.errors import DeadlinePassed
from shared.registration import Claim, Progress, Trip

SAFETY_S = 1.0
"""How long before its lease ends a worker stops by itself."""


class Released(Exception):
    """The attempt was stopped from outside and its claim is to be put back: the worker is leaving."""


class LeaseLost(Exception):
    """The claim is, or is about to be, somebody else's: nothing more may be written for it."""


class Attempt:
    """One claim being worked on. Its intake tells it how far it has come."""

    def __init__(self, claim: Claim, *, deadline_s: float, lease_s: float, claimed_at: float) -> None:
        """Hold *claim*, asked for at the monotonic time *claimed_at*: our lease ends no later than the store's."""
        self.claim = claim
        self.claimed_at = claimed_at
        self.bytes_downloaded = 0
        self.artifact_bytes: int | None = None
        self.hops: list[str] = []
        """Where redirects led the latest download, without queries."""
        self.deadline = time.monotonic() + deadline_s
        self._deadline_s = deadline_s
        self._lease_s = lease_s
        self.renewed(claimed_at)
        self._reason: Exception | None = None
        self._task: asyncio.Task[object] | None = None

    def renewed(self, asked_at: float) -> None:
        """Note that the lease was renewed, which was asked for at *asked_at*."""
        self.lease_ends = asked_at + self._lease_s - SAFETY_S

    def cut_off(self, reason: Exception) -> None:
        """End this attempt now, for *reason*: the first one given stands."""
        if self._reason is None:
            self._reason = reason
            if self._task is not None:
                self._task.cancel()

    def check(self) -> None:
        """Raise the reason for which this attempt was cut off, if it was."""
        if self._reason is not None:
            raise self._reason

    @contextmanager
    def cuttable(self, *, by_deadline: bool = True) -> Iterator[None]:
        """Let the block be cut off, which then raises the reason; *by_deadline*, too, or by the others only."""
        self.check()
        task = self._task = asyncio.current_task()
        assert task is not None  # noqa: S101  # an attempt is a task's
        timer = self._watch(asyncio.get_running_loop(), self.deadline if by_deadline else math.inf)
        try:
            yield
        except asyncio.CancelledError:
            if self._reason is None:
                raise
            task.uncancel()
            raise self._reason from None
        finally:
            self._task = None
            timer[0].cancel()

    def _watch(self, loop: asyncio.AbstractEventLoop, deadline: float) -> list[asyncio.TimerHandle]:
        """Cut this attempt off when its time is up; the lease, which is renewed all the time, is looked at again."""

        def look() -> None:
            now = time.monotonic()
            if now >= self.lease_ends:
                self.cut_off(LeaseLost("the lease could not be renewed in time"))
            elif now >= deadline:
                self.cut_off(DeadlinePassed(f"The download was not done after {self._deadline_s:g} s."))
            else:
                timer[0] = loop.call_later(min(self.lease_ends, deadline) - now, look)

        timer = [loop.call_later(max(0, min(self.lease_ends, deadline) - time.monotonic()), look)]
        return timer

    @property
    def progress(self) -> Progress:
        """How far it has come, as the store keeps it."""
        claim = self.claim
        return Progress(claim.registration_id, claim.epoch, self.bytes_downloaded, self.artifact_bytes)

    @property
    def trip(self) -> Trip:
        """How it went, as the store keeps it once it is over."""
        return Trip(self.bytes_downloaded, tuple(self.hops))

    @property
    def fields(self) -> dict[str, str | int]:
        """What names this attempt in logs and traces."""
        claim = self.claim
        return {"registration": claim.registration_id, "epoch": claim.epoch, "attempt": claim.attempt}
