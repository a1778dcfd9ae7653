"""Threads: a few, and no more, for what would hold the loop up: the store where it is asked seldom, large bodies.

They are daemons, as those of an executor are not: a store or a broker that does not answer must not keep a process
that was told to stop.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from api.live.in_time import in_time

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Threads:
    """Makes calls, *count* at once; the others wait."""

    def __init__(self, count: int, *, name: str, within_s: float | None = None) -> None:
        """Start them. Who asks the store through them waits *within_s* at most, for its turn too; None for ever."""
        self._count = count
        self._within_s = within_s
        self._calls: SimpleQueue[tuple[asyncio.Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        for number in range(count):
            threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True).start()

    async def __call__(self, call: Callable[Given, Answer], *args: Given.args, **options: Given.kwargs) -> Answer:
        """Return what *call* returns, or raise what it raises. It is not made for who has left before its turn.

        Raises:
            StoreUnavailable: it took too long.
        """
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._calls.put((answer, partial(call, *args, **options)))
        return await in_time(answer, self._within_s)

    def close(self) -> None:
        """End the threads, once what waits is done; nobody waits for that."""
        for _ in range(self._count):
            self._calls.put(None)

    def _run(self) -> None:
        while (taken := self._calls.get()) is not None:
            answer, call = taken
            if answer.done():
                continue
            try:
                tell = partial(_tell, answer, call())
            except BaseException as error:  # noqa: BLE001  # it is for who asked
                tell = partial(_fail, answer, error)
            try:
                answer.get_loop().call_soon_threadsafe(tell)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _tell(answer: "asyncio.Future[Answer]", found: Answer) -> None:
    if not answer.done():
        answer.set_result(found)


def _fail(answer: "asyncio.Future[Answer]", error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
