"""Composition root of the worker: ``celery -A worker.main worker --pool threads``."""

import contextlib
import gc
import math
import os
import secrets
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

from celery import Celery, bootsteps, signals
from kombu.exceptions import OperationalError

from shared.errors import StoreUnavailable
from shared.logs import configure_logs, get_logger
from shared.queues import celery_app, ring
from shared.registration import RegistrationId, Terms
from shared.settings import BadSettings, Settings, read_settings
from shared.store.counters import Counters
from shared.store.database import Database, SchemaMismatch, open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema
from shared.store.workers import GONE_AFTER_S, Workers
from shared.tracing import TracingNotInstalled, start_tracing
from worker.digest.explain import Diagnosis
from worker.digest.lanes import Lanes
from worker.engine import Engine
from worker.fetch.client import Client
from worker.fetch.dial import Dial, Dialer, ProxyDialer
from worker.fetch.hops import Fetcher
from worker.fetch.resolver import Resolve, Resolver
from worker.heartbeat import Heartbeat
from worker.keeper import StoreKeeper
from worker.liveness import keep_telling
from worker.loop import LoopThread
from worker.open_files import fitting
from worker.retry import RetryPolicy
from worker.tasks import add_tasks
from worker.verify import Verifier

TRY_AGAIN_S = 1.0
"""How long after the engine could not be built bells are let go unheard."""
LEAVING_S = 5.0
"""How long leaving may take, where the store is away."""

log = get_logger(__name__)


