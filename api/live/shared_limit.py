"""The limit of a token's requests, counted with all other api processes where the broker is Redis or Valkey.

No request waits for it: each process counts for itself (`api/http/limits.py`), tells here of a portion when it begins
one, and is told for how long to refuse. So a limit is exceeded by a portion for each process at most, and where the
broker is away each counts alone.
"""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from celery import Celery
from limits import RateLimitItemPerMinute
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.live.threads import Threads
from shared.broker import reason_of
from shared.logs import get_logger
from shared.outage import Outage
from shared.queues import open_redis

AGAIN_AFTER_S = 5.0
"""How long a broker that failed is left alone."""
log = get_logger(__name__)


class SharedLimit:
    """Counts in the broker of *celery* how often each token is used: *a_minute* times it may be."""

    def __init__(self, celery: Celery, a_minute: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._celery = celery
        self._limit = RateLimitItemPerMinute(a_minute)
        self._clock = clock
        self._threads = Threads(1, name="limits")
        self._connection: Any = None
        self._limiter: SlidingWindowCounterRateLimiter | None = None
        self._left_alone_until = 0.0
        self._outage = Outage(log, away="limits counted by each process alone", back="limits counted together again")
        self._telling: set[asyncio.Task[None]] = set()

    def tell(self, token_id: str, number: int, told: Callable[[float], None]) -> None:
        """Count *number* more uses of a token; call *told* with the seconds to wait where that is too many, or 0."""

        async def asked() -> None:
            wait_s = await self._threads(self._hit, token_id, number)
            if wait_s is not None:
                told(wait_s)

        task = asyncio.get_running_loop().create_task(asked())
        self._telling.add(task)  # the loop itself would forget it
        task.add_done_callback(self._telling.discard)

    def close(self) -> None:
        """End the thread."""
        self._threads.close()

    def _hit(self, token_id: str, number: int) -> float | None:
        if self._clock() < self._left_alone_until:
            return None
        try:
            limiter = self._limiter or self._open()
            if limiter.hit(self._limit, token_id, cost=number):
                wait_s = 0.0
            else:
                wait_s = max(1, math.ceil(limiter.get_window_stats(self._limit, token_id).reset_time - time.time()))
        except Exception as error:  # noqa: BLE001  # whatever it is: each process counts for itself as well
            self._left_alone_until = self._clock() + AGAIN_AFTER_S
            self._limiter = None
            if self._connection is not None:
                self._connection.collect()
            self._outage.note(reason_of(error).text)
            return None
        self._outage.over()
        return wait_s

    def _open(self) -> SlidingWindowCounterRateLimiter:
        self._connection, pool = open_redis(self._celery)
        storage = RedisStorage("redis://", connection_pool=pool, key_prefix="registry.limits")
        self._limiter = SlidingWindowCounterRateLimiter(storage)
        return self._limiter
