"""The sweep: rings again for what was missed, and never floods a backlog (invariants 7 and 11)."""

from collections.abc import Callable, Sequence

from shared.logs import get_logger
from shared.queues import IDS_PER_BELL
from shared.registration import RegistrationId
from shared.store import Store

MAX_WAITING = 64
"""The sweep adds no bell where this many wait already."""

log = get_logger(__name__)


def sweep(
    store: Store,
    *,
    waiting: Callable[[], int],
    ring: Callable[[Sequence[RegistrationId]], None],
    max_attempts: int,
) -> None:
    """Fail what has used up its attempts, then ring for what is due and was not claimed."""
    used_up = store.fail_used_up(max_attempts)
    if used_up:
        log.warning("attempts used up", registrations=used_up)
    room = MAX_WAITING - waiting()
    due = store.ring_due(room * IDS_PER_BELL)
    if due:
        ring(due)
        log.info("swept", rung_for=len(due))
