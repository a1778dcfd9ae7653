"""Routes of registrations: where an accepted submission stands, and why it ended."""

from collections.abc import AsyncIterable
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from api.http.auth import allowed, following
from api.http.paging import (
    Cause,
    Host,
    Name,
    PageQuery,
    Since,
    Version,
    a_page,
    known_id,
    milliseconds,
    refuse_repeats,
)
from api.http.prefer import PREFER, Preference
from api.http.problems import Problem, documented, problem_of
from api.live.monitor import QueuePosition
from api.live.waiting import outcome_of
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.registration import Attempted, PluginType, Registration, RegistrationId, Status, Timestamp
from shared.store.tokens import Token

router = APIRouter(tags=["registrations"])


ProblemOrNone = Annotated[
    dict[str, Any] | None,
    WithJsonSchema({"anyOf": [{"$ref": "#/components/schemas/ProblemDocument"}, {"type": "null"}]}),
]
"""A problem as it is sent, whose members the document names."""


class RegistrationView(View):
    """A registration as clients see it: what was submitted, and how far it has come."""

    id: str = Field(examples=["registration-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"])
    status: Status
    attempts: int
    bytes_downloaded: int = Field(description="By the current or last attempt")
    artifact_bytes: int | None = Field(description="What the artifact's host announced")
    created_at: Timestamp
    updated_at: Timestamp
    next_attempt_at: Timestamp | None = Field(description="When a queued one is due")
    plugin_id: str | None = Field(description="The plugin it became")
    retry_of: str | None = Field(description="The registration that this one tries again")
    retried_as: str | None = Field(description="The newest registration that tries this one again")
    problem: ProblemOrNone = Field(description="Why it ended, or why its last attempt failed (RFC 9457)")
    ahead: int | None = Field(None, description="Of one that is queued and due: how many were submitted before it")
    estimated_wait_s: float | None = Field(
        None,
        description="How long these will take at the rate of the last minutes, in seconds; null where none is known",
    )
    paused: bool = Field(False, description="Whether an operator has its host left alone: it waits until that ends")
    name: str
    version: str
    plugin_type: PluginType
    artifact_url: str
    checksum: str
    config_schema: str
    plugin_runtime: str

    @classmethod
    def of(cls, registration: Registration, place: QueuePosition | None = None) -> "RegistrationView":
        """Return the view of *registration*, and of its *place* in the queue where that is known."""
        failure = registration.failure
        return cls.model_construct(  # it was parsed when it was submitted
            id=registration.id,
            status=registration.status,
            attempts=registration.attempts,
            bytes_downloaded=registration.bytes_downloaded,
            artifact_bytes=registration.artifact_bytes,
            created_at=registration.created_at,
            updated_at=registration.updated_at,
            next_attempt_at=registration.next_attempt_at,
            plugin_id=registration.plugin_id,
            retry_of=registration.retry_of,
            retried_as=registration.retried_as,
            ahead=place.ahead if place and not place.paused else None,
            paused=place.paused if place else False,
            estimated_wait_s=place.estimated_wait_s if place else None,
            problem=problem_of(failure, registration.id).document if failure else None,
            **vars(registration.submission),
        )


class RegistrationPage(BaseModel):
    """A page of registrations, newest first."""

    items: list[RegistrationView]
    nextCursor: str | None  # noqa: N815  # the wire's name


class RegistrationQuery(PageQuery):
    """Filters of the list."""

    status: Status | None = None
    name: Name | None = None
    version: Version | None = None
    cause: Cause | None = None
    host: Host | None = None
    since: Since | None = None


@router.get(
    "/api/v1/registrations/{registration_id}",
    operation_id="GetRegistration",
    summary="Where one registration stands",
    openapi_extra={"parameters": [PREFER]},
    response_model=RegistrationView,
    responses=documented(
        "malformed-request",
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "not-found",
        "store-unavailable",
        "internal-error",
    ),
)
async def get_registration(
    registration_id: str,
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "register", "operate"))],
) -> Response:
    """`Prefer: wait=N` holds the answer until the registration is final, for up to N seconds."""
    registration = await known_registration(services, registration_id, token)
    preference = Preference.parse(request.headers.getlist("Prefer"))
    if not registration.status.final:
        settled, preference = await outcome_of(registration.id, services, request, token, preference, default_s=0)
        if settled is not None:
            registration = settled.registration
        elif preference.wait_s(0):  # it may have come further meanwhile
            current = await services.ask(services.store.registration, registration_id)
            registration = current or registration
    place = await services.monitor.place_of(registration)
    return as_json(RegistrationView.of(registration, place), headers=preference.applied)


