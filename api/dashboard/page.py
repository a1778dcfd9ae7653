"""The operations page: rendered here, live through server-sent events, useful without JavaScript.

Whatever a stranger named is escaped by the templates, and the page may load nothing and send nothing
anywhere but here (Content-Security-Policy). Who may act must have signed in, and each act proves that
it was sent by a page of that session. It shows registrations of every name, so no token that is limited
to names opens it (decision 0018).
"""

import re
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dashboard.rendering import HEADERS, live_part, page, source_of, time
from api.dashboard.visitor import COOKIE, Visitor, form, require_ours, visitor, watching
from api.http.auth import require_every_name
from api.http.prefix import at, route_of
from api.http.problems import Problem
from api.routes.operations import Retried, RetryQuery, cancel, retry, retry_page
from api.routes.registrations import known_registration
from api.services import Services, services_of
from shared.errors import StoreUnavailable
from shared.registration import ID, Registration
from shared.store.sessions import LIFETIME_S, form_token, name_of
from shared.store.tokens import Token

router = APIRouter(include_in_schema=False)

FOUND_SHOWN = 20
ACTIONS_SHOWN = 10
RETRIED_AT_ONCE = 200
PAGES_RETRIED = 20
RETRIED_OVER = timedelta(hours=24)
"""What failed before that is for the command line, which takes a time."""
_STATIC = {"operations.css": "text/css", "operations.js": "text/javascript"}
_SAID = {
    "retry": "It is tried again, as a new registration.",
    "cancel": "It is canceled.",
    "retry-cause": "They are tried again, as new registrations.",
    "retry-more": "The newest 4,000 are tried again; `plugin-registry retry --cause` takes all that there are.",
    "nothing": "There is nothing to try again: it is registered, or in flight, by now.",
}


class Question(NamedTuple):
    """What somebody is asked before it is done to many."""

    cause: str
    number: int


Someone = Annotated[Visitor | None, Depends(visitor)]
Here = Annotated[Services, Depends(services_of)]
Form = Annotated[Mapping[str, str], Depends(form)]


@router.get("/operations")
async def show(services: Here, who: Someone, q: str = "", done: str = "") -> Response:
    """Show the page, or ask who it is for."""
    if who is None:
        return page("sign_in.html", said="")
    return await _operations(services, who, q=q[:100], said=_SAID.get(done, ""))


