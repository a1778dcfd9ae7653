"""The feed: what became of registrations, told once, in one order; to be read by page, or followed."""

import asyncio
from collections.abc import AsyncIterable
from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.auth import allowed, following
from api.http.paging import refuse_repeats
from api.http.problems import Problem, documented
from api.routes.views import View
from api.services import Services, services_of
from shared.errors import Fault
from shared.registration import PluginType, Timestamp
from shared.store.events import Moved
from shared.store.tokens import Token

router = APIRouter(tags=["events"])

_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")
MAX_SEQ = 2**63 - 1
MAX_DIGITS = 18
STREAM_S = 300.0
EventType = Literal[
    "registration.registered", "registration.rejected", "registration.failed", "registration.canceled"
]


class EventData(View):
    """What an event is about: a registration that ended, and what became of it. No URL is in it."""

    registration_id: str
    plugin_id: str | None = Field(description="The plugin it became")
    name: str
    version: str
    plugin_type: PluginType
    checksum: str
    code: str | None = Field(description="Why it became none, as in its problem")
    cause: str | None
    fault: Fault | None
    retryable: bool | None


class EventView(View):
    """One event, as the feed and webhooks tell it."""

    seq: int = Field(description="Its place in the feed, without gaps", examples=[17])
    id: str = Field(examples=["event-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"])
    type: EventType
    timestamp: Timestamp = Field(description="When it happened")
    data: EventData


class EventList(View):
    """A page of the feed, the oldest first."""

    items: list[EventView]
    newest: int = Field(description="The `seq` of the newest event there is")
    next_after: int = Field(description="What to send as `after` for what comes then, whether or not there was any")


class EventQuery(BaseModel):
    """The query of the feed."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True)

    after: Annotated[int, Field(ge=0, le=MAX_SEQ)] | None = Field(
        None, description="Only events after this `seq`; left out, all that are kept"
    )
    limit: Annotated[int, Field(ge=1, le=500, description="How many to return at most")] = 100


class FollowQuery(BaseModel):
    """The query of the stream."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int, Field(ge=0, le=MAX_SEQ)] | None = Field(
        None, description="Begin after this `seq`; left out, with what comes from now on"
    )


@router.get(
    "/api/v1/events",
    operation_id="ListEvents",
    summary="What became of registrations, the oldest first",
    response_model=EventList,
    responses=documented(*_REFUSALS, "invalid-fields", "events-gone", *_SURPRISES),
)
async def list_events(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "operate"))],
    query: Annotated[EventQuery, Query()],
) -> Response:
    """Every registration that ends has one event. Ask with `after` what `nextAfter` said, and none is missed."""
    refuse_repeats(request)
    try:
        page = await services.ask(services.events.after, query.after, limit=query.limit, names=token.names)
    except Moved as moved:
        raise _gone(moved) from None
    documents = ",".join(each.document for each in page.events)
    text = f'{{"items":[{documents}],"nextAfter":{page.next_after},"newest":{page.newest}}}'
    return Response(text, media_type="application/json")


async def _begin(
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(following("read", "operate"))],
    query: Annotated[FollowQuery, Query()],
    last_event_id: Annotated[
        str | None, Header(description="The `id` of the last event that was read (the HTML standard, section 9.2)")
    ] = None,
) -> tuple[int, Token]:
    """Return after which event a stream begins: what is wrong has to be told before that."""
    after = query.after
    if last_event_id:
        if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= MAX_DIGITS):
            raise Problem("malformed-request", "Last-Event-ID must be the id of an event of this feed, a number.")
        after = int(last_event_id)
    if after is None:
        return await services.ask(services.events.newest), token
    try:
        await services.ask(services.events.after, after, limit=1)
    except Moved as moved:
        raise _gone(moved) from None
    return after, token


@router.get(
    "/api/v1/events/stream",
    operation_id="FollowEvents",
    summary="What becomes of registrations, as it happens",
    response_class=EventSourceResponse,
    responses=documented(*_REFUSALS, "invalid-fields", "events-gone", *_SURPRISES),
)
async def follow_events(
    services: Annotated[Services, Depends(services_of)],
    begun: Annotated[tuple[int, Token], Depends(_begin)],
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events, each with its `seq` as its id: who comes again with `Last-Event-ID` goes on there.

    An id without data, at the beginning and where events are not for this token, says how far the stream has come. It
    ends after some minutes, so that no token is believed for longer.
    """
    after, token = begun
    yield ServerSentEvent(id=str(after))
    pages = services.feed.follow(after, token.names)
    with suppress(TimeoutError):
        async with asyncio.timeout(STREAM_S):
            async for page in pages:
                for each in page.events:
                    yield ServerSentEvent(raw_data=each.document, event=each.kind, id=str(each.seq))
                if not page.events or page.events[-1].seq != page.next_after:
                    yield ServerSentEvent(id=str(page.next_after))


def _gone(moved: Moved) -> Problem:
    some = moved.oldest <= moved.newest
    has = f"has the events {moved.oldest} to {moved.newest}" if some else f"has none after number {moved.newest}"
    return Problem(
        "events-gone",
        f"There is no going on from there: the feed {has}. Older ones are "
        "not kept; and where there are fewer than you have seen, the store was restored from a backup. Look at the "
        "registrations you wait for, and begin anew without `after`.",
    )
