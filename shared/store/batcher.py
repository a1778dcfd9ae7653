"""The batcher: one thread asks the store for all tasks of an event loop.

A task asks and awaits its answer. Whatever waits when the thread is free is one group, and a group is one call of the
store: one transaction, one wait for the disk. While that is under way the next group gathers, so groups grow with the
load and nobody who is alone waits for company. A worker has one for all that it asks; an api has one for submissions
and one for tokens, which wait for no commit.

    tasks ── ask ──► waiting ──► group ──► call ──► answers ──► tasks
                        └──── the next gathers ────┘

Where the last group was not small, more are on their way, and the thread lets them come for a moment (`LINGER_S`):
the price of a transaction is shared by more of them, and what they wait is less than what it would cost them.

Who has given up before a group was made is not in it: what was told to have failed is not done afterwards. An answer
to a task that went away later is dropped: who must not lose one, as a claim, may not be cancelled while it waits.

If the call fails with a `RegistryError`, which is the store's word on the whole, each of the group is told. After
anything else each is asked for by itself, so that one takes no other along.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from shared.errors import RegistryError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")

MAX_GROUP = 128
LINGER_S = 0.004
CLOSING_S = 10.0
QUIET_S = 0.05
"""After so long without a question the last group says nothing of the next."""
BUSY_FROM = 8
"""A group of so many is not small."""


class Batcher(Generic[Asked, Answer]):
    """Makes *call* for the tasks of a loop. It takes what is asked for, the first to ask first, and answers each."""

    def __init__(
        self,
        call: Callable[[Sequence[Asked]], Sequence[Answer]],
        *,
        name: str = "store",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._call = call
        self._sleep = sleep
        self._waiting: deque[tuple[Asked, asyncio.Future[Answer]]] = deque()
        self._idle = True
        """Whether the thread sleeps. Only the loop changes it, so only one of the two wakes the thread."""
        self._awake = threading.Semaphore(0)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def ask(self, asked: Asked) -> Answer:
        """Return the answer to *asked*, or raise what was raised for it."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, answer))
        self._wake()
        return await answer

    @property
    def waiting(self) -> int:
        """How many wait for the next group."""
        return len(self._waiting)

    def close(self, *, within_s: float = CLOSING_S) -> None:
        """End the thread once it has answered what it is at, or after *within_s*, should the store be away."""
        self._closed = True
        self._awake.release()
        self._thread.join(within_s)

    def _wake(self) -> None:
        if self._idle and self._waiting:
            self._idle = False
            self._awake.release()

    def _run(self) -> None:
        size = 0
        while True:
            slept_from = time.monotonic()
            self._awake.acquire()
            if self._closed:
                return
            if time.monotonic() - slept_from > QUIET_S:
                size = 0  # that was another load
            if BUSY_FROM <= size < MAX_GROUP:
                self._sleep(LINGER_S)
            taken = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            loop = taken[0][1].get_loop()
            group = [each for each in taken if not each[1].done()]
            size = len(group)
            answered = self._answers([asked for asked, _ in group]) if group else []
            try:
                loop.call_soon_threadsafe(self._deliver, [answer for _, answer in group], answered)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return

    def _answers(self, group: Sequence[Asked]) -> Sequence[Answer | BaseException]:
        try:
            return self._call(group)
        except RegistryError as error:
            return [error] * len(group)
        except Exception as error:  # noqa: BLE001  # each is told; none may wait for ever
            return [error] if len(group) == 1 else [self._answers([each])[0] for each in group]

    def _deliver(self, waiting: Sequence[asyncio.Future[Answer]], answers: Sequence[Answer | BaseException]) -> None:
        self._idle = True
        self._wake()  # first: the thread goes on while these are told
        for theirs, answer in zip(waiting, answers, strict=True):
            if theirs.done():
                continue
            if isinstance(answer, BaseException):
                theirs.set_exception(answer)
            else:
                theirs.set_result(answer)
