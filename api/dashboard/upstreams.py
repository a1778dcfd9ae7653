"""The upstreams: the hosts in trouble, and each by itself, with how it did and a switch to leave it alone."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from api.dashboard.acts import SAID
from api.dashboard.rendering import framed
from api.dashboard.session import here_of, sign_in_page
from api.dashboard.visitor import Here, Someone
from api.routes.upstreams import known_upstream

router = APIRouter(include_in_schema=False)


@router.get("/upstreams")
async def upstreams(request: Request, services: Here, who: Someone) -> Response:
    """The worst hosts of the last hours, and those that are paused."""
    if who is None:
        return sign_in_page(request)
    seen = (await services.monitor.now()).store
    return framed(
        "upstreams.html", who, "/upstreams", now=seen.taken_at, upstreams=seen.upstreams, paused=seen.paused
    )


@router.get("/upstreams/{host}")
async def upstream(request: Request, services: Here, who: Someone, host: str, done: str = "") -> Response:
    """One host: its hours, why its artifacts failed, what is in flight."""
    if who is None:
        return sign_in_page(request)
    seen = await known_upstream(services, host)
    return framed("upstream.html", who, here_of(request), said=SAID.get(done, ""), upstream=seen)
