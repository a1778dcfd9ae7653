"""All pages for people; `api/main.py` adds them to the app."""

from fastapi import Request
from starlette.responses import Response

from api.dashboard import actions, acts, catalogue, operations, registrations, session, tokens, upstreams, webhooks
from api.dashboard.rendering import page
from api.http.prefix import route_of
from api.http.problems import Problem

_ROOMS = (session, acts, operations, catalogue, registrations, upstreams, actions, tokens, webhooks)
ROUTERS = tuple(each.router for each in _ROOMS)
_OURS = ("/operations", "/plugins/", "/registrations", "/upstreams", "/workers", "/actions", "/tokens", "/webhooks")


def problem_page(request: Request, problem: Problem) -> Response | None:
    """Return *problem* for a person, where it befell one: a browser that asked for a page."""
    route = route_of(request.scope)
    if not (route == "/" or route.startswith(_OURS)) or "text/html" not in request.headers.get("Accept", ""):
        return None
    return page("problem.html", status=problem.status, said=problem.document["detail"])
