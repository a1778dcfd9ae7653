"""Webhooks: URLs that are told of events, by the Standard Webhooks specification; for operators."""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Self, TypeVar

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response
from uuid_utils import uuid7

from api.http.auth import allowed, require_every_name
from api.http.body import fields
from api.http.paging import PageQuery, a_page, known_id, refuse_repeats
from api.http.problems import Problem, documented, problem_of
from api.routes.events import EventType
from api.routes.tokens import Pattern
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.characters import NO_HIDDEN
from shared.egress import MAX_URL_CHARACTERS
from shared.errors import Rejected
from shared.registration import Operator, Timestamp, rfc3339
from shared.store.keys import FOR_WEBHOOKS
from shared.store.tokens import MAX_LABEL_CHARACTERS, MAX_PATTERNS, Token, parse_label
from shared.store.webhooks import KINDS, MAX_WEBHOOKS, TEST, Delivery, NotToRotate, TooManyWebhooks, Webhook

router = APIRouter(tags=["webhooks"])

Found = TypeVar("Found")

_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")


async def operator(token: Annotated[Token, Depends(allowed("operate"))]) -> Token:
    """Return who asks: a hook may be told of every name, so its maker may not be limited to some."""
    require_every_name(token, what="Webhooks are made, shown and changed for every name", instead="Use")
    return token


class WebhookWanted(BaseModel):
    """The body of CreateWebhook."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, use_attribute_docstrings=True)

    url: Annotated[str, Field(min_length=1, max_length=MAX_URL_CHARACTERS)] = Field(
        examples=["https://hooks.example.com/plugins"]
    )
    """Where events are sent, by POST. It must lead where artifacts may be fetched from, too."""
    label: Annotated[str, Field(max_length=MAX_LABEL_CHARACTERS), AfterValidator(parse_label)] = Field(
        "", examples=["deploy bot"], json_schema_extra={"pattern": NO_HIDDEN}
    )
    """Whose it is."""
    types: Annotated[list[EventType], Field(min_length=1, max_length=len(KINDS))] = Field(
        default_factory=list, examples=[["registration.registered"]]
    )
    """Only events of these types. Left out, all."""
    names: Annotated[list[Pattern], Field(min_length=1, max_length=MAX_PATTERNS)] = Field(
        default_factory=list, examples=[["nginx-*"]]
    )
    """Only of plugins named like one of these. Left out, all."""
    secret: bool = True
    """Whether to sign with a secret as well (`v1`), which is shown once; else only the own key signs (`v1a`)."""


class WebhookView(View):
    """A webhook. Its secret is not told again, nor the query of its URL."""

    id: str
    url: str = Field(description="Without its query, which may be a secret")
    label: str
    types: list[str] = Field(description="None of them means all")
    names: list[str] = Field(description="None of them means all")
    signatures: list[str] = Field(description="`v1` with its secret, `v1a` with the registry's key")
    created_at: Timestamp
    created_by: str
    failing_since: Timestamp | None = Field(description="Since when nothing could be delivered")
    disabled_at: Timestamp | None
    disabled_why: str | None

    @classmethod
    def of(cls, hook: Webhook) -> Self:
        """Return the view of *hook*."""
        return cls(
            id=hook.id,
            url=shown_url(hook),
            label=hook.label,
            types=list(hook.kinds),
            names=list(hook.names),
            signatures=["v1", "v1a"] if hook.signed_with_secret else ["v1a"],
            created_at=hook.created_at,
            created_by=hook.created_by,
            failing_since=hook.failing_since,
            disabled_at=hook.disabled_at,
            disabled_why=hook.disabled_why,
        )


class NewWebhookView(WebhookView):
    """A webhook that was just made, or has a new secret."""

    secret: str | None = Field(None, description="`whsec_...`, shown this once")


class WebhookList(View):
    """All webhooks, the oldest first."""

    items: list[WebhookView]


class DeliveryView(View):
    """What became of telling one webhook of one event."""

    id: str
    event_id: str
    type: str = Field(validation_alias="kind")
    created_at: Timestamp
    due_at: Timestamp | None = Field(description="When it is tried next; null when it is over")
    failures: int = Field(description="How many trials failed")
    tried_at: Timestamp | None
    status: int | None = Field(description="What was answered last")
    error: str | None
    delivered_at: Timestamp | None


class DeliveryPage(View):
    """A page of deliveries, newest first."""

    items: list[DeliveryView]
    next_cursor: str | None


class DeliveryQuery(PageQuery):
    """The query of a webhook's deliveries."""

    open: bool = Field(False, description="Only those that are not over")


