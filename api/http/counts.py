"""How requests were answered: counted here, and added to the store's counters whenever somebody looks.

So any api process tells the same, and a request costs no write.
"""

import threading
from collections import Counter

from starlette.types import Scope

from shared.store.counters import Key

REQUESTS = "http_requests"
"""The counter's name."""
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class RequestCounts:
    """Counts by method, route and status; none of them grows without bound."""

    def __init__(self) -> None:
        self._counted: Counter[Key] = Counter()
        self._lock = threading.Lock()

    def count(self, scope: Scope, status: int) -> None:
        """Count the answer to the request of *scope*."""
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = getattr(scope.get("route"), "path", "other")
        with self._lock:
            self._counted[REQUESTS, (method, route, str(status))] += 1

    def drain(self) -> Counter[Key]:
        """Return what was counted since the last time."""
        with self._lock:
            counted, self._counted = self._counted, Counter()
        return counted

    def put_back(self, counted: Counter[Key]) -> None:
        """Count what could not be added to the store again later."""
        with self._lock:
            self._counted.update(counted)
