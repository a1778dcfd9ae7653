"""The operations page: what is wrong, what goes on, and what to do about it; live, and useful without JavaScript.

Whatever a stranger named is escaped by the templates, and a page may load nothing and send nothing
anywhere but here (Content-Security-Policy). Who may act must have signed in, and each act proves that
it was sent by a page of that session. It shows registrations of every name, so no token that is limited
to names opens it (decision 0018).
"""

from collections.abc import AsyncIterable
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup
from starlette.responses import Response

from api.dashboard.acts import SAID
from api.dashboard.rendering import framed, live_part
from api.dashboard.session import sign_in_page
from api.dashboard.visitor import Here, Someone, Visitor, watching
from shared.errors import StoreUnavailable
from shared.store.sessions import name_of

router = APIRouter(include_in_schema=False)

ACTIONS_SHOWN = 10


@router.get("/operations")
async def show(request: Request, services: Here, who: Someone, done: str = "") -> Response:
    """Show the page, or ask who it is for."""
    if who is None:
        return sign_in_page(request)
    said, status = SAID.get(done, ""), 200
    try:
        seen = await services.monitor.now()
        actions = await services.ask(lambda: services.actions.list(limit=ACTIONS_SHOWN))
    except StoreUnavailable as error:
        seen, actions, said, status = None, [], said or error.detail, 503
    live = Markup(live_part(seen, operator=who.operator))  # noqa: S704  # a template made it, and escaped what is in it
    return framed("operations.html", who, "/operations", said=said, status=status, live=live, actions=actions)


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


@router.get("/workers")
async def workers(request: Request, services: Here, who: Someone) -> Response:
    """The workers that were heard of lately, and what each holds."""
    if who is None:
        return sign_in_page(request)
    seen = (await services.monitor.now()).store
    held = {each.id: [it for it in seen.downloads if it.claimed_by == each.id] for each in seen.workers}
    return framed("workers.html", who, "/workers", now=seen.taken_at, workers=seen.workers, held=held)
