"""In time: what is asked of the store is answered or given up, whatever the store does meanwhile."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from shared.errors import StoreUnavailable

ASKED_WITHIN_S = 8.0
"""What a request waits for the store at once; less than a connection does, which may be others' turn first."""
READY_WITHIN_S = 3.0

Answer = TypeVar("Answer")


async def in_time(answer: Awaitable[Answer], within_s: float | None) -> Answer:
    """Return *answer*, which is awaited for *within_s*; None for ever.

    Raises:
        StoreUnavailable: it took longer.
    """
    try:
        async with asyncio.timeout(within_s) as bound:
            return await answer
    except TimeoutError:
        if not bound.expired():
            raise
        raise StoreUnavailable("The store takes too long.") from None
