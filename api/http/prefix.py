"""Behind a path prefix, such as https://tools.example/registry: every URL that we hand out carries it.

A proxy in front takes it off what it passes on. What it is (`root_path` in ASGI) the settings or uvicorn say.
Inside, paths are as ASGI has them, with the prefix; `route_of` leaves it out.
"""

from contextvars import ContextVar

from starlette.types import ASGIApp, Receive, Scope, Send

_root: ContextVar[str] = ContextVar("root_path", default="")


def at(path: str) -> str:
    """Return *path*, which is ours, as a client of the request that is being served has to ask for it."""
    return _root.get() + path


def go_under(root_path: str) -> None:
    """Have what follows, in this context, be under *root_path*."""
    _root.set(root_path)


def route_of(scope: Scope) -> str:
    """Return the path of a request as our routes are called."""
    root, path = str(scope.get("root_path", "")), str(scope["path"])
    return path.removeprefix(root) if root and path.startswith(f"{root}/") else path


class Prefix:
    """ASGI middleware that has what follows know under which prefix it is asked."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. A prefix that the server knows of already stands in its path."""
        if scope["type"] == "http":
            if self._root_path and not scope.get("root_path"):
                scope = {**scope, "root_path": self._root_path, "path": self._root_path + scope["path"]}
            go_under(scope.get("root_path", ""))
        await self._app(scope, receive, send)
