"""Beat's scheduler: a few fixed intervals, kept in memory. What is due is sent as a tick, and not insisted on.

A broker that is away holds nothing up for longer than its time limits: the next tick is sent when it is due. So beat
ticks on, gives its sign of life, and ends when it is told to.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from celery.beat import ScheduleEntry, Scheduler

from shared.alive import first_touch, touch
from shared.broker import BROKER_ERRORS, reason_of
from shared.logs import get_logger
from shared.outage import Outage
from shared.queues import send_tick

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

log = get_logger(__name__)


class Ticks(Scheduler):
    """Sends what is due. With *alive_file* it touches that, whatever the broker does."""

    producer = None  # type: ignore[assignment]  # what nobody asks for
    """Celery's would wait for the broker for as long as that is away."""

    def __init__(self, *arguments: Any, alive_file: Path | None = None, **options: Any) -> None:
        first_touch(alive_file)
        self._alive_file = alive_file
        self._outage = Outage(log, away="broker away, beat goes on trying", back="broker back")
        super().__init__(*arguments, **options)

    def setup_schedule(self) -> None:
        """Have everything be due at once: what runs each hour would never run where beat starts more often."""
        super().setup_schedule()
        for entry in self.schedule.values():
            entry.last_run_at = LONG_AGO

    def tick(self, *arguments: Any, **options: Any) -> float:
        """Send what is due; return how long to sleep, in seconds."""
        touch(self._alive_file)
        return float(super().tick(*arguments, **options))

    def apply_entry(self, entry: ScheduleEntry, producer: object = None) -> None:  # noqa: ARG002  # Celery's signature
        """Send *entry*, and once more where that fails: the first may only have met a connection that had died."""
        for last in (False, True):
            try:
                send_tick(self.app, str(entry.task), entry.options or {})
            except BROKER_ERRORS as error:
                touch(self._alive_file)
                if last:
                    reason = reason_of(error)
                    self._outage.note(reason.text, word=reason.word)
            else:
                self._outage.over()
                return
