"""Waiting for outcomes: one poll of the store serves every waiting request, and none holds a thread."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from time import monotonic

from fastapi.concurrency import run_in_threadpool

from shared.logs import get_logger
from shared.registration import Registration, RegistrationId
from shared.store.registrations import Store

EAGER_S, EAGER_FOR_S = 0.004, 1.0
"""Pause between polls while somebody has waited for less than a second: most artifacts are small."""
POLLING_SHARE = 0.5
"""How much of the time may go into polls, however long one takes."""
PATIENT_S = 0.1

log = get_logger(__name__)


class Outcomes:
    """Tells requests when their registrations are final."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: defaultdict[RegistrationId, set[asyncio.Future[Registration | None]]] = defaultdict(set)
        self._somebody = asyncio.Event()
        self._newest = 0.0
        self._leaving = False

    async def wait(
        self,
        registration_id: RegistrationId,
        timeout_s: float,
        left: Callable[[], Coroutine[None, None, None]] | None = None,
    ) -> Registration | None:
        """Return the registration once it is final, or None: after *timeout_s*, or when we are told to stop.

        *left* returns when whoever waits has left; then there is no more waiting either.
        """
        if self._leaving or timeout_s <= 0:
            return None
        answer: asyncio.Future[Registration | None] = asyncio.get_running_loop().create_future()
        self._waiting[registration_id].add(answer)
        self._newest = monotonic()
        self._somebody.set()
        leaving = asyncio.create_task(left()) if left else None
        if leaving:
            leaving.add_done_callback(lambda _leaving: _let_go(answer))
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            return None
        finally:
            if leaving:
                leaving.cancel()
            self._waiting[registration_id].discard(answer)
            if not self._waiting[registration_id]:
                del self._waiting[registration_id]

    def leave(self) -> None:
        """Let every waiting request go with what is known: this process is about to stop."""
        self._leaving = True
        for answers in list(self._waiting.values()):
            for answer in answers:
                _let_go(answer)

    async def run(self) -> None:
        """Poll for as long as the process lives, and only while somebody waits."""
        while True:
            await self._somebody.wait()
            if not self._waiting:
                self._somebody.clear()
                continue
            begun = monotonic()
            try:
                settled = await run_in_threadpool(self._store.settled, list(self._waiting))
            except Exception as error:  # noqa: BLE001  # whatever it is, the next poll may go well, and all wait for it
                log.warning("outcomes not read", reason=str(error) or type(error).__name__)
                settled = []
            for registration in settled:
                for answer in self._waiting.get(registration.id, ()):
                    if not answer.done():
                        answer.set_result(registration)
            now = monotonic()
            pause_s = EAGER_S if now - self._newest < EAGER_FOR_S else PATIENT_S
            await asyncio.sleep(max(pause_s, (now - begun) * (1 / POLLING_SHARE - 1)))


def _let_go(answer: asyncio.Future[Registration | None]) -> None:
    if not answer.done():
        answer.set_result(None)