class KeyView(View):
    """A key that the registry signs with."""

    id: str
    use: str
    algorithm: str
    public_key: str
    created_at: Timestamp


class KeyList(View):
    """The keys that the registry signs with."""

    keys: list[KeyView]


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": WebhookWanted.model_json_schema(by_alias=True)}},
    }
}
_ONCE = {"Cache-Control": "no-store"}


@router.post(
    "/api/v1/webhooks",
    operation_id="CreateWebhook",
    summary="Have a URL be told of events",
    status_code=201,
    response_model=NewWebhookView,
    responses=documented(
        *("malformed-json", *_REFUSALS, "wrong-state", "body-too-large", "unsupported-media-type"),
        *("invalid-fields", "forbidden-url", "forbidden-address", *_SURPRISES),
    ),
    openapi_extra=_BODY,
)
async def create_webhook(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    by: Annotated[Token, Depends(operator)],
) -> Response:
    """It is told of what happens from now on: at least once, in any order, signed as Standard Webhooks says."""
    wanted = await fields(request, services, WebhookWanted, "a webhook")
    try:
        services.settings.egress.check_url(wanted.url, what="url")
    except Rejected as error:
        raise problem_of(error.failure(), errors=[{"pointer": "#/url", "detail": error.detail}]) from error
    try:
        hook, secret = await services.ask(
            services.webhooks.create,
            wanted.url,
            Operator(by.label, by.id),
            label=wanted.label,
            kinds=list(dict.fromkeys(wanted.types)),
            names=wanted.names,
            secret=wanted.secret,
        )
    except TooManyWebhooks:
        raise Problem(
            "wrong-state", f"There are {MAX_WEBHOOKS} webhooks, which is all there may be: remove one first."
        ) from None
    return _new(hook, secret, status=201)


@router.get(
    "/api/v1/webhooks",
    operation_id="ListWebhooks",
    summary="All webhooks, the oldest first",
    response_model=WebhookList,
    responses=documented(*_REFUSALS, *_SURPRISES),
)
async def list_webhooks(
    services: Annotated[Services, Depends(services_of)], _by: Annotated[Token, Depends(operator)]
) -> Response:
    """Where each leads, what it is told, and whether that goes well."""
    return as_json(WebhookList(items=[WebhookView.of(each) for each in await services.ask(services.webhooks.all)]))