@router.get(
    "/api/v1/registrations",
    operation_id="ListRegistrations",
    summary="Registrations, newest first",
    response_model=RegistrationPage,
    responses=documented(
        "malformed-request",
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "invalid-fields",
        "store-unavailable",
        "internal-error",
    ),
)
async def list_registrations(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "operate"))],
    query: Annotated[RegistrationQuery, Query()],
) -> Response:
    """Filter by status, cause, host, name (as uniqueness sees it), version, and when they were submitted."""
    refuse_repeats(request)
    registrations = partial(
        services.store.registrations, filters=query.filters, since_ms=milliseconds(query.since), names=token.names
    )
    shown, cursor = await a_page(services.ask, registrations, query, "registration")
    items = [RegistrationView.of(each) for each in shown]
    return as_json(RegistrationPage(items=items, nextCursor=cursor))


class AttemptView(View):
    """One attempt that is over."""

    number: int = Field(description="Which claim it was; of one that is missing its worker told nothing")
    begun_at: Timestamp
    ended_at: Timestamp
    worker: str | None
    bytes_downloaded: int
    hops: list[str] = Field(description="Where redirects led, without queries")
    problem: ProblemOrNone = Field(description="Why it failed (RFC 9457); null of what registered it")

    @classmethod
    def of(cls, attempt: Attempted, registration_id: RegistrationId) -> "AttemptView":
        """Return the view of an *attempt* at a registration."""
        return cls(
            number=attempt.epoch,
            begun_at=attempt.begun_at,
            ended_at=attempt.ended_at,
            worker=attempt.worker,
            bytes_downloaded=attempt.trip.bytes_downloaded,
            hops=list(attempt.trip.hops),
            problem=problem_of(attempt.failure, registration_id).document if attempt.failure else None,
        )


class AttemptList(BaseModel):
    """The attempts at one registration, the first one first."""

    items: list[AttemptView]


@router.get(
    "/api/v1/registrations/{registration_id}/attempts",
    operation_id="ListAttempts",
    summary="The attempts at one registration that are over",
    response_model=AttemptList,
    responses=documented(
        "malformed-request",
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "not-found",
        "store-unavailable",
        "internal-error",
    ),
)
async def list_attempts(
    registration_id: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "register", "operate"))],
) -> Response:
    """When each began and ended, what it was led to, how many bytes arrived, and why it failed."""
    registration = await known_registration(services, registration_id, token)
    attempts = await services.ask(services.store.attempts, registration)
    return as_json(AttemptList(items=[AttemptView.of(each, registration.id) for each in attempts]))


async def known_registration(services: Services, registration_id: str, token: Token) -> Registration:
    """Return the registration of this id, if *token* may read it.

    Raises:
        Problem: 404, there is none; and where it is of a name that *token* is not for, it is told the same.
    """
    registration = await services.ask(services.store.registration, known_id(registration_id))
    if registration is None or not token.may_use_name(registration.submission.name):
        raise Problem("not-found", "There is no registration of this id.")
    return registration


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
    responses=documented(
        "malformed-request",
        "unauthorized",
        "forbidden",
        "too-many-requests",
        "not-found",
        "store-unavailable",
        "internal-error",
    ),
)
async def follow_registration(
    services: Annotated[Services, Depends(services_of)],
    registration: Annotated[Registration, Depends(followed)],
) -> AsyncIterable[ServerSentEvent]:
    """Server-sent events: `progress` with the registration as it stands, whenever it changes; last `outcome`."""
    async for each in services.following.changes(registration):
        view = RegistrationView.of(each, await services.monitor.place_of(each))
        yield ServerSentEvent(raw_data=view.model_dump_json(), event="outcome" if each.status.final else "progress")
