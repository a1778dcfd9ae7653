r"""Cookies without backslashes, before anything reads them.

Python unquotes a cookie in quadratic time before 3.11.10 and 3.12.6 (CVE-2024-7592), and FastAPI reads the cookies
of every request, whether a route asks for them or not: 60 KB of ``\a``, from anybody, held up everybody for seconds.
Without a backslash there is nothing to unquote, and no cookie of ours has one.
"""

from starlette.types import ASGIApp, Receive, Scope, Send


class PlainCookies:
    """ASGI middleware that drops every backslash from what a client sends as its cookies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            scope["headers"] = [
                (name, value.replace(b"\\", b"") if name == b"cookie" else value) for name, value in scope["headers"]
            ]
        await self._app(scope, receive, send)
