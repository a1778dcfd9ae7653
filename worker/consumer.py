"""The consumer: Celery's, which waits for its broker whatever that says, tells it once, and stops waiting when told.

What a broker replies instead of a connection or a message (READONLY, OOM, ACCESS_REFUSED ...) is an outage as much as
silence is: Celery's start-up loop tries again after each error that is among `connection_errors`, at once and for
ever, so all that a broker's client may raise is put there, and `connect` keeps a distance between two tries.

A worker that is told to stop while it has no connection is in the middle of some call that waits: a look-up, a time
limit, a pause. Celery looks whether it was told before and after those. Here the signal ends them.
"""

import logging
import time
import warnings
from typing import Any

from celery import bootsteps, signals
from celery.exceptions import CPendingDeprecationWarning, WorkerShutdown
from celery.worker.consumer import consumer

from shared.broker import BROKER_ERRORS, reason_of
from shared.outage import Outage

PAUSE_S = 2.0
"""Between two tries, where each ends at once."""
LOST = "consumer: Connection to broker lost."
"""What Celery says each time."""
STEADY_S = 3.0
"""Whoever may connect, but not consume, is back for no longer than a moment."""


class Consumer(consumer.Consumer):
    """Notes the broker's *outage*."""

    def __init__(self, *arguments: Any, outage: Outage, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.connection_errors: tuple[type[Exception], ...] = (*self.connection_errors, *BROKER_ERRORS)
        self._outage = outage
        self._back: Any = None
        self._may_connect_at = 0.0
        signals.worker_shutting_down.connect(self._wait_no_more, weak=False)
        logging.getLogger(consumer.__name__).addFilter(_is_not_told_by_us)
        warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)  # of a setting that we have set

    def connect(self) -> Any:
        """Return a connection, once there is one."""
        time.sleep(max(0, self._may_connect_at - time.monotonic()))
        self._may_connect_at = time.monotonic() + PAUSE_S
        return super().connect()

    def ensure_connected(self, connection: Any) -> Any:
        """Return *connection*, once it is one. What its timers meet, which run while it is used, is an outage too."""
        connection.connection_errors = self.connection_errors
        return connection.ensure_connection(
            lambda error, _interval_s: self._note(error),
            interval_start=PAUSE_S,
            interval_step=0,
            interval_max=PAUSE_S,
        )

    def on_connection_error_before_connected(self, exc: Exception) -> None:
        """Tell of it, once."""
        self._note(exc)

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Tell of it, once, and let go of what is left of the connection."""
        self._note(exc)
        super().on_connection_error_after_connected(exc)

    def on_ready(self) -> None:
        """Tell soon that the broker is back."""
        self._back = self.timer.call_after(STEADY_S, self._outage.over, kwargs={"by": "consumer"})
        super().on_ready()

    def _note(self, error: BaseException) -> None:
        if self._back is not None:
            self._back.cancel()
        reason = reason_of(error)
        self._outage.note(reason.text, word=reason.word, by="consumer")

    def _wait_no_more(self, **_: Any) -> None:
        """End whatever waits for a connection: this runs in a handler of signals, on the thread that waits."""
        if self.connection is None and self.blueprint.state is bootsteps.RUN:  # type: ignore[attr-defined]  # stubs lack it
            raise WorkerShutdown(0)


def _is_not_told_by_us(record: logging.LogRecord) -> bool:
    return not (isinstance(record.args, tuple) and record.args and str(record.args[0]).startswith(LOST))
