"""The messenger: tells webhooks of events, on the loop of the engine, through its egress, and in nobody's way.

It has places of its own, a few for each host, and holds none of the engine's: however many deliveries are due, and
however slow who is told, no registration waits for them. Of an answer only the status counts; no body is read, no
redirect followed. A hook is a stranger's URL as any other: where it may lead, egress says, at each try.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from shared.egress import Egress
from shared.errors import RegistryError, StoreUnavailable
from shared.logs import get_logger
from shared.signatures import signed_headers
from shared.store.keys import FOR_WEBHOOKS, SigningKeys
from shared.store.webhooks import Places, Trial, Tried, Webhooks
from worker.fetch.client import Client
from worker.fetch.translation import translated

AT_ONCE, AT_ONCE_EACH_HOST = 32, 4
WITHIN_S = 20.0
SHORT_AGAIN_S = 5.0
"""A delivery in all, from the look-up of its host to the head of the answer."""
_THEIRS, _ITS = "artifact's host", "webhook's host"
"""In what is told of a host: who fetches says it of artifacts."""

T = TypeVar("T")
log = get_logger(__name__)


class Messenger:
    """Delivers what *webhooks* has due, signed with *keys*, over *client*, where *egress* lets it."""

    def __init__(self, webhooks: Webhooks, keys: SigningKeys, client: Client, egress: Egress) -> None:
        self._webhooks = webhooks
        self._keys = keys
        self._client = client
        self._egress = egress
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="messenger")
        self._tasks: dict[asyncio.Task[None], str] = {}
        """Those under way, and their hosts."""
        self._looking: asyncio.Task[None] | None = None
        self._private_key: str | None = None
        self._leaving = False

    def look(self) -> None:
        """Begin what is due, as far as there is a place for it. It returns at once."""
        if not self._leaving and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._begin())
            self._looking.add_done_callback(_tell_surprise)

    async def leave(self) -> None:
        """Cut off what is under way; it is tried again, by another."""
        self._leaving = True
        going = [*self._tasks, *([self._looking] if self._looking else [])]
        for each in going:
            each.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False)

    async def _begin(self) -> None:
        places = Places(AT_ONCE, AT_ONCE_EACH_HOST, Counter(self._tasks.values()))
        try:
            if self._private_key is None:
                self._private_key = (await self._asked(lambda: self._keys.current(FOR_WEBHOOKS))).private
            private_key = self._private_key
            trials = await self._asked(lambda: self._webhooks.begin(places))
        except StoreUnavailable:  # of which the store tells; what was begun is tried again when its lease is over
            return
        for trial in trials:
            task = asyncio.get_running_loop().create_task(self._deliver(trial, private_key))
            self._tasks[task] = trial.host
            task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        del self._tasks[task]
        _tell_surprise(task)
        self.look()

    async def _deliver(self, trial: Trial, private_key: str) -> None:
        body = trial.body.encode()
        headers = signed_headers(
            trial.event_id, int(time.time()), body, secrets=trial.secrets, private_key=private_key
        )
        try:
            status, error = await self._posted(trial.url, {**headers, "Content-Type": "application/json"}, body)
        except RegistryError as short:  # a shortage of ours, which is nobody else's fault (invariant 13)
            log.warning("webhook not told for a shortage of ours", webhook=trial.webhook_id, reason=short.detail)
            with suppress(StoreUnavailable):
                await self._asked(lambda: self._webhooks.put_back(trial, in_s=SHORT_AGAIN_S))
            return
        tried = Tried(trial, status, error)
        log.info(
            "webhook told" if tried.delivered else "webhook not told",
            webhook=trial.webhook_id,
            event_id=trial.event_id,
            trial=trial.number,
            status=status,
            reason=error,
        )
        with suppress(StoreUnavailable):  # it is told once more then
            await self._asked(lambda: self._webhooks.end(tried))

    async def _posted(self, url: str, headers: dict[str, str], body: bytes) -> tuple[int | None, str | None]:
        """Return the status that a POST was answered with, or why there is none.

        Raises:
            RegistryError: the reason is ours.
        """
        try:
            async with asyncio.timeout(WITHIN_S):
                with translated():
                    target = self._egress.check_url(url, what="The webhook's URL")
                    status = await self._client.post(url, target, headers, body)
        except TimeoutError:
            return None, f"No answer within {WITHIN_S:.0f} s."
        except RegistryError as error:
            if error.fault == "registry":
                raise
            return None, error.detail.replace(_THEIRS, _ITS)
        if 300 <= status < 400:
            return status, "It redirects, and no redirect is followed: give the URL where it leads."
        return status, None if 200 <= status < 300 else f"It answered {status}."

    async def _asked(self, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, what)


def _tell_surprise(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("the messenger met what nobody foresaw", exc_info=error)
