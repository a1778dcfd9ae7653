"""The operations page: rendered here, live through server-sent events, useful without JavaScript.

Whatever a stranger named is escaped by the templates, and the page may load nothing and send nothing
anywhere but here (Content-Security-Policy). Who may act must have signed in, and each act proves that
it was sent by a page of that session. It shows registrations of every name, so no token that is limited
to names opens it (decision 0018).
"""

import hmac
import re
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from api.dashboard.chart import chart
from api.http.auth import require_every_name
from api.http.body import read_body
from api.http.origin import from_our_page
from api.http.problems import Problem
from api.live.monitor import Snapshot
from api.routes.operations import RetryQuery, cancel, retry, retry_page
from api.routes.registrations import known_registration
from api.services import Services, services_of
from shared.errors import StoreUnavailable
from shared.registration import ID, Registration, host_of, rfc3339
from shared.store.sessions import LIFETIME_S, form_token, name_of
from shared.store.snapshot import StoreSnapshot
from shared.store.tokens import Token

if TYPE_CHECKING:
    from jinja2 import Environment

router = APIRouter(include_in_schema=False)

COOKIE = "plugin_registry_session"
MAX_FORM_BYTES = 4096
FOUND_SHOWN = 20
ACTIONS_SHOWN = 10
RETRIED_AT_ONCE = 200
PAGES_RETRIED = 20
_STATIC = {"operations.css": "text/css", "operations.js": "text/javascript"}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer a browser hides the Origin of our own forms too
    "Cache-Control": "no-store",
}
_SAID = {
    "retry": "It is tried again, as a new registration.",
    "cancel": "It is canceled.",
    "retry-cause": "They are tried again, as new registrations.",
    "retry-more": "The newest 4,000 are tried again; `plugin-registry retry --cause` takes all there are.",
    "nothing": "There is nothing to try again: it is registered, or in flight, by now.",
}


