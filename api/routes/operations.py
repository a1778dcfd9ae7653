"""Routes of operators: what is going on, and having registrations tried again or canceled."""

from collections.abc import AsyncIterable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.auth import allowed, following, require_every_name
from api.http.paging import PageQuery, Text, a_page, refuse_repeats
from api.http.problems import Problem, documented
from api.live.monitor import Snapshot
from api.routes.plugins import accepted_answer, plugin_answer
from api.routes.registrations import RegistrationView, as_json, known_registration
from api.services import Services, services_of
from shared.registration import (
    RETRYABLE,
    Accepted,
    AlreadyRegistered,
    Operator,
    Outcome,
    OverQuota,
    Plugin,
    Registration,
    Status,
    Taken,
    Timestamp,
)
from shared.store.tokens import Token

router = APIRouter(tags=["operations"])

_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")


class _View(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True, from_attributes=True
    )


class WorkerView(_View):
    """A worker process."""

    id: str
    max_downloads: int = Field(description="How many downloads it may hold")
    holding: int
    started_at: Timestamp
    seen_at: Timestamp
    alive: bool


class UpstreamView(_View):
    """An upstream host, in this hour and the one before."""

    host: str
    settled: int
    failed: int
    verifying_s: float | None = Field(description="Average from the claim to the outcome")
    downloading: int
    stalled: int


class MinuteView(_View):
    """What settled in one minute."""

    begun_at: Timestamp
    registered: int
    failed: int


class SnapshotView(_View):
    """What somebody on call wants to know."""

    taken_at: Timestamp
    registrations: dict[Status, int] = Field(description="How many of each status the store holds")
    oldest_due_s: float | None = Field(description="How long the longest waits that could be claimed")
    messages_waiting: int | None = Field(description="Messages in the broker; null where it does not answer")
    settled_a_second: float
    retrying: dict[str, int] = Field(description="Queued ones whose last attempt failed, by cause")
    swept_s_ago: float | None = Field(description="How long ago the sweep ran")
    alerts: list[str] = Field(description="What is wrong, in sentences; empty when nothing is")
    workers: list[WorkerView]
    upstreams: list[UpstreamView] = Field(description="The ten worst")
    minutes: list[MinuteView]
    downloads: list[RegistrationView] = Field(description="The oldest claims first, fifty at most")
    failures: list[RegistrationView]

    @classmethod
    def of(cls, seen: Snapshot) -> Self:
        """Return the view of what was *seen*."""
        snapshot = seen.store
        return cls(
            taken_at=snapshot.taken_at,
            registrations=seen.registrations,
            oldest_due_s=snapshot.oldest_due_s,
            messages_waiting=seen.messages_waiting,
            settled_a_second=round(snapshot.settled_a_second, 3),
            retrying=dict(snapshot.retrying),
            swept_s_ago=snapshot.swept_s_ago,
            alerts=seen.alerts,
            workers=[WorkerView(**asdict(each)) for each in snapshot.workers],
            upstreams=[UpstreamView(**asdict(each)) for each in snapshot.upstreams],
            minutes=[MinuteView(**asdict(each)) for each in snapshot.minutes],
            downloads=[RegistrationView.of(each) for each in snapshot.downloads[:50]],
            failures=[RegistrationView.of(each) for each in snapshot.failures],
        )


@router.get(
    "/api/v1/snapshot",
    operation_id="GetSnapshot",
    summary="What is going on, and what is wrong",
    response_model=SnapshotView,
    responses=documented(*_REFUSALS, *_SURPRISES),
)
async def get_snapshot(
    services: Annotated[Services, Depends(services_of)], token: Annotated[Token, Depends(allowed("read", "operate"))]
) -> Response:
    """From the store and the broker, at most about a second old. For tokens that are not limited to names."""
    require_every_name(token)
    return as_json(SnapshotView.of(await services.monitor.now()))


# --- one registration ---------------------------------------------------------------------------


async def followed(
    registration_id: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(following("read", "register", "operate"))],
) -> Registration:
    """Return the registration to follow: what is wrong has to be told before the stream begins."""
    return await known_registration(services, registration_id, token)