@router.post("/operations/sign-in")
async def sign_in(request: Request, services: Here, sent: Form) -> Response:
    """Begin a session for whoever sends a token of scope read or operate."""
    token = await services.token_lookup.whose(sent.get("token", "").strip())
    if token is None or token.scopes.isdisjoint({"read", "operate"}):
        services.throttle.bad_token_from(services.proxies.client(request.scope))
        said = "This token does not open this page: it may be mistyped, expired, revoked or of another scope."
        return page("sign_in.html", status=403, said=said)
    services.throttle.request_with(token.id)
    require_every_name(token)
    answer = RedirectResponse(at("/operations"), 303, headers=HEADERS)
    answer.set_cookie(
        COOKIE,
        await services.ask(services.sessions.open, token),
        max_age=int(LIFETIME_S),
        path=at("/operations"),
        secure=services.proxies.over_tls(request.scope),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/operations/sign-out")
async def sign_out(services: Here, who: Someone, sent: Form) -> Response:
    """End the session."""
    if who is not None:
        require_ours(who, sent)
        await services.ask(services.sessions.close, who.secret)
    answer = RedirectResponse(at("/operations"), 303, headers=HEADERS)
    answer.delete_cookie(COOKIE, path=at("/operations"))
    return answer


@router.post("/operations/act")
async def act(services: Here, who: Someone, sent: Form) -> Response:
    """Do what a button says, and show the page again."""
    if who is None:
        return RedirectResponse(at("/operations"), 303, headers=HEADERS)
    require_ours(who, sent)
    if not who.operator:
        raise Problem("forbidden", "This needs a token of scope operate.")
    what, _, which = sent.get("do", "").partition(":")
    try:
        if what == "ask-retry-cause":
            asked = await _asked(services, who.token, which.replace("\0", ""))
            return await _operations(services, who, said="" if asked else _SAID["nothing"], asked=asked)
        done = await _do(services, who.token, what, which)
    except Problem as problem:
        return await _operations(services, who, said=problem.document["detail"], status=problem.status)
    except StoreUnavailable as error:
        return await _operations(services, who, said=f"Not all of it is done. {error.detail}", status=503)
    return RedirectResponse(at(f"/operations?done={done}"), 303, headers=HEADERS)


@router.get("/operations/live", response_class=EventSourceResponse)
async def live(services: Here, who: Annotated[Visitor, Depends(watching)]) -> AsyncIterable[ServerSentEvent]:
    """What changes on the page, about once a second: one look at the store for all who watch."""
    first, last = None, ""
    async for seen in services.monitor.snapshots():
        first = first or seen  # this one may be older than the session
        if seen is not None and seen is not first and name_of(who.secret) not in seen.sessions:
            return  # signed out, or the token was revoked meanwhile
        rendered = live_part(seen, operator=who.operator)
        if rendered != last:
            last = rendered
            yield ServerSentEvent(raw_data=rendered, event="live")


@router.get("/operations/static/{name}")
async def static(name: str) -> Response:
    """The page's style and script."""
    if name not in _STATIC:
        raise Problem("not-found", "There is nothing of this name.")
    return Response(source_of(name), media_type=_STATIC[name], headers=HEADERS | {"Cache-Control": "no-cache"})


async def _do(services: Services, token: Token, what: str, which: str) -> str:
    """Do *what* to *which*; return the word for what to say of it.

    Raises:
        Problem: it cannot be done.
    """
    if what == "cancel":
        await cancel(services, await known_registration(services, which, token), token)
        return what
    if what == "retry":
        registrations = [await known_registration(services, which, token)]
    elif what == "retry-cause":
        return await _retry_all(services, token, which.replace("\0", ""))
    else:
        raise Problem("malformed-request", "There is no such button.")
    outcomes = await retry(services, registrations, token)
    return what if any(getattr(each, "new", False) for each in outcomes) else "nothing"


async def _retry_all(services: Services, token: Token, cause: str) -> str:
    """Have all tried again that failed for *cause* lately, page by page, but for a bounded number of pages."""
    tried = [each async for each in _pages(services, token, cause, dry_run=False)]
    if tried and tried[-1].next_cursor is not None:
        return "retry-more"
    return "retry-cause" if any(each.retried for each in tried) else "nothing"


async def _asked(services: Services, token: Token, cause: str) -> Question | None:
    """Return what to ask before all are tried again that failed for *cause* lately; None where there are none."""
    number = sum([each.matching async for each in _pages(services, token, cause, dry_run=True)])
    return Question(cause, number) if number else None


async def _pages(services: Services, token: Token, cause: str, *, dry_run: bool) -> AsyncIterator[Retried]:
    cursor, since = None, datetime.now(UTC) - RETRIED_OVER
    for _page_number in range(PAGES_RETRIED):
        try:
            query = RetryQuery(cause=cause, limit=RETRIED_AT_ONCE, cursor=cursor, since=since, dry_run=dry_run)
        except ValidationError:
            return  # nothing fails for what is no cause
        tried = await retry_page(services, query, token)
        yield tried
        cursor = tried.next_cursor
        if cursor is None:
            return


async def _operations(
    services: Services,
    who: Visitor,
    *,
    q: str = "",
    said: str = "",
    status: int = 200,
    asked: Question | None = None,
) -> Response:
    try:
        seen = await services.monitor.now()
        found = await services.ask(_search, services, q.strip()) if q.strip() else []
        actions = await services.ask(lambda: services.actions.list(limit=ACTIONS_SHOWN))
    except StoreUnavailable as error:
        seen, found, actions = None, [], []
        said, status = said or error.detail, 503
    return page(
        "operations.html",
        status=status,
        said=said,
        asked=asked,
        bad=status >= 400,
        live=Markup(live_part(seen, operator=who.operator)),  # noqa: S704  # a template made it, and escaped what is in it
        form=form_token(who.secret),
        label=who.token.label,
        operator=who.operator,
        query=q,
        found=found,
        actions=actions,
        time=time,
    )


def _search(services: Services, query: str) -> list[Registration]:
    """Return what *query* names: a registration, the one that became a plugin, or the newest of a name."""
    if re.fullmatch(ID, query):
        registration = services.store.registration(query) or services.store.registration_of_plugin(query)
        return [registration] if registration else []
    return services.store.registrations(limit=FOUND_SHOWN, filters={"name": query.replace("\0", "")})


def problem_page(request: Request, problem: Problem) -> Response | None:
    """Return *problem* for a person, where it befell one: a browser that asked for a page of this module."""
    if not route_of(request.scope).startswith("/operations") or "text/html" not in request.headers.get("Accept", ""):
        return None
    return page("sign_in.html", status=problem.status, said=problem.document["detail"])
