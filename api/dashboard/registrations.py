"""The registrations: a list to search and to act on many, and each by itself, for a ticket to link to."""

import re
from collections.abc import AsyncIterable
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from starlette.responses import RedirectResponse, Response

from api.dashboard.acts import SAID
from api.dashboard.rendering import HEADERS, framed, part
from api.dashboard.session import here_of, sign_in_page
from api.dashboard.visitor import Here, Someone, Visitor, watching
from api.http.paging import a_page
from api.http.prefix import at
from api.routes.registrations import RegistrationQuery, known_registration
from api.services import Services
from shared.errors import StoreUnavailable
from shared.registration import ID, Registration, Status
from shared.store.sessions import name_of

router = APIRouter(include_in_schema=False)

SHOWN = 50
ACTIONS_SHOWN = 20


class Asked(BaseModel):
    """What the list is asked for: each may be missing, and what can match nothing is said to."""

    q: str = ""
    status: str = ""
    cause: str = ""
    host: str = ""
    order: str = ""
    cursor: str = ""
    done: str = ""


@router.get("/registrations")
async def registrations(request: Request, services: Here, who: Someone, asked: Annotated[Asked, Query()]) -> Response:
    """Those that the filters leave, in the order that is wanted. An id in the search leads to what it names."""
    if who is None:
        return sign_in_page(request)
    wanted = asked.q.replace("\0", "").strip()[:200]
    if re.fullmatch(ID, wanted) and (found := await _place_of(services, wanted)):
        return RedirectResponse(at(found), 303, headers=HEADERS)
    said = SAID.get(asked.done, "")
    shown: list[Registration] = []
    more = None
    try:
        given = asked.model_dump(include={"status", "cause", "host", "cursor"}, exclude_defaults=True)
        query = RegistrationQuery.model_validate({"limit": SHOWN, **given})
    except ValidationError:
        said = "These filters can match nothing: see how they are written."
    else:
        filters = query.filters | ({"name": wanted} if wanted else {})
        fetch = partial(services.store.registrations, filters=filters, oldest_first=asked.order == "oldest")
        shown, more = await a_page(services.ask, fetch, query, "registration")
    return framed(
        "registrations.html",
        who,
        here_of(request),
        said=said,
        registrations=shown,
        asked={"q": wanted, **asked.model_dump(include={"status", "cause", "host", "order"})},
        more=more or "",
        begun=not asked.cursor,
        statuses=list(Status),
    )


@router.get("/registrations/{registration_id}")
async def registration(
    request: Request, services: Here, who: Someone, registration_id: str, done: str = ""
) -> Response:
    """One registration: what was submitted, what was found, each attempt, and what was done to it."""
    if who is None:
        return sign_in_page(request)
    found = await known_registration(services, registration_id, who.token)
    return framed(
        "registration.html",
        who,
        f"/registrations/{found.id}",
        said=SAID.get(done, ""),
        registration=found,
        live=Markup(await _live(services, found, who)),  # noqa: S704  # a template made it, and escaped what is in it
    )


async def watched(
    registration_id: str, services: Here, who: Annotated[Visitor, Depends(watching)]
) -> tuple[Registration, Visitor]:
    """Return the registration to watch, and for whom: what is wrong has to be told before the stream begins."""
    return await known_registration(services, registration_id, who.token), who


@router.get("/registrations/{registration_id}/live", response_class=EventSourceResponse)
async def live(
    services: Here, found: Annotated[tuple[Registration, Visitor], Depends(watched)]
) -> AsyncIterable[ServerSentEvent]:
    """What changes of it, as it happens, until it is final."""
    registration, who = found
    try:
        async for each in services.following.changes(registration):
            if name_of(who.secret) not in await services.ask(services.sessions.good):
                return  # signed out, or the token was revoked meanwhile
            yield ServerSentEvent(raw_data=await _live(services, each, who), event="live")
            if each.status.final:
                yield ServerSentEvent(raw_data="", event="over")
    except StoreUnavailable:
        return  # which the store tells; the browser asks again


async def _live(services: Services, found: Registration, who: Visitor) -> str:
    """Return the part of the page that changes."""
    attempts = await services.ask(services.store.attempts, found)
    actions = await services.ask(
        lambda: services.actions.list(limit=ACTIONS_SHOWN, filters={"registration_id": found.id})
    )
    paused = await services.ask(services.upstreams.paused, found.host) if not found.status.final else None
    told = {each.epoch: each for each in attempts}
    over = found.epoch - 1 if found.status is Status.VERIFYING else found.epoch
    return part(
        "registration_live.html",
        now=datetime.now(UTC),
        registration=found,
        place=await services.monitor.place_of(found),
        attempts=[(number, told.get(number)) for number in range(max(1, over - 49), over + 1)],
        actions=actions,
        paused=paused,
        operator=who.operator,
    )


async def _place_of(services: Services, some_id: str) -> str | None:
    """Return the page of what *some_id* names, where there is that."""
    if some_id.startswith("plugin-"):
        return f"/plugins/{some_id}" if await services.ask(services.store.plugin, some_id) else None
    return f"/registrations/{some_id}" if await services.ask(services.store.registration, some_id) else None
