"""Group commit: submissions that arrive together share one transaction and one bell."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from shared.errors import RegistryError, StoreUnavailable
from shared.registration import Accepted, Outcome, RegistrationId, Submission
from shared.store.registrations import Store

MAX_GROUP = 128
SUBMIT_WITHIN_S = 10
MAX_WAITING = 4096
"""More submissions than this do not queue for the store: they are told to come again."""


@dataclass(frozen=True)
class _Waiting:
    submission: Submission
    by: str
    trace: str | None
    answer: asyncio.Future[Outcome]


class Submissions:
    """Takes submissions into the store. While one group commits, the next gathers."""

    def __init__(self, store: Store, ring: Callable[[Sequence[RegistrationId]], None]) -> None:
        self._store = store
        self._ring = ring
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(MAX_WAITING)

    async def submit(self, submission: Submission, by: str, *, trace: str | None = None) -> Outcome:
        """Return what became of *submission*, once that is committed (invariant 1). *trace* goes along with it.

        Raises:
            StoreUnavailable: it was not stored.
        """
        waiting = _Waiting(submission, by, trace, asyncio.get_running_loop().create_future())
        try:
            self._waiting.put_nowait(waiting)
        except asyncio.QueueFull:
            raise StoreUnavailable("Too many submissions are waiting for the store.") from None
        try:
            async with asyncio.timeout(SUBMIT_WITHIN_S):
                return await waiting.answer
        except TimeoutError:
            raise StoreUnavailable("The store takes too long.") from None

    async def run(self) -> None:
        """Commit group after group, for as long as the process lives."""
        while True:
            group = [await self._waiting.get()]
            while len(group) < MAX_GROUP and not self._waiting.empty():
                group.append(self._waiting.get_nowait())
            # Who was told 503 meanwhile, or left, has given its submission up.
            if wanted := [each for each in group if not each.answer.done()]:
                await self._commit(wanted)

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            submissions, traces = [(each.submission, each.by) for each in group], [each.trace for each in group]
            outcomes = await run_in_threadpool(lambda: self._store.submit(submissions, traces=traces))
        except Exception as error:  # noqa: BLE001  # each of the group is told; none may wait for ever
            reason = error if isinstance(error, RegistryError) else _surprise(error)
            for each in group:
                if not each.answer.done():
                    each.answer.set_exception(reason)
            return
        self._ring([outcome.registration.id for outcome in outcomes if isinstance(outcome, Accepted) and outcome.new])
        for each, outcome in zip(group, outcomes, strict=True):
            if not each.answer.done():  # its client may have gone; the registration stays
                each.answer.set_result(outcome)


def _surprise(error: Exception) -> RuntimeError:
    surprise = RuntimeError("a group of submissions could not be committed")
    surprise.__cause__ = error
    return surprise
