"""A shortcut to the one route that is asked most: what FastAPI does around a route costs more than ours does in it.

The route stays FastAPI's too, where it is documented. Here it is called as it is, with the same answers to errors.
"""

from collections.abc import Awaitable, Callable

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.prefix import route_of

Endpoint = Callable[[Request], Awaitable[Response]]


class Shortcut:
    """ASGI: requests for exactly *method* and *path* go to *endpoint*, all others to *app*."""

    def __init__(
        self, app: FastAPI, method: str, path: str, endpoint: Endpoint, answer: Callable[[Exception], Response]
    ) -> None:
        self._app: ASGIApp = app
        self._state_of = app
        self._method, self._path = method, path
        self._endpoint = endpoint
        self._answer = answer
        self._route = APIRoute(path, endpoint, methods=[method], response_model=None)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or route_of(scope) != self._path or scope["method"] != self._method:
            await self._app(scope, receive, send)
            return
        scope["app"], scope["route"] = self._state_of, self._route
        try:
            response = await self._endpoint(Request(scope, receive, send))
        except Exception as error:  # noqa: BLE001  # every error has its answer, a surprise too
            response = self._answer(error)
        await response(scope, receive, send)
