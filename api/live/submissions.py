"""Group commit: submissions that arrive together share one transaction and one bell (`shared/store/batcher.py`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.live.in_time import ASKED_WITHIN_S, in_time
from shared.errors import StoreUnavailable
from shared.registration import Accepted, Outcome, RegistrationId, Submission
from shared.store.batcher import Batcher
from shared.store.registrations import Store

MAX_WAITING = 4096
"""More submissions than this do not queue for the store: they are told to come again."""


@dataclass(frozen=True)
class _Submitted:
    submission: Submission
    by: str
    trace: str | None


class Submissions:
    """Takes submissions into the store, and rings for those that are new."""

    def __init__(
        self,
        store: Store,
        ring: Callable[[Sequence[RegistrationId]], None],
        *,
        within_s: float = ASKED_WITHIN_S,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._store = store
        self._ring = ring
        self._within_s = within_s
        self._max_waiting = max_waiting
        self._batcher = Batcher(self._commit, name="submissions")

    async def submit(self, submission: Submission, by: str, *, trace: str | None = None) -> Outcome:
        """Return what became of *submission*, once that is committed (invariant 1). *trace* goes along with it.

        Raises:
            StoreUnavailable: it was not stored.
        """
        if self._batcher.waiting >= self._max_waiting:
            raise StoreUnavailable("Too many submissions are waiting for the store.")
        return await in_time(self._batcher.ask(_Submitted(submission, by, trace)), self._within_s)

    def close(self) -> None:
        """Take no more."""
        self._batcher.close(within_s=1)

    def _commit(self, group: Sequence[_Submitted]) -> list[Outcome]:
        """Commit a group, and ring: a client that left meanwhile takes neither along."""
        outcomes = self._store.submit(
            [(each.submission, each.by) for each in group], traces=[each.trace for each in group]
        )
        self._ring([each.registration.id for each in outcomes if isinstance(each, Accepted) and each.new])
        return outcomes
