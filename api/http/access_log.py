"""One log line for each request: method, path without its query, status, duration; and one more in its count."""

from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.counts import RequestCounts
from api.http.prefix import route_of
from shared.logs import get_logger

log = get_logger("api.access")
REGISTRATION = "registration"
"""Where a route notes in its scope which registration a request is about, when its path does not say."""
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class AccessLog:
    """ASGI middleware; it looks at no body."""

    def __init__(self, app: ASGIApp, counts: RequestCounts, *, told: bool = True) -> None:
        """Count all, and log them if they are to be *told*."""
        self._app = app
        self._told = told
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request and log it."""
        if scope["type"] != "http" or route_of(scope) in _QUIET:
            await self._app(scope, receive, send)
            return
        status, started = 499, perf_counter()  # 499: the client left before there was an answer

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._counts.count(scope, status)
            if self._told:
                _tell(scope, status, perf_counter() - started)


def _tell(scope: Scope, status: int, took_s: float) -> None:
    about = {REGISTRATION: scope[REGISTRATION]} if REGISTRATION in scope else {}
    log.info(
        "request", method=scope["method"], path=scope["path"], status=status, ms=round(took_s * 1000, 1), **about
    )