@router.get(
    "/api/v1/webhooks/{webhook_id}",
    operation_id="GetWebhook",
    summary="One webhook",
    response_model=WebhookView,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def get_webhook(
    webhook_id: str, services: Annotated[Services, Depends(services_of)], _by: Annotated[Token, Depends(operator)]
) -> Response:
    """Where it leads, what it is told, and whether that goes well."""
    return as_json(WebhookView.of(found(await services.ask(services.webhooks.get, known_id(webhook_id)))))


@router.post(
    "/api/v1/webhooks/{webhook_id}/remove",
    operation_id="RemoveWebhook",
    summary="Forget a webhook",
    status_code=204,
    response_class=Response,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def remove_webhook(
    webhook_id: str, services: Annotated[Services, Depends(services_of)], by: Annotated[Token, Depends(operator)]
) -> Response:
    """It is told nothing more, and what it was told is forgotten."""
    if not await services.ask(services.webhooks.remove, known_id(webhook_id), Operator(by.label, by.id)):
        found(None)
    return Response(status_code=204)


@router.post(
    "/api/v1/webhooks/{webhook_id}/enable",
    operation_id="EnableWebhook",
    summary="Have a webhook that was disabled be told again",
    response_model=WebhookView,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def enable_webhook(
    webhook_id: str, services: Annotated[Services, Depends(services_of)], by: Annotated[Token, Depends(operator)]
) -> Response:
    """What was due meanwhile is delivered as well."""
    hook = await services.ask(services.webhooks.enable, known_id(webhook_id), Operator(by.label, by.id))
    return as_json(WebhookView.of(found(hook)))


@router.post(
    "/api/v1/webhooks/{webhook_id}/rotate",
    operation_id="RotateWebhook",
    summary="Give a webhook a new secret",
    response_model=NewWebhookView,
    responses=documented(*_REFUSALS, "not-found", "wrong-state", *_SURPRISES),
)
async def rotate_webhook(
    webhook_id: str, services: Annotated[Services, Depends(services_of)], by: Annotated[Token, Depends(operator)]
) -> Response:
    """For a day what is sent carries signatures with both, the new one and the one before."""
    try:
        rotated = await services.ask(services.webhooks.rotate, known_id(webhook_id), Operator(by.label, by.id))
    except NotToRotate as error:
        raise Problem("wrong-state", str(error)) from None
    hook, secret = found(rotated)
    return _new(hook, secret, status=200)


@router.post(
    "/api/v1/webhooks/{webhook_id}/test",
    operation_id="TestWebhook",
    summary="Send a webhook something that says nothing",
    status_code=202,
    response_model=DeliveryView,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def try_webhook(
    webhook_id: str, services: Annotated[Services, Depends(services_of)], _by: Annotated[Token, Depends(operator)]
) -> Response:
    """Its type is `webhook.test`; it is in no feed. How it goes is among the webhook's deliveries."""
    return as_json(DeliveryView.model_validate(await send_test(services, webhook_id)), status=202)


@router.get(
    "/api/v1/webhooks/{webhook_id}/deliveries",
    operation_id="ListDeliveries",
    summary="What became of telling one webhook, newest first",
    response_model=DeliveryPage,
    responses=documented(*_REFUSALS, "not-found", "invalid-fields", *_SURPRISES),
)
async def list_deliveries(
    request: Request,
    webhook_id: str,
    services: Annotated[Services, Depends(services_of)],
    _by: Annotated[Token, Depends(operator)],
    query: Annotated[DeliveryQuery, Query()],
) -> Response:
    """When each was tried, what was answered, and when it is tried next."""
    refuse_repeats(request)
    found(await services.ask(services.webhooks.get, known_id(webhook_id)))

    def fetch(*, limit: int, before: str | None) -> list[Delivery]:
        return services.webhooks.deliveries(webhook_id, limit=limit, before=before, open_only=query.open)

    shown, cursor = await a_page(services.ask, fetch, query, "delivery")
    return as_json(DeliveryPage(items=[DeliveryView.model_validate(each) for each in shown], next_cursor=cursor))


@router.post(
    "/api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    operation_id="Redeliver",
    summary="Try one delivery once more, now",
    status_code=202,
    response_model=DeliveryView,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def redeliver(
    webhook_id: str,
    delivery_id: str,
    services: Annotated[Services, Depends(services_of)],
    by: Annotated[Token, Depends(operator)],
) -> Response:
    """Whether or not it was delivered before, or given up."""
    again = await services.ask(
        services.webhooks.redeliver, known_id(webhook_id), known_id(delivery_id), Operator(by.label, by.id)
    )
    return as_json(DeliveryView.model_validate(found(again, "delivery")), status=202)


@router.get(
    "/.well-known/plugin-registry-keys",
    operation_id="ListKeys",
    summary="The keys that the registry signs with",
    response_model=KeyList,
    responses=documented("malformed-request", "too-many-requests", *_SURPRISES),
)
async def list_keys(services: Annotated[Services, Depends(services_of)]) -> Response:
    """Anybody may read them: `v1a` signatures of webhooks are checked with the one whose use is `webhooks`."""
    key = await services.ask_for_strangers(services.keys.current, FOR_WEBHOOKS)
    shown = KeyView(
        id=key.id, use=FOR_WEBHOOKS, algorithm="ed25519", public_key=key.public, created_at=key.created_at
    )
    return as_json(KeyList(keys=[shown]))


async def send_test(services: Services, webhook_id: str) -> Delivery:
    """Have a webhook be sent something that says nothing; return that delivery.

    Raises:
        Problem: 404, there is no such webhook.
    """
    event_id = f"event-{uuid7()}"
    body = {"id": event_id, "type": TEST, "timestamp": rfc3339(datetime.now(UTC)), "data": {"webhookId": webhook_id}}
    return found(await services.ask(services.webhooks.test, known_id(webhook_id), json.dumps(body), event_id))


def shown_url(hook: Webhook) -> str:
    """Return the URL of *hook* without its query, which may be a secret; egress checked that it has nothing else."""
    return hook.url.partition("?")[0]


def found(it: Found | None, what: str = "webhook") -> Found:
    """Return *it*.

    Raises:
        Problem: 404, there is none.
    """
    if it is None:
        raise Problem("not-found", f"There is no {what} of this id.")
    return it


def _new(hook: Webhook, secret: str | None, *, status: int) -> Response:
    shown = NewWebhookView(**WebhookView.of(hook).model_dump(by_alias=False), secret=secret)
    return as_json(shown, status=status, headers=_ONCE)