@router.get(
    "/api/v1/registrations/{registration_id}/events",
    operation_id="FollowRegistration",
    summary="The progress and the outcome of one registration, as they happen",
    response_class=EventSourceResponse,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def follow_registration(
    services: Annotated[Services, Depends(services_of)],
    registration: Annotated[Registration, Depends(followed)],
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: `progress` with the registration as it stands, whenever it changes; last `outcome`."""
    async for each in services.following.changes(registration):
        view = RegistrationView.of(each, await services.monitor.place_of(each))
        yield ServerSentEvent(raw_data=view.model_dump_json(), event="outcome" if each.status.final else "progress")


@router.post(
    "/api/v1/registrations/{registration_id}/retry",
    operation_id="RetryRegistration",
    summary="Try a failed, rejected or canceled registration again",
    status_code=202,
    response_model=RegistrationView,
    responses={
        200: {"model": Plugin, "description": "It is registered by now: the plugin"},
        **documented(*_REFUSALS, "not-found", "conflict", "wrong-state", *_SURPRISES),
    },
)
async def retry_registration(
    registration_id: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
) -> Response:
    """The same submission becomes a new registration, with `retryOf` and attempts of its own; the old one stays."""
    (outcome,) = await retry(services, [await known_registration(services, registration_id, token)], token)
    if isinstance(outcome, AlreadyRegistered):
        return plugin_answer(outcome.plugin)
    assert not isinstance(outcome, OverQuota)  # noqa: S101  # what an operator has retried is not counted
    if isinstance(outcome, Taken):
        raise outcome.conflict
    return accepted_answer(outcome.registration)


@router.post(
    "/api/v1/registrations/{registration_id}/cancel",
    operation_id="CancelRegistration",
    summary="Cancel a registration that is queued or being verified",
    response_model=RegistrationView,
    responses=documented(*_REFUSALS, "not-found", "wrong-state", *_SURPRISES),
)
async def cancel_registration(
    registration_id: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
) -> Response:
    """Its download stops within seconds, and its name is free again. To cancel it twice does no harm."""
    registration = await known_registration(services, registration_id, token)
    return as_json(RegistrationView.of(await cancel(services, registration, token)))


async def retry(services: Services, registrations: Sequence[Registration], token: Token) -> list[Outcome]:
    """Have *registrations* tried again, which whoever has *token* may read.

    Raises:
        Problem: 409, one of them did not fail.
    """
    for each in registrations:
        if each.status not in RETRYABLE:
            raise Problem(
                "wrong-state", f"It is {each.status}: only what failed, was rejected or canceled is tried again."
            )
    outcomes = await services.ask(services.store.retry, registrations, Operator(token.label, token.id))
    services.ring([each.registration.id for each in outcomes if isinstance(each, Accepted) and each.new])
    return outcomes


async def cancel(services: Services, registration: Registration, token: Token) -> Registration:
    """Have *registration*, which whoever has *token* may read, canceled, and return it as it is then.

    Raises:
        Problem: 409, it was final before.
    """
    canceled = await services.ask(services.store.cancel, registration.id, Operator(token.label, token.id))
    if canceled is None:
        canceled = await services.ask(services.store.registration, registration.id) or registration
        if canceled.status is not Status.CANCELED:
            raise Problem("wrong-state", f"It is {canceled.status} already, and that never changes.")
    return canceled


# --- many at once -------------------------------------------------------------------------------


class RetryQuery(PageQuery):
    """Which failures to try again, newest first, a page at a time."""

    cause: Annotated[Text, Field(min_length=1, max_length=100, description="The `cause` they failed for")]


class Retried(_View):
    """What became of one page of failures."""

    retried: list[str] = Field(description="The new registrations")
    joined: int = Field(description="How many were in flight again already")
    standing: int = Field(description="How many names and versions are registered by now")
    next_cursor: str | None = Field(description="For the next page, where there is one")


@router.post(
    "/api/v1/registrations/retry",
    operation_id="RetryRegistrations",
    summary="Try all again that failed for one cause, a page at a time",
    response_model=Retried,
    responses=documented(*_REFUSALS, "invalid-fields", *_SURPRISES),
)
async def retry_registrations(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
    query: Annotated[RetryQuery, Query()],
) -> Response:
    """Those in flight again, and those registered by now, are left alone; so it does no harm to ask twice."""
    refuse_repeats(request)
    return as_json(await retry_page(services, query, token))


async def retry_page(services: Services, query: RetryQuery, token: Token) -> Retried:
    """Have the page of failures tried again that *query* asks for, as far as *token* may read them."""
    registrations = partial(services.store.registrations, filters={"cause": query.cause}, names=token.names)
    shown, cursor = await a_page(services.ask, registrations, query, "registration")
    outcomes = await retry(services, [each for each in shown if each.status in RETRYABLE], token)
    accepted = [each for each in outcomes if isinstance(each, Accepted)]
    new = [each.registration.id for each in accepted if each.new]
    return Retried(
        retried=list(new),
        joined=len(accepted) - len(new),
        standing=len(outcomes) - len(accepted),
        next_cursor=cursor,
    )


class ActionView(_View):
    """What an operator did."""

    id: str
    at: Timestamp
    by: str = Field(description="The label of the token")
    what: str = Field(examples=["retry", "cancel"])
    registration_id: str
    became: str | None = Field(description="The registration that a retried one is tried again as")


class ActionPage(BaseModel):
    """A page of actions, newest first."""

    items: list[ActionView]
    nextCursor: str | None  # noqa: N815  # the wire's name


class ActionQuery(PageQuery):
    """Filters of the list."""

    registration: Annotated[Text | None, Field(max_length=100, description="Only of this registration")] = None


@router.get(
    "/api/v1/actions",
    operation_id="ListActions",
    summary="What operators did, newest first",
    response_model=ActionPage,
    responses=documented(*_REFUSALS, "invalid-fields", *_SURPRISES),
)
async def list_actions(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "operate"))],
    query: Annotated[ActionQuery, Query()],
) -> Response:
    """Who had what tried again or canceled, and when."""
    refuse_repeats(request)
    actions = partial(services.store.actions, registration_id=query.registration, names=token.names)
    shown, cursor = await a_page(services.ask, actions, query, "action")
    return as_json(ActionPage(items=[_action_view(each) for each in shown], nextCursor=cursor))


def _action_view(action: Any) -> ActionView:
    return ActionView.model_validate(action)
