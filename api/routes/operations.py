"""What operators do: have registrations tried again or canceled, one or many; and what they did."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal, Self, get_args

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, Field, model_validator
from starlette.responses import Response

from api.http.auth import allowed
from api.http.paging import (
    MAX_HOST_CHARACTERS,
    Cause,
    Host,
    Name,
    PageQuery,
    RegistrationRef,
    Since,
    Text,
    a_page,
    milliseconds,
    refuse_repeats,
)
from api.http.problems import Problem, documented
from api.routes.register import accepted_answer, plugin_answer
from api.routes.registrations import RegistrationView, known_registration
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.explained import explained
from shared.registration import (
    UNREGISTERED,
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
        if each.status not in UNREGISTERED:
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


def _there_is(cause: str) -> str:
    if explained(cause) is None:
        raise ValueError("is no cause: /problems lists all that there are")
    return cause


class RetryQuery(PageQuery):
    """Which failures to try again, newest first, a page at a time. At least a cause, a name or a host is named."""

    cause: Annotated[
        Annotated[Cause, AfterValidator(_there_is)] | None, Field(description="The `cause` they failed for")
    ] = None
    name: Annotated[Name | None, Field(description="The name that was submitted")] = None
    host: Annotated[
        Host | None, Field(description="Host, and port where the URL has one, of their `artifactUrl`")
    ] = None
    since: Since | None = None
    dry_run: Annotated[bool, Field(description="Whether to count them only")] = False

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if self.cause is None and self.name is None and self.host is None:
            raise ValueError("name a cause, a name or a host")
        return self


class Retried(View):
    """What became of one page of failures."""

    matching: int = Field(description="How many of this page were to be tried again")
    retried: list[str] = Field(description="The new registrations")
    joined: int = Field(description="How many were in flight again already")
    standing: int = Field(description="How many names and versions are registered by now")
    next_cursor: str | None = Field(description="For the next page, where there is one")


@router.post(
    "/api/v1/registrations/retry",
    operation_id="RetryRegistrations",
    summary="Try all again that failed for one cause, by one host or name, a page at a time",
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
    registrations = partial(
        services.store.registrations, filters=query.filters, since_ms=milliseconds(query.since), names=token.names
    )
    shown, cursor = await a_page(services.ask, registrations, query, "registration")
    matching = [each for each in shown if each.status in UNREGISTERED]
    outcomes = await retry(services, [] if query.dry_run else matching, token)
    accepted = [each for each in outcomes if isinstance(each, Accepted)]
    new = [each.registration.id for each in accepted if each.new]
    return Retried(
        matching=len(matching),
        retried=list(new),
        joined=len(accepted) - len(new),
        standing=len(outcomes) - len(accepted),
        next_cursor=cursor,
    )


What = Literal[
    "retry",
    "cancel",
    "pause",
    "resume",
    "acknowledge",
    "withdraw",
    "create-token",
    "revoke-token",
    "create-webhook",
    "remove-webhook",
    "rotate-webhook",
    "enable-webhook",
    "redeliver",
]
KINDS_OF_ACTIONS = get_args(What)


class ActionView(View):
    """What an operator did."""

    id: str
    at: Timestamp
    by: str = Field(description="The label of the token")
    what: str = Field(examples=["retry", "cancel", "pause"])
    registration_id: str | None
    became: str | None = Field(description="The registration that a retried one is tried again as")
    subject: str | None = Field(description="What it was done to, where that is no registration")
    note: str | None = Field(description="Why, in their words")


class ActionPage(BaseModel):
    """A page of actions, newest first."""

    items: list[ActionView]
    nextCursor: str | None  # noqa: N815  # the wire's name


class ActionQuery(PageQuery):
    """Filters of the list."""

    registration_id: Annotated[
        RegistrationRef | None, Field(alias="registration", description="Only of this registration")
    ] = None
    what: Annotated[What | None, Field(description="Only of this kind")] = None
    subject: Annotated[
        Text | None, Field(max_length=MAX_HOST_CHARACTERS, description="Only of this host, alert or token")
    ] = None
    by: Annotated[Text | None, Field(max_length=200, description="Only by the token of this label")] = None
    since: Since | None = None


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
    """Who did what, when, and why."""
    refuse_repeats(request)
    actions = partial(
        services.actions.list, filters=query.filters, since_ms=milliseconds(query.since), names=token.names
    )
    shown, cursor = await a_page(services.ask, actions, query, "action")
    return as_json(ActionPage(items=[_action_view(each) for each in shown], nextCursor=cursor))


def _action_view(action: Any) -> ActionView:
    return ActionView.model_validate(action)
