"""What runs by the clock: the sweep, which rings again for what was missed, and the pruning of what is long over.

The sweep never floods a backlog (invariants 7 and 11).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.queues import IDS_PER_BELL
from shared.registration import RegistrationId
from shared.store.counters import Counters
from shared.store.database import SchemaMismatch
from shared.store.events import Events
from shared.store.registrations import Store
from shared.store.webhooks import Webhooks
from shared.store.workers import Workers

PRUNED_AT_ONCE = 1000
NOTED_AT_ONCE = 500
COUNTS_A_SWEEP = 20
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
    """Fail what has used up its attempts, note hosts that are not, then ring for what is due and was not claimed."""
    used_up = store.fail_used_up(max_attempts)
    if used_up:
        log.warning("attempts used up", registrations=used_up)
    store.note_hosts(NOTED_AT_ONCE)
    room = MAX_WAITING - waiting()
    due = store.ring_due(room * IDS_PER_BELL)
    if due:
        ring(due)
        log.info("swept", rung_for=len(due))


def each_by_itself(*steps: Callable[[], object]) -> None:
    """Do all of *steps*, which may find the store away, or of another version: none holds up those behind it."""
    for step in steps:
        with suppress(
            StoreUnavailable, SchemaMismatch
        ):  # of which the store, and bells, tell; the next sweep does it
            step()


def tell(counters: Counters) -> None:
    """Count what ended, and tell of it, until nothing waits for that, or for a bounded while."""
    for _ in range(COUNTS_A_SWEEP):
        if not counters.count() + counters.tell_counted():
            return


def count_lost(workers: Workers, missed_sweeps: int) -> None:
    """Count the workers of which so many sweeps in a row have not heard."""
    if lost := workers.count_lost(missed=missed_sweeps):
        log.warning("workers lost", number=lost)


def forget_events(events: Events, webhooks: Webhooks, *, older_than_s: float) -> None:
    """Delete events, and deliveries, that are old, a bounded number in each transaction."""
    for forget in (events.forget, webhooks.forget):
        while forget(older_than_s=older_than_s, limit=PRUNED_AT_ONCE) == PRUNED_AT_ONCE:
            pass


def prune(store: Store, *, older_than_s: float) -> None:
    """Delete final registrations that are old, a bounded number in each transaction. Plugins stay."""
    pruned = PRUNED_AT_ONCE
    while pruned == PRUNED_AT_ONCE:
        pruned = store.prune(older_than_s=older_than_s, limit=PRUNED_AT_ONCE)
        if pruned:
            log.info("pruned", registrations=pruned)