@cache
def _templates() -> "Environment":
    """Return the templates. They are loaded for the first who looks: an api that nobody looks at needs none."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=PackageLoader("api", "dashboard/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True)
class Visitor:
    """Who looks: the token that signed in, and the secret of the session."""

    token: Token
    secret: str

    @property
    def operator(self) -> bool:
        """Whether this one may act, and not only look."""
        return "operate" in self.token.scopes


async def visitor(request: Request, services: Annotated[Services, Depends(services_of)]) -> Visitor | None:
    """Return who looks, if somebody signed in whose token is still good, and may see every name."""
    secret = request.cookies.get(COOKIE, "")
    token = await services.ask(services.sessions.whose, secret) if secret else None
    if token is None or token.names:
        return None
    services.caps.request(request.scope, token.id)
    return Visitor(token, secret)


async def form(request: Request) -> Mapping[str, str]:
    """Return the fields of the form that was sent, by a page of ours.

    Raises:
        Problem: 403, a browser says that it was another site's.
    """
    if not from_our_page(request.headers):
        raise Problem(
            "forbidden",
            "This form was sent by another site's page, or a proxy in front of the registry changed the Host header: "
            "then have it passed on as the browser sent it.",
        )
    body = await read_body(request, max_bytes=MAX_FORM_BYTES)
    return dict(parse_qsl(body.decode("utf-8", "replace")))


async def signed_in(who: Annotated[Visitor | None, Depends(visitor)]) -> Visitor:
    """Return who looks.

    Raises:
        Problem: 401, nobody signed in; a browser then does not ask for this stream again.
    """
    if who is None:
        raise Problem("unauthorized", "Sign in at /operations.")
    return who


async def watching(
    request: Request, services: Annotated[Services, Depends(services_of)], who: Annotated[Visitor, Depends(signed_in)]
) -> Visitor:
    """Return who looks, and counts as one more event stream of that token for as long as it lasts."""
    services.caps.stream(request.scope, who.token.id)
    return who


Someone = Annotated[Visitor | None, Depends(visitor)]
Here = Annotated[Services, Depends(services_of)]
Form = Annotated[Mapping[str, str], Depends(form)]


@router.get("/operations")
async def show(services: Here, who: Someone, q: str = "", done: str = "") -> Response:
    """Show the page, or ask who it is for."""
    if who is None:
        return _page("sign_in.html", said="")
    return await _operations(services, who, q=q[:100], said=_SAID.get(done, ""))


@router.post("/operations/sign-in")
async def sign_in(request: Request, services: Here, sent: Form) -> Response:
    """Begin a session for whoever sends a token of scope read or operate."""
    token = await services.token_lookup.whose(sent.get("token", "").strip())
    if token is None or token.scopes.isdisjoint({"read", "operate"}):
        services.throttle.bad_token_from(services.proxies.client(request.scope))
        said = "This token does not open this page: it may be mistyped, expired, revoked or of another scope."
        return _page("sign_in.html", status=403, said=said)
    services.throttle.request_with(token.id)
    require_every_name(token)
    answer = RedirectResponse("/operations", 303, headers=_HEADERS)
    answer.set_cookie(
        COOKIE,
        await services.ask(services.sessions.open, token),
        max_age=int(LIFETIME_S),
        path="/operations",
        secure=services.proxies.over_tls(request.scope),
        httponly=True,
        samesite="strict",
    )
    return answer


@router.post("/operations/sign-out")
async def sign_out(services: Here, who: Someone, sent: Form) -> Response:
    """End the session."""
    if who is not None:
        _require_ours(who, sent)
        await services.ask(services.sessions.close, who.secret)
    answer = RedirectResponse("/operations", 303, headers=_HEADERS)
    answer.delete_cookie(COOKIE, path="/operations")
    return answer


@router.post("/operations/act")
async def act(services: Here, who: Someone, sent: Form) -> Response:
    """Do what a button says, and show the page again."""
    if who is None:
        return RedirectResponse("/operations", 303, headers=_HEADERS)
    _require_ours(who, sent)
    if not who.operator:
        raise Problem("forbidden", "This needs a token of scope operate.")
    what, _, which = sent.get("do", "").partition(":")
    try:
        done = await _do(services, who.token, what, which)
    except Problem as problem:
        return await _operations(services, who, said=problem.document["detail"], status=problem.status)
    except StoreUnavailable as error:
        return await _operations(services, who, said=f"Not all of it is done. {error.detail}", status=503)
    return RedirectResponse(f"/operations?done={done}", 303, headers=_HEADERS)


@router.get("/operations/live", response_class=EventSourceResponse)
async def live(services: Here, who: Annotated[Visitor, Depends(watching)]) -> AsyncIterable[ServerSentEvent]:
    """What changes on the page, about once a second: one look at the store for all who watch."""
    first, last = None, ""
    async for seen in services.monitor.snapshots():
        first = first or seen  # this one may be older than the session
        if seen is not None and seen is not first and name_of(who.secret) not in seen.sessions:
            return  # signed out, or the token was revoked meanwhile
        rendered = _live(seen, operator=who.operator)
        if rendered != last:
            last = rendered
            yield ServerSentEvent(raw_data=rendered, event="live")


@router.get("/operations/static/{name}")
async def static(name: str) -> Response:
    """The page's style and script."""
    if name not in _STATIC:
        raise Problem("not-found", "There is nothing of this name.")
    source, _filename, _fresh = _templates().loader.get_source(_templates(), name)  # type: ignore[union-attr]  # it has one
    return Response(source, media_type=_STATIC[name], headers=_HEADERS | {"Cache-Control": "no-cache"})


