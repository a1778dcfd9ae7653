"""An engine with all its parts, on a loop of its own: what a worker process verifies with."""

import os
import secrets
import socket
from collections.abc import Sequence
from functools import cache

from shared.logs import get_logger
from shared.registration import RegistrationId, Terms
from shared.settings import Settings
from shared.signatures import new_key
from shared.store.database import Database
from shared.store.keys import SigningKeys
from shared.store.registrations import Store
from shared.store.schema import check_schema
from shared.store.webhooks import Webhooks
from worker.digest.explain import Diagnosis
from worker.digest.lanes import Lanes
from worker.engine import Engine
from worker.fetch.client import Client
from worker.fetch.dial import Dial, Dialer, ProxyDialer
from worker.fetch.hops import Fetcher
from worker.fetch.resolver import Resolve, Resolver
from worker.keeper import StoreKeeper
from worker.loop import LoopThread
from worker.messenger import Messenger
from worker.retry import RetryPolicy
from worker.verify import Verifier

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
        self._database = database
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

    def deliver(self) -> None:
        """Have webhooks be told what is due; return within seconds."""
        self._loop.call(self._look_for_deliveries())

    async def _look_for_deliveries(self) -> None:
        self.messenger.look()

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
            self._loop.call(self.messenger.leave(), within_s=LEAVING_S)
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
        keys = SigningKeys(self._database, new_key)
        self.messenger = Messenger(Webhooks(self._database), keys, self._client, settings.egress)
        self._closers.append(self.messenger.close)
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


@cache
def _life(pid: int) -> str:
    """Return a name for the life of process *pid*: in a container the next one has its host and number again."""
    return f"{pid}-{secrets.token_hex(2)}"


def worker_name() -> str:
    """Return what this process is called in claims and among the workers."""
    return f"{socket.gethostname()}:{_life(os.getpid())}"
