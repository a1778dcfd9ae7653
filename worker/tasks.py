"""The Celery adapter: decode, call, done."""

import threading
from collections import deque
from collections.abc import Callable, Sequence

from celery import Celery

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.queues import PRUNE_TASK, SWEEP_TASK, VERIFY_TASK, bells_waiting, ring
from shared.registration import RegistrationId
from worker.sweep import prune, sweep
from worker.verify import Verifier

PATIENCE_S = 0.5
"""How long one artifact may take before the others of its bell are handed to whoever is free."""

log = get_logger(__name__)


def add_tasks(app: Celery, verifier: Callable[[], Verifier], *, keep_registrations_s: float) -> None:
    """Give *app* its tasks. *verifier* is asked when one runs, not when it is defined."""

    @app.task(name=VERIFY_TASK)
    def verify_bell(registration_ids: list[str]) -> None:
        answer_bell(
            [RegistrationId(each) for each in registration_ids],
            verify=verifier().verify,
            hand_back=lambda registration_id: ring(app, [registration_id]),
        )

    @app.task(name=SWEEP_TASK)
    def sweep_due() -> None:
        it = verifier()
        sweep(
            it.store,
            waiting=lambda: bells_waiting(app),
            ring=lambda ids: ring(app, ids),
            max_attempts=it.retry.max_attempts,
        )

    @app.task(name=PRUNE_TASK)
    def prune_old() -> None:
        prune(verifier().store, older_than_s=keep_registrations_s)


def answer_bell(
    registration_ids: Sequence[RegistrationId],
    *,
    verify: Callable[[RegistrationId], None],
    hand_back: Callable[[RegistrationId], None],
    patience_s: float = PATIENCE_S,
) -> None:
    """Verify a bell's registrations in turn; if that takes longer than a moment, hand the rest back, each by itself.

    So a slow artifact holds up nobody, and quick ones share one message. A store that is away leaves
    the rest to the sweep.
    """
    rest = deque(registration_ids)
    patience = threading.Timer(patience_s, _hand_back_rest, (rest, hand_back))
    if len(rest) > 1:
        patience.start()
    try:
        while registration_id := _next(rest):
            verify(registration_id)
    except StoreUnavailable as error:
        log.warning("bell not answered", reason=error.detail)
    finally:
        patience.cancel()


def _next(rest: deque[RegistrationId]) -> RegistrationId | None:
    try:
        return rest.popleft()  # not asked first: the timer's thread may have taken them all meanwhile
    except IndexError:
        return None


def _hand_back_rest(rest: deque[RegistrationId], hand_back: Callable[[RegistrationId], None]) -> None:
    for registration_id in iter(lambda: _next(rest), None):
        try:
            hand_back(registration_id)
        except Exception as error:  # noqa: BLE001  # whatever the broker's client raises, the sweep rings again
            log.warning("bell not handed back", registration=registration_id, reason=type(error).__name__)
