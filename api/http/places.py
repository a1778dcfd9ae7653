"""Places: how many of a kind one client may hold at once. What is over its number is refused, or not waited for.

A place is left when the block ends that took it, or the request (`Held`): however that comes, by an answer, an error,
a client that vanished, or because we stop. All of it happens in the loop's own thread, so nothing is locked.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import RETRY_AFTER_S, Problem
from api.http.proxies import Proxies
from shared.settings import Settings

_HELD = "plugin_registry.held"


class Places:
    """So many for each who asks; 0 is as many as they like."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: dict[str, int] = {}

    def take(self, who: str) -> bool:
        """Take a place for *who*, if one is free; whoever took one leaves it once."""
        taken = self._taken.get(who, 0)
        if self.most and taken >= self.most:
            return False
        self._taken[who] = taken + 1
        return True

    def leave(self, who: str) -> None:
        """Leave a place that was taken for *who*."""
        taken = self._taken.pop(who) - 1
        if taken:
            self._taken[who] = taken

    def __len__(self) -> int:
        return sum(self._taken.values())


_Held = list[tuple[Places, str]]


class Held:
    """ASGI: what a request holds, it holds until it is over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        held: _Held = []
        scope[_HELD] = held
        try:
            await self._app(scope, receive, send)
        finally:
            _leave(held)


class Caps:
    """What each token and each client address may hold of one api process."""

    def __init__(self, settings: Settings, proxies: Proxies) -> None:
        self._proxies = proxies
        self._requests = Places(settings.max_requests_per_token)
        self._waits = Places(settings.max_waits_per_token), Places(settings.max_waits_per_address)
        self._streams = Places(settings.max_streams_per_token), Places(settings.max_streams_per_address)

    def request(self, scope: Scope, token_id: str) -> None:
        """Count a request for as long as it lasts.

        Raises:
            Problem: 429.
        """
        if not _take(scope[_HELD], self._requests, token_id):
            raise _refused(f"This token has {self._requests.most} requests in flight, as many as it may. Try again.")

    def stream(self, scope: Scope, token_id: str) -> None:
        """Count an event stream for as long as it lasts.

        Raises:
            Problem: 429.
        """
        whose = (token_id, "This token"), (self._proxies.client(scope), "Your address")
        for places, (who, named) in zip(self._streams, whose, strict=True):
            if not _take(scope[_HELD], places, who):
                raise _refused(
                    f"{named} has {places.most} event streams open, as many as it may. "
                    "End one, or ask for what it tells from time to time."
                )

    @contextmanager
    def waiting(self, scope: Scope, token_id: str) -> Iterator[bool]:
        """Hold a place while an answer is held back; False where none is free."""
        held: _Held = []
        whose = token_id, self._proxies.client(scope)
        try:
            yield all(_take(held, places, who) for places, who in zip(self._waits, whose, strict=True))
        finally:
            _leave(held)


def _take(held: _Held, places: Places, who: str) -> bool:
    if not places.take(who):
        return False
    held.append((places, who))
    return True


def _leave(held: _Held) -> None:
    for places, who in held:
        places.leave(who)


def _refused(detail: str) -> Problem:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return Problem("too-many-requests", detail, retryable=True, headers=headers)