def _require_ours(who: Visitor, sent: Mapping[str, str]) -> None:
    """Make sure that a form was made for this session.

    Raises:
        Problem: 403.
    """
    if not hmac.compare_digest(sent.get("form", "").encode(), form_token(who.secret).encode()):
        raise Problem("forbidden", "This form is not of your session: load the page again, and press once more.")


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
    """Have all tried again that failed for *cause*, page by page, but for a bounded number of pages."""
    cursor, new = None, 0
    for _page_number in range(PAGES_RETRIED):
        try:
            query = RetryQuery(cause=cause, limit=RETRIED_AT_ONCE, cursor=cursor)
        except ValidationError:
            return "nothing"  # nothing fails for what is no cause
        page = await retry_page(services, query, token)
        new += len(page.retried)
        cursor = page.next_cursor
        if cursor is None:
            return "retry-cause" if new else "nothing"
    return "retry-more"


async def _operations(
    services: Services, who: Visitor, *, q: str = "", said: str = "", status: int = 200
) -> Response:
    try:
        seen = await services.monitor.now()
        found = await services.ask(_search, services, q.strip()) if q.strip() else []
        actions = await services.ask(lambda: services.store.actions(limit=ACTIONS_SHOWN))
    except StoreUnavailable as error:
        seen, found, actions = None, [], []
        said, status = said or error.detail, 503
    return _page(
        "operations.html",
        status=status,
        said=said,
        bad=status >= 400,
        live=Markup(_live(seen, operator=who.operator)),  # noqa: S704  # a template made it, and escaped what is in it
        form=form_token(who.secret),
        label=who.token.label,
        operator=who.operator,
        query=q,
        found=found,
        actions=actions,
        time=_time,
    )


def _search(services: Services, query: str) -> list[Registration]:
    """Return what *query* names: a registration, the one that became a plugin, or the newest of a name."""
    if re.fullmatch(ID, query):
        registration = services.store.registration(query) or services.store.registration_of_plugin(query)
        return [registration] if registration else []
    return services.store.registrations(limit=FOUND_SHOWN, filters={"name": query.replace("\0", "")})


def _live(seen: Snapshot | None, *, operator: bool) -> str:
    """Return the part of the page that changes, rendered once for all who look at the same time."""
    if seen is not None and operator in seen.rendered:
        return seen.rendered[operator]
    rendered = (
        _templates()
        .get_template("live.html")
        .render(
            seen=seen,
            operator=operator,
            time=_time,
            size=_size,
            speed=_speed,
            host=_host,
            quiet_s=_quiet_s,
            causes=_causes,
            chart=chart,
        )
    )
    if seen is not None:
        seen.rendered[operator] = rendered
    return rendered


def _page(template: str, *, status: int = 200, **values: Any) -> Response:
    rendered = _templates().get_template(template).render(**values)
    return Response(rendered, status, headers=_HEADERS, media_type="text/html")


def _time(moment: datetime) -> Markup:
    return Markup('<time datetime="{}">{}</time>').format(rfc3339(moment), moment.strftime("%b %d %H:%M:%S"))


def _size(number: int) -> str:
    return f"{number / 2**20:.1f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def _speed(download: Registration) -> str:
    """Return the average since the claim."""
    if download.claimed_at is None or download.progressed_at is None or not download.bytes_downloaded:
        return ""
    taken_s = max(0.001, (download.progressed_at - download.claimed_at).total_seconds())
    return f"{_size(int(download.bytes_downloaded / taken_s))}/s"


def _quiet_s(snapshot: StoreSnapshot, download: Registration) -> float:
    return (snapshot.taken_at - (download.progressed_at or download.updated_at)).total_seconds()


def _host(download: Registration) -> str:
    return host_of(download.submission.artifact_url)


def _causes(snapshot: StoreSnapshot) -> list[str]:
    return sorted({each.failure.cause for each in snapshot.failures if each.failure is not None})


def problem_page(request: Request, problem: Problem) -> Response | None:
    """Return *problem* for a person, where it befell one: a browser that asked for a page of this module."""
    if not request.scope["path"].startswith("/operations") or "text/html" not in request.headers.get("Accept", ""):
        return None
    return _page("sign_in.html", status=problem.status, said=problem.document["detail"])
