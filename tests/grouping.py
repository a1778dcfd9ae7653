"""Calls that gather as one group, whatever the threads would do by themselves."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from shared.grouped import Grouped
from tests.running import until

Answer = TypeVar("Answer")


def at_once(grouped: Grouped[Any, Any], *calls: Callable[[], Answer]) -> list[Future[Answer]]:
    """Make *calls*, each of which asks *grouped* once, as one group in this order; return what came of each."""
    made: list[Future[Answer]] = []
    with ThreadPoolExecutor(len(calls)) as pool, grouped._turn:
        for each in calls:
            made.append(pool.submit(each))
            until(lambda: len(grouped._waiting) == len(made), what="one more that waits")
    return made
