"""The Celery adapter: decode, call, done."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from celery import Celery

from shared.census import Census
from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.queues import PRUNE_TASK, SWEEP_TASK, VERIFY_TASK, bells_waiting, ring
from shared.registration import RegistrationId
from shared.tallies import Tallies
from worker.sweep import prune, sweep
from worker.turns import Turns
from worker.verify import Verifier

PATIENCE_S = 0.5
"""How long one artifact may take before the others of its bell are handed to whoever is free."""

log = get_logger(__name__)


def add_tasks(
    app: Celery,
    verifier: Callable[[], Verifier],
    *,
    tallies: Callable[[], Tallies],
    census: Callable[[], Census],
    keep_registrations_s: float,
    missed_sweeps: int,
) -> None:
    """Give *app* its tasks. What they work with is asked for when one runs, not when it is defined."""
    turns = Turns()

    @app.task(name=VERIFY_TASK)
    def verify_bell(registration_ids: list[str]) -> None:
        answer_bell(
            [RegistrationId(each) for each in registration_ids],
            verify=verifier().verify,
            hand_back=lambda registration_ids: ring(app, registration_ids),
            turns=turns,
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
        tallies().count()
        tallies().mark("sweep")
        if lost := census().count_lost(missed=missed_sweeps):
            log.warning("workers lost", number=lost)

    @app.task(name=PRUNE_TASK)
    def prune_old() -> None:
        prune(verifier().store, older_than_s=keep_registrations_s)
        tallies().forget()
        census().forget()


def answer_bell(
    registration_ids: Sequence[RegistrationId],
    *,
    verify: Callable[[RegistrationId], RegistrationId | None],
    hand_back: Callable[[Sequence[RegistrationId]], None],
    turns: Turns,
    patience_s: float = PATIENCE_S,
) -> None:
    """Verify a bell's registrations one by one; if one takes longer than a moment, hand the rest back as two bells.

    So a slow artifact holds up nobody, and quick ones share one message: were all of a full bell slow, each would be
    begun after five moments. A store that is away leaves the rest to the sweep.
    """
    bell = _Bell(registration_ids, hand_back, patience_s)
    try:
        while bell.goes_on():
            with turns.turn():
                if (registration_id := bell.next()) and (parked := verify(registration_id)):
                    bell.take_on(parked)
    except StoreUnavailable as error:
        log.warning("bell not answered", reason=error.detail)
    finally:
        bell.over()


class _Bell:
    """A bell that is being answered, and the timer that sees whether one of its artifacts takes long."""

    def __init__(
        self,
        rest: Sequence[RegistrationId],
        hand_back: Callable[[Sequence[RegistrationId]], None],
        patience_s: float,
    ) -> None:
        self._rest = deque(rest)
        self._hand_back = hand_back
        self._patience_s = patience_s
        self._begun = math.inf
        self._timer: threading.Timer | None = None
        if len(self._rest) > 1:
            self._look_after(patience_s)

    def goes_on(self) -> bool:
        """Return whether anybody is left. To wait for a turn is not to take long."""
        self._begun = math.inf
        return bool(self._rest)

    def next(self) -> RegistrationId | None:
        """Return who is next, if anybody is still left."""
        self._begun = time.monotonic()
        return self._take()

    def take_on(self, registration_id: RegistrationId) -> None:
        """Let another be next, which was not among the bell's."""
        self._rest.appendleft(registration_id)

    def over(self) -> None:
        """Stop looking."""
        self._rest.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _take(self) -> RegistrationId | None:
        try:
            return self._rest.popleft()  # not asked first: the timer's thread may have taken them all meanwhile
        except IndexError:
            return None

    def _look_after(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._look)
        self._timer.daemon = True
        self._timer.start()

    def _look(self) -> None:
        patience_left_s = self._begun + self._patience_s - time.monotonic()
        if patience_left_s > 0:
            if self._rest:
                self._look_after(min(patience_left_s, self._patience_s))
            return
        rest = list(iter(self._take, None))
        for half in (rest[::2], rest[1::2]):
            try:
                if half:
                    self._hand_back(half)
            except Exception as error:  # noqa: BLE001  # whatever the broker's client raises, the sweep rings again
                log.warning("bell not handed back", registrations=half, reason=type(error).__name__)
