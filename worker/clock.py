"""Composition root of the clock: ``celery -A worker.clock beat``. It rings for what runs by the clock, no more.

Nothing of a worker's is loaded here, so it starts in a third of the time.
"""

import sys
from functools import partial
from typing import Any

from celery import Celery, signals

from shared.logs import configure_logs
from shared.queues import celery_app
from shared.settings import BadSettings, read_settings
from worker.ticks import Ticks


def create_app() -> Celery:
    """Return the Celery app, from the environment."""
    try:
        settings = read_settings()
        celery = celery_app(settings)
    except BadSettings as error:
        sys.exit(str(error))
    celery.conf.beat_scheduler = partial(Ticks, alive_file=settings.alive_file)

    def set_up_logs(**_: Any) -> None:
        configure_logs(service="beat")

    signals.setup_logging.connect(set_up_logs, weak=False)
    return celery


app = create_app()
