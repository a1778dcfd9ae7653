"""Composition root of the worker: ``celery -A worker.main worker --pool threads`` and ``... beat``."""

import contextlib
import ctypes
import gc
import math
import os
import secrets
import socket
import sys
import threading
import warnings
from functools import cache, cached_property
from typing import Any

from celery import Celery, bootsteps, signals

from shared.census import GONE_AFTER_S, Census
from shared.database import Database, SchemaMismatch, open_database
from shared.errors import StoreUnavailable
from shared.logs import configure_logs
from shared.queues import celery_app
from shared.settings import BadSettings, Settings, read_settings
from shared.store import Store
from shared.tallies import Tallies
from shared.tracing import TracingNotInstalled, start_tracing
from worker.attempts import Attempts
from worker.client import Client, Dial
from worker.connect import Dialer, ProxyDialer, Resolver
from worker.explain import Explainer
from worker.fetch import Fetcher
from worker.hosts import Hosts
from worker.liveness import keep_telling
from worker.lost_broker import outlive_broker
from worker.presence import Presence
from worker.retry import RetryPolicy
from worker.tasks import add_tasks
from worker.verify import Verifier

_M_ARENA_MAX = -8  # malloc.h


class Worker:
    """What one worker process works with, built when it is first needed: after a fork, if there is one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._verifier: Verifier | None = None
        self._building = threading.Lock()
        self._presence = Presence(lambda: Census(self.database), worker_name())

    @cached_property
    def database(self) -> Database:
        """The connections to the store that everything here shares."""
        return open_database(self._settings.database_url)

    def verifier(self) -> Verifier:
        """Return this process's verifier.

        Raises:
            SchemaMismatch, StoreUnavailable: the store is not one to work with.
        """
        with self._building:
            if self._verifier is None:
                self._verifier = build_verifier(self._settings, self.database)
                self._verifier.attempts.start()
            return self._verifier

    def arrive(self, *, threads: int) -> None:
        """Let operators see that this process is here, for *threads* downloads at once."""
        self._presence.arrive(threads)

    def leave(self) -> None:
        """Cut off what is under way, so that it is put back at once."""
        if self._verifier is not None:
            self._verifier.attempts.leave()
        self._presence.leave()


def keep_few_arenas() -> None:
    """Have glibc's malloc share two arenas: hundreds of threads would keep one each for what they have freed."""
    with contextlib.suppress(AttributeError, OSError):  # another C library has no such thing
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


@cache
def _life(pid: int) -> str:
    """Return a name for the life of process *pid*: in a container the next one has its host and number again."""
    return f"{pid}-{secrets.token_hex(2)}"


def worker_name() -> str:
    """Return what this process is called in claims and in the census."""
    return f"{socket.gethostname()}:{_life(os.getpid())}"


def build_verifier(settings: Settings, database: Database) -> Verifier:
    """Compose a verifier from *settings* over *database*, which stays its owner's to close."""
    database.check_schema()
    store = Store(
        database,
        ring_again_after_s=5 * settings.sweep_interval_s,
        max_leases_lost=settings.max_leases_lost,
    )
    timeout_s, resolve = settings.connect_timeout_s, Resolver()
    proxy_url = settings.egress_proxy.get_secret_value() if settings.egress_proxy else None
    dial: Dial
    if proxy_url is None:
        dial = Dialer(settings.egress, connect_timeout_s=timeout_s, resolve=resolve)
    else:
        dial = ProxyDialer(proxy_url, connect_timeout_s=timeout_s, resolve=resolve)
    client = Client(
        dial,
        read_timeout_s=settings.read_timeout_s,
        ca_file=settings.egress_ca_file,
        proxy_url=proxy_url,
    )
    return Verifier(
        store=store,
        fetch=Fetcher(client, settings.egress, max_bytes=settings.max_artifact_bytes),
        explain=Explainer(),
        attempts=Attempts(store, lease_s=settings.lease_s, deadline_s=settings.fetch_deadline_s),
        hosts=Hosts(settings.max_downloads_per_host),
        retry=RetryPolicy(settings.max_attempts, settings.retry_base_s, settings.retry_cap_s),
        worker=worker_name(),
        lease_s=settings.lease_s,
        max_bytes=settings.max_artifact_bytes,
    )


def create_app() -> Celery:
    """Return the Celery app, its tasks and what they work with, from the environment."""
    try:
        settings = read_settings()
    except BadSettings as error:
        sys.exit(str(error))
    outlive_broker()
    keep_few_arenas()
    celery = celery_app(settings)
    worker = Worker(settings)
    add_tasks(
        celery,
        worker.verifier,
        tallies=lambda: Tallies(worker.database),
        census=lambda: Census(worker.database),
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
                database.check_schema()
            if settings.traces:
                start_tracing("worker")
        except (SchemaMismatch, StoreUnavailable, TracingNotInstalled) as error:
            sys.exit(str(error))

    class ComeAndGo(bootsteps.StartStopStep):
        """Puts back what is under way whenever the worker stops, told to or not, before it waits for its threads."""

        requires = ("celery.worker.components:Pool",)

        def start(self, parent: Any) -> None:
            keep_telling(silent_s=settings.lease_s, supervisor_fd=settings.supervisor_fd)
            gc.collect()
            gc.freeze()  # what is loaded by now stays: no collection need look at it again
            worker.arrive(threads=parent.concurrency)

        def stop(self, parent: Any) -> None:  # noqa: ARG002  # Celery's signature
            worker.leave()

    def begin_in_child(**_: Any) -> None:
        keep_telling(silent_s=settings.lease_s)

    celery.steps["worker"].add(ComeAndGo)
    signals.worker_process_init.connect(begin_in_child, weak=False)  # of --pool prefork
    signals.setup_logging.connect(set_up_logs, weak=False)
    signals.worker_init.connect(begin, weak=False)
    return celery


# Celery warns a worker of root's because of pickle. Ours takes JSON only, and bells at that.
warnings.filterwarnings("ignore", message="You're running the worker with superuser")

app = create_app()
