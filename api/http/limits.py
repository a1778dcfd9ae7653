"""Limits on how often: bad tokens for each address, requests for each token. Counted in this process."""

from math import ceil
from time import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.http.problems import Problem

PORTIONS = 600
"""Requests are counted in portions of a limit, so that many cost little: a limit is exact to a six-hundredth."""


class Throttle:
    """Counts, and says 429 with the seconds to wait. A limit of 0 is none."""

    def __init__(self, *, bad_tokens_a_minute: int, requests_a_minute: int) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self._bad_tokens = _limit(bad_tokens_a_minute)
        self._requests = _limit(requests_a_minute)
        self._at_a_time = max(1, requests_a_minute // PORTIONS)
        self._paid: dict[str, int] = {}
        """How many more requests of each token are counted already; there are no more of these than tokens."""

    def bad_token_from(self, address: str) -> None:
        """Count a bad token from *address*.

        Only bad ones are ever refused: a neighbour behind the same address must not lock out a good one.

        Raises:
            Problem: 429, there were too many.
        """
        self._hit(self._bad_tokens, address, "Too many bad tokens came from your address.")

    def request_with(self, token_id: str) -> None:
        """Count a request with a valid token.

        Raises:
            Problem: 429, there were too many.
        """
        paid = self._paid.get(token_id, 0)
        if not paid:
            self._hit(self._requests, token_id, "This token is used too often.", cost=self._at_a_time)
            paid = self._at_a_time
        self._paid[token_id] = paid - 1

    def _hit(self, limit: RateLimitItemPerMinute | None, who: str, sentence: str, *, cost: int = 1) -> None:
        if limit is None or self._limiter.hit(limit, who, cost=cost):
            return
        wait_s = max(1, ceil(self._limiter.get_window_stats(limit, who).reset_time - time()))
        raise Problem(
            "too-many-requests",
            f"{sentence} {limit.amount} a minute are allowed: wait before you go on.",
            retryable=True,
            headers={"Retry-After": str(wait_s)},
        )


def _limit(amount: int) -> RateLimitItemPerMinute | None:
    return RateLimitItemPerMinute(amount) if amount else None
