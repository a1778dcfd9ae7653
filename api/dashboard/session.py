"""Signing in to the pages and out again, and what all pages load."""

import re
from urllib.parse import quote

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from api.dashboard.rendering import HEADERS, page, source_of
from api.dashboard.visitor import COOKIE, Form, Here, Someone, require_ours
from api.http.auth import require_every_name
from api.http.prefix import at, route_of
from api.http.problems import Problem
from shared.store.sessions import LIFETIME_S

router = APIRouter(include_in_schema=False)

_STATIC = {"pages.css": "text/css", "pages.js": "text/javascript"}
_OURS = re.compile(r"/(?:(?:plugins|registrations|upstreams|operations|workers|actions|tokens)[!-~]*|\?[!-~]*)?")
"""A page of ours, with its query: nothing that a browser could take for another host's."""


@router.post("/operations/sign-in")
async def sign_in(request: Request, services: Here, sent: Form) -> Response:
    """Begin a session for whoever sends a token of scope read, operate or admin."""
    back = back_of(sent)
    token = await services.token_lookup.whose(sent.get("token", "").strip())
    if token is None or token.scopes.isdisjoint({"read", "operate", "admin"}):
        services.throttle.bad_token_from(services.proxies.client(request.scope))
        said = "This token does not open this page: it may be mistyped, expired, revoked or of another scope."
        return page("sign_in.html", status=403, said=said, here=back)
    services.throttle.request_with(token.id)
    require_every_name(token)
    answer = RedirectResponse(at(back), 303, headers=HEADERS)
    answer.set_cookie(
        COOKIE,
        await services.ask(services.sessions.open, token),
        max_age=int(LIFETIME_S),
        path=at("/"),
        secure=services.proxies.over_tls(request.scope),
        httponly=True,
        samesite="lax",  # a link in a ticket is to open the page; what changes something is sent with its own proof
    )
    return answer


@router.post("/operations/sign-out")
async def sign_out(services: Here, who: Someone, sent: Form) -> Response:
    """End the session."""
    if who is not None:
        require_ours(who, sent)
        await services.ask(services.sessions.close, who.secret)
    answer = RedirectResponse(at("/operations"), 303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=at("/"))
    return answer


@router.get("/operations/static/{name}")
async def static(name: str) -> Response:
    """The pages' style and script."""
    if name not in _STATIC:
        raise Problem("not-found", "There is nothing of this name.")
    return Response(source_of(name), media_type=_STATIC[name], headers=HEADERS | {"Cache-Control": "no-cache"})


def sign_in_page(request: Request) -> Response:
    """Return the form to sign in, which leads back to the page that was asked for."""
    return page("sign_in.html", said="", here=here_of(request))


def here_of(request: Request) -> str:
    """Return where *request* asks, without the prefix that all our paths have, as `back_of` takes it."""
    query = request.scope["query_string"].decode("latin-1")  # whatever it is: it leads back only if it is one of ours
    return quote(route_of(request.scope), safe="/:@") + (f"?{query}" if query else "")


def back_of(sent: Form) -> str:
    """Return the page that a form was sent from; that of operations where it says none of ours."""
    back = sent.get("back", "")
    return back if len(back) <= 1000 and _OURS.fullmatch(back) else "/operations"
