"""Limits on how often: bad tokens for each address, requests for each token. Counted in this process.

Requests can be counted elsewhere as well, with other processes: what that says holds from the next request on.
"""

from collections.abc import Callable
from functools import partial
from math import ceil
from time import time

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from api.http.problems import Problem

PORTIONS = 600
"""Requests are counted in portions of a limit, so that many cost little: a limit is exact to a six-hundredth."""

_USED_TOO_OFTEN = "This token is used too often."
Elsewhere = Callable[[str, int, Callable[[float], None]], None]


class Throttle:
    """Counts, and says 429 with the seconds to wait. A limit of 0 is none."""

    def __init__(
        self, *, bad_tokens_a_minute: int, requests_a_minute: int, elsewhere: Elsewhere | None = None
    ) -> None:
        """Tell *elsewhere* of requests, too: a token, how many more, and what to call with the seconds to refuse."""
        self._elsewhere = elsewhere if requests_a_minute else None
        self._refused_until: dict[str, float] = {}
        """Of tokens that are used too often in all processes together, by the calendar."""
        self._scarce: set[str] = set()
        """Those that were refused elsewhere when that was last asked."""
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
        if self._refused_until and self._requests is not None:
            wait_s = self._refused_until.get(token_id, 0) - time()
            if wait_s > 0:
                raise _too_many(self._requests, _USED_TOO_OFTEN, wait_s)
            self._refused_until.pop(token_id, None)
        paid = self._paid.get(token_id, 0)
        if not paid:
            # What was refused elsewhere goes on one by one: a portion would pass before that is known again.
            paid = 1 if token_id in self._scarce else self._at_a_time
            self._hit(self._requests, token_id, _USED_TOO_OFTEN, cost=paid)
            if self._elsewhere is not None:
                self._elsewhere(token_id, paid, partial(self._told, token_id))
        self._paid[token_id] = paid - 1

    def _told(self, token_id: str, wait_s: float) -> None:
        """Refuse a token for *wait_s* from now on; 0 is said of one that may go on."""
        if wait_s:
            self._refused_until[token_id] = time() + wait_s
            self._scarce.add(token_id)
            self._paid.pop(token_id, None)
        else:
            self._scarce.discard(token_id)

    def _hit(self, limit: RateLimitItemPerMinute | None, who: str, sentence: str, *, cost: int = 1) -> None:
        if limit is None or self._limiter.hit(limit, who, cost=cost):
            return
        raise _too_many(limit, sentence, self._limiter.get_window_stats(limit, who).reset_time - time())


def _too_many(limit: RateLimitItemPerMinute, sentence: str, wait_s: float) -> Problem:
    return Problem(
        "too-many-requests",
        f"{sentence} {limit.amount} a minute are allowed: wait before you go on.",
        retryable=True,
        headers={"Retry-After": str(max(1, ceil(wait_s)))},
    )


def _limit(amount: int) -> RateLimitItemPerMinute | None:
    return RateLimitItemPerMinute(amount) if amount else None
