"""Composition root of the worker: ``celery -A worker.main worker --pool threads``."""

import contextlib
import gc
import math
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from typing import Any

from celery import Celery, bootsteps, signals

from shared.alive import first_touch
from shared.broker import BROKER_ERRORS
from shared.errors import StoreUnavailable
from shared.logs import configure_logs, get_logger
from shared.outage import Outage
from shared.queues import celery_app, ring
from shared.registration import RegistrationId
from shared.settings import BadSettings, Settings, read_settings
from shared.store.counters import Counters
from shared.store.database import Database, SchemaMismatch, open_database
from shared.store.events import Events
from shared.store.registrations import Store
from shared.store.schema import check_schema
from shared.store.webhooks import Webhooks
from shared.store.workers import GONE_AFTER_S, Workers
from shared.tracing import TracingNotInstalled, start_tracing
from worker.consumer import Consumer
from worker.heartbeat import Heartbeat
from worker.liveness import keep_telling
from worker.open_files import fitting
from worker.running import LEAVING_S, Running, a_store, worker_name
from worker.sweep import forget_events
from worker.tasks import add_tasks
from worker.ticks import Ticks

TRY_AGAIN_S = 1.0
"""How long after the engine could not be built bells are let go unheard."""

log = get_logger(__name__)


class Worker:
    """What one worker process works with, built when it is first needed: after a fork, if there is one."""

    def __init__(self, settings: Settings, *, ring: Callable[[Sequence[RegistrationId]], None]) -> None:
        self._settings = settings
        self._ring = ring
        self.outage = Outage(log, away="broker away, it is waited for", back="broker back")
        """The broker's, for whoever here meets it."""
        self._running: Running | None = None
        self._building = threading.Lock()
        self._leaving = False
        self._failed_at = -math.inf
        self._mismatch: SchemaMismatch | None = None
        self._heartbeat: Heartbeat | None = None
        self._downloads = settings.downloads

    @cached_property
    def database(self) -> Database:
        """The connections to the store that everything here shares."""
        database = open_database(self._settings.database_url)
        database.tell_outages()
        return database

    @cached_property
    def store(self) -> Store:
        """The store, for what runs by the clock."""
        return a_store(self._settings, self.database)

    def offer(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Have this process's engine verify these, in their turn.

        Raises:
            SchemaMismatch, StoreUnavailable: the store is not one to work with.
        """
        if (running := self._built()) is not None:
            running.offer(registration_ids)

    def deliver(self) -> None:
        """Have webhooks be told what is due, as `offer` does."""
        if (running := self._built()) is not None:
            running.deliver()

    def forget_events(self) -> None:
        """Delete the events and deliveries that are older than they are kept."""
        forget_events(Events(self.database), Webhooks(self.database), older_than_s=self._settings.keep_events_s)

    def _built(self) -> Running | None:
        """Return what works here, built by whoever needs it first; None once this process leaves."""
        with self._building:
            if self._leaving:
                return None
            if self._mismatch is not None:
                raise self._mismatch
            if self._running is None:
                if time.monotonic() - self._failed_at < TRY_AGAIN_S:
                    raise StoreUnavailable("The store was away a moment ago.")
                self._failed_at = time.monotonic()
                self._running = Running(self._settings, self.database, downloads=self._downloads)
            return self._running

    @property
    def lives(self) -> bool:
        """Whether what this process is for goes on."""
        return self._running is None or self._running.moves

    def arrive(self) -> None:
        """Look at what there is to work with, and let operators see that this process is here."""
        self._downloads = fitting(self._settings.downloads)
        self._heartbeat = Heartbeat(self._workers, worker_name(), lambda: self.lives)
        self._heartbeat.arrive(self._downloads)

    def _workers(self) -> Workers:
        """Return the workers, after a look at the schema: a migration may no longer let this code live."""
        try:
            check_schema(self.database)
            self._mismatch = None
        except SchemaMismatch as error:
            self._mismatch = error
        return Workers(self.database)

    def leave(self) -> None:
        """Cut off what is under way, so that it is put back at once, and ring for whose turn had not come."""
        self._give_up_in_time()
        with self._building:
            self._leaving = True
        waited = self._running.leave() if self._running is not None else []
        if self._running is not None:
            self._running.close()  # a loop that runs while its interpreter ends may crash it
        if self._heartbeat is not None:
            self._heartbeat.leave()
        if waited and not self.outage.lasts:
            with contextlib.suppress(*BROKER_ERRORS):  # the sweep will ring
                self._ring(waited)
        if "database" in vars(self):  # it was opened
            self.database.close()

    def _give_up_in_time(self) -> None:
        """Have a store that hangs keep nobody who leaves, Celery's threads neither."""
        if "database" in vars(self):
            self.database.give_up(after_s=LEAVING_S)


def create_app() -> Celery:
    """Return the Celery app, its tasks and what they work with, from the environment."""
    try:
        settings = read_settings()
        celery = celery_app(settings)
    except BadSettings as error:
        sys.exit(str(error))
    worker = Worker(settings, ring=lambda ids: ring(celery, ids))
    celery.conf.beat_scheduler = partial(Ticks, alive_file=settings.alive_file)
    celery.conf.worker_consumer = partial(Consumer, outage=worker.outage)
    add_tasks(
        celery,
        offer=worker.offer,
        deliver=worker.deliver,
        forget_events=worker.forget_events,
        store=lambda: worker.store,
        counters=lambda: Counters(worker.database),
        workers=lambda: Workers(worker.database),
        outage=worker.outage,
        max_attempts=settings.max_attempts,
        keep_registrations_s=settings.keep_registrations_s,
        missed_sweeps=math.ceil(GONE_AFTER_S / settings.sweep_interval_s),
    )

    def set_up_logs(**_: Any) -> None:
        configure_logs(service="worker")

    def begin(**_: Any) -> None:
        first_touch(settings.alive_file)
        try:
            with contextlib.closing(
                open_database(settings.database_url)
            ) as database:  # a fork would inherit an open one
                check_schema(database)
            if settings.traces:
                start_tracing("worker")
        except (SchemaMismatch, StoreUnavailable, TracingNotInstalled) as error:
            sys.exit(str(error))

    class ComeAndGo(bootsteps.StartStopStep):
        """Puts back what is under way whenever the worker stops, told to or not, before it waits for its threads."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            keep_telling(
                silent_s=settings.lease_s,
                supervisor_fd=settings.supervisor_fd,
                alive_file=settings.alive_file,
                lives=lambda: worker.lives,
            )
            gc.collect()
            gc.freeze()  # what is loaded by now stays: no collection need look at it again
            if parent.pool_cls.__module__ != "celery.concurrency.prefork":  # whose children do the work
                worker.arrive()

        def stop(self, parent: Any) -> None:  # noqa: ARG002  # Celery's signature
            worker.leave()

    def begin_in_child(**_: Any) -> None:
        keep_telling(silent_s=settings.lease_s, lives=lambda: worker.lives)
        worker.arrive()

    celery.steps["worker"].add(ComeAndGo)
    signals.worker_process_init.connect(begin_in_child, weak=False)  # of --pool prefork
    signals.worker_process_shutdown.connect(lambda **_: worker.leave(), weak=False)
    signals.setup_logging.connect(set_up_logs, weak=False)
    signals.worker_init.connect(begin, weak=False)
    return celery


# Celery warns a worker of root's because of pickle. Ours takes JSON only, and bells at that.
warnings.filterwarnings("ignore", message="You're running the worker with superuser")

app = create_app()
