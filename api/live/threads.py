"""Threads: a few, and no more, for what would hold the loop up: the store where it is asked seldom, large bodies."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class Threads:
    """Makes calls, *count* at once; the others wait."""

    def __init__(self, count: int, *, name: str) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)

    async def __call__(self, call: Callable[Given, Answer], *args: Given.args, **options: Given.kwargs) -> Answer:
        """Return what *call* returns, or raise what it raises. It is not made for who has left before its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(call, *args, **options))

    def close(self) -> None:
        """End the threads, once each is done."""
        self._threads.shutdown(wait=False, cancel_futures=True)
