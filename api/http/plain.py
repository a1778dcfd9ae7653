r"""Requests without what none of ours has, before anything reads it.

- *Backslashes in cookies.* Python unquotes a cookie in quadratic time before 3.11.10 and 3.12.6 (CVE-2024-7592), and
  FastAPI reads the cookies of every request, whether a route asks for them or not: 60 KB of ``\a``, from anybody,
  held up everybody for seconds. Without a backslash there is nothing to unquote, and no cookie of ours has one.
- *Long targets and cookies.* To name each of 10,000 parameters as unknown, or as given twice, took a tenth of a
  second, before anybody had looked for a token; paths and cookies of that size take some milliseconds.
- *Two hosts*, of which one reader takes the first and another the last (RFC 9112 section 3.2).
"""

from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import Problem, problem_response

MAX_QUERY_BYTES = MAX_PATH_BYTES = MAX_COOKIE_BYTES = 4096
"""More than any of ours."""


class PlainRequests:
    """ASGI middleware that drops what is not needed and refuses what is too much."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            if fault := _fault(scope):
                await problem_response(Problem("malformed-request", fault))(scope, receive, send)
                return
            scope["headers"] = [
                (name, value.replace(b"\\", b"") if name == b"cookie" else value) for name, value in scope["headers"]
            ]
        await self._app(scope, receive, send)


def _fault(scope: Scope) -> str | None:
    hosts = sum(name == b"host" for name, _value in scope["headers"])
    cookies = sum(len(value) for name, value in scope["headers"] if name == b"cookie")
    if len(scope["query_string"]) > MAX_QUERY_BYTES:
        return f"The query may have {MAX_QUERY_BYTES} characters at most."
    if len(scope["path"]) > MAX_PATH_BYTES or cookies > MAX_COOKIE_BYTES:
        return f"Path and cookies may have {MAX_PATH_BYTES} characters each at most."
    return "Send one Host header." if hosts > 1 else None
