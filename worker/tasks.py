"""The Celery adapter: decode, call, done."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

from celery import Celery

from shared.broker import BROKER_ERRORS, reason_of
from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.outage import Outage
from shared.queues import PRUNE_TASK, SWEEP_TASK, VERIFY_TASK, messages_waiting, ring
from shared.registration import RegistrationId
from shared.store.counters import Counters
from shared.store.database import SchemaMismatch
from shared.store.registrations import Store
from shared.store.workers import Workers
from worker.sweep import count_lost, each_by_itself, prune, sweep, tell

log = get_logger(__name__)


def add_tasks(
    app: Celery,
    *,
    offer: Callable[[Sequence[RegistrationId]], None],
    deliver: Callable[[], None],
    forget_events: Callable[[], None],
    store: Callable[[], Store],
    counters: Callable[[], Counters],
    workers: Callable[[], Workers],
    outage: Outage,
    max_attempts: int,
    keep_registrations_s: float,
    missed_sweeps: int,
) -> None:
    """Give *app* its tasks. What they work with is asked for when one runs, not when it is defined.

    *outage* is the broker's: a sweep that cannot ring notes it, and what it would have rung for is due again soon.
    """
    sweeping = threading.Lock()

    @app.task(name=VERIFY_TASK, shared=False)
    def answer_bell(registration_ids: list[str]) -> None:
        with suppress(StoreUnavailable):  # of which the store tells; the sweep rings again
            try:
                offer([RegistrationId(each) for each in registration_ids])
            except SchemaMismatch as error:
                log.warning("bell not answered", reason=str(error))

    @app.task(name=SWEEP_TASK, shared=False)
    def sweep_due() -> None:
        if not sweeping.acquire(blocking=False):
            return  # one that is not done yet has counted the bells that wait, and two would ring for twice as many
        try:
            each_by_itself(
                sweep_and_mark, lambda: tell(counters()), lambda: count_lost(workers(), missed_sweeps), deliver
            )
        finally:
            sweeping.release()

    def sweep_and_mark() -> None:
        if sweep_once():
            counters().mark("sweep")

    def sweep_once() -> bool:
        """Sweep; return whether the broker was there for it."""
        try:
            sweep(
                store(),
                waiting=lambda: messages_waiting(app),
                ring=lambda ids: ring(app, ids),
                max_attempts=max_attempts,
            )
        except BROKER_ERRORS as error:
            reason = reason_of(error)
            outage.note(reason.text, word=reason.word, by="sweep")
            return False
        outage.over(by="sweep")
        return True

    @app.task(name=PRUNE_TASK, shared=False)
    def prune_old() -> None:
        with suppress(StoreUnavailable):  # the next one does it
            prune(store(), older_than_s=keep_registrations_s)
            forget_events()
            counters().forget()
            workers().forget()