class Running:
    """An engine over *database* on a loop of its own, for callers on other threads."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        *,
        downloads: int | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        """Build it, for *downloads* at once; names lead where *resolve* says.

        Raises:
            SchemaMismatch, StoreUnavailable: the store is not one to work with.
        """
        check_schema(database)
        self.store = a_store(settings, database)
        self._settings = settings
        self._resolve = resolve
        self._loop = LoopThread()
        self._closers = [self._loop.close]
        try:
            self.engine = self._loop.call(self._build(downloads or settings.downloads))
        except BaseException:
            self._close_parts()
            raise

    def offer(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Let these wait for their turn; return within seconds."""
        self._loop.call(self.engine.offer(registration_ids))

    def wait_for(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Wait until nobody here is at any of these any more."""
        self._loop.call(self.engine.done_with(registration_ids))

    @property
    def moves(self) -> bool:
        """Whether the loop has run lately."""
        return self._loop.moves

    def leave(self) -> list[RegistrationId]:
        """Cut off what is under way, so that it is put back at once; return whose turn had not come."""
        waited: list[RegistrationId] = []
        try:
            waited = self._loop.call(self._begin_no_more(), within_s=LEAVING_S)
            self._loop.call(self.engine.leave(), within_s=LEAVING_S)
        except TimeoutError:
            log.warning("not all claims were put back", within_s=LEAVING_S)
        return waited

    def close(self) -> None:
        """End all of it, whatever is under way."""
        self._loop.call(self._begin_no_more())
        self._close_parts()

    def _close_parts(self) -> None:
        while self._closers:
            self._closers.pop(0)()

    async def _begin_no_more(self) -> list[RegistrationId]:
        return self.engine.begin_no_more()

    async def _build(self, downloads: int) -> Engine:
        settings, store = self._settings, self.store
        terms = Terms(worker_name(), settings.lease_s, settings.max_attempts)
        self._keeper = StoreKeeper(store, terms)
        self._closers.append(self._keeper.close)
        self._lanes = Lanes()
        self._closers.append(self._lanes.close)
        self._diagnosis = Diagnosis()
        self._closers.append(self._diagnosis.close)
        self._client = a_client(settings, self._lanes, resolve=self._resolve)
        self._closers.append(self._client.close)
        verifier = Verifier(
            keeper=self._keeper,
            fetch=Fetcher(self._client, settings.egress, max_bytes=settings.max_artifact_bytes),
            explain=self._diagnosis,
            retry=RetryPolicy(settings.max_attempts, settings.retry_base_s, settings.retry_cap_s),
            max_bytes=settings.max_artifact_bytes,
        )
        return Engine(
            self._keeper,
            verifier,
            settings.egress,
            downloads=downloads,
            downloads_each_target=settings.max_downloads_per_host,
            lease_s=settings.lease_s,
            deadline_s=settings.fetch_deadline_s,
        )


def a_store(settings: Settings, database: Database) -> Store:
    """Compose a store for a worker."""
    return Store(database, ring_again_after_s=5 * settings.sweep_interval_s, max_leases_lost=settings.max_leases_lost)


def a_client(settings: Settings, lanes: Lanes, *, resolve: Resolve | None = None) -> Client:
    """Compose a client, for one loop; names lead where *resolve* says."""
    timeout_s, resolve = settings.connect_timeout_s, resolve or Resolver()
    proxy_url = settings.egress_proxy.get_secret_value() if settings.egress_proxy else None
    dial: Dial
    if proxy_url is None:
        dial = Dialer(settings.egress, connect_timeout_s=timeout_s, resolve=resolve)
    else:
        dial = ProxyDialer(proxy_url, connect_timeout_s=timeout_s, resolve=resolve)
    return Client(
        dial,
        lanes,
        connect_timeout_s=timeout_s,
        read_timeout_s=settings.read_timeout_s,
        ca_file=settings.egress_ca_file,
        proxy_url=proxy_url,
        agent=settings.user_agent,
    )


class Worker:
    """What one worker process works with, built when it is first needed: after a fork, if there is one."""

    def __init__(self, settings: Settings, *, ring: Callable[[Sequence[RegistrationId]], None]) -> None:
        self._settings = settings
        self._ring = ring
        self._running: Running | None = None
        self._building = threading.Lock()
        self._leaving = False
        self._failed_at = -math.inf
        self._heartbeat: Heartbeat | None = None
        self._downloads = settings.downloads

    @cached_property
    def database(self) -> Database:
        """The connections to the store that everything here shares."""
        return open_database(self._settings.database_url)

    @cached_property
    def store(self) -> Store:
        """The store, for what runs by the clock."""
        return a_store(self._settings, self.database)

    def offer(self, registration_ids: Sequence[RegistrationId]) -> None:
        """Have this process's engine verify these, in their turn.

        Raises:
            SchemaMismatch, StoreUnavailable: the store is not one to work with.
        """
        with self._building:
            if self._leaving:
                return
            if self._running is None:
                if time.monotonic() - self._failed_at < TRY_AGAIN_S:
                    raise StoreUnavailable("The store was away a moment ago.")
                self._failed_at = time.monotonic()
                self._running = Running(self._settings, self.database, downloads=self._downloads)
        self._running.offer(registration_ids)

    @property
    def lives(self) -> bool:
        """Whether what this process is for goes on."""
        return self._running is None or self._running.moves

    def arrive(self) -> None:
        """Look at what there is to work with, and let operators see that this process is here."""
        self._downloads = fitting(self._settings.downloads)
        self._heartbeat = Heartbeat(lambda: Workers(self.database), worker_name(), lambda: self.lives)
        self._heartbeat.arrive(self._downloads)

    def leave(self) -> None:
        """Cut off what is under way, so that it is put back at once, and ring for whose turn had not come."""
        with self._building:
            self._leaving = True
        waited = self._running.leave() if self._running is not None else []
        if self._running is not None:
            self._running.close()  # a loop that runs while its interpreter ends may crash it
        if self._heartbeat is not None:
            self._heartbeat.leave()
        with contextlib.suppress(OperationalError):  # the broker is away: the sweep will ring
            self._ring(waited)
        if "database" in vars(self):  # it was opened
            self.database.close()


@cache
def _life(pid: int) -> str:
    """Return a name for the life of process *pid*: in a container the next one has its host and number again."""
    return f"{pid}-{secrets.token_hex(2)}"


def worker_name() -> str:
    """Return what this process is called in claims and among the workers."""
    return f"{socket.gethostname()}:{_life(os.getpid())}"


def create_app() -> Celery:
    """Return the Celery app, its tasks and what they work with, from the environment."""
    try:
        settings = read_settings()
    except BadSettings as error:
        sys.exit(str(error))
    celery = celery_app(settings)
    worker = Worker(settings, ring=lambda ids: ring(celery, ids))
    add_tasks(
        celery,
        offer=worker.offer,
        store=lambda: worker.store,
        counters=lambda: Counters(worker.database),
        workers=lambda: Workers(worker.database),
        max_attempts=settings.max_attempts,
        keep_registrations_s=settings.keep_registrations_s,
        missed_sweeps=math.ceil(GONE_AFTER_S / settings.sweep_interval_s),
    )

    def set_up_logs(**_: Any) -> None:
        configure_logs(service="worker")

    def begin(**_: Any) -> None:
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
            keep_telling(silent_s=settings.lease_s, supervisor_fd=settings.supervisor_fd, lives=lambda: worker.lives)
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
