"""Methods: HEAD wherever there is GET, and which methods a path has (RFC 9110 sections 9.3.2 and 15.5.6)."""

from collections.abc import Iterable

from fastapi.routing import APIRouter
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def methods_at(path: str, routers: Iterable[APIRouter]) -> list[str]:
    """Return the methods that *path* has in *routers*, for the `Allow` of a 405: of all its routes, not of one."""
    routes = (route for router in routers for route in router.routes if isinstance(route, Route))
    found = {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}
    return sorted(found | ({"HEAD"} if "GET" in found else set()))


class Head:
    """ASGI middleware that has HEAD answered as GET is, without what GET would send."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. A stream is over with its head: whoever serves it is told that the client left."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        over = False

        async def send_head(message: Message) -> None:
            nonlocal over
            if message["type"] == "http.response.start":
                await send(message)
            elif not over:
                over = True
                await send({"type": "http.response.body", "body": b"", "more_body": False})

        async def receive_until_over() -> Message:
            return {"type": "http.disconnect"} if over else await receive()

        await self._app({**scope, "method": "GET"}, receive_until_over, send_head)
