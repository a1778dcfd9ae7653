"""Routes of plugins: RegisterPlugin, and reading what is registered."""

from contextlib import suppress
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.access_log import REGISTRATION
from api.http.auth import allowed, authenticate
from api.http.body import invalid_query, submission
from api.http.paging import PageQuery, Text, a_page, known_id, refuse_repeats
from api.http.prefer import PREFER, Preference
from api.http.problems import RETRY_AFTER_S, Problem, documented, problem_of
from api.live.waiting import outcome_of
from api.routes.registrations import RegistrationView, as_json
from api.services import Services, services_of
from shared.errors import StoreUnavailable
from shared.registration import (
    AlreadyRegistered,
    Outcome,
    OverQuota,
    Plugin,
    PluginType,
    Registration,
    Settled,
    Submission,
    Taken,
)
from shared.store.tokens import Token
from shared.tracing import note, span

router = APIRouter(tags=["plugins"])


class PluginPage(BaseModel):
    """A page of plugins, newest first."""

    items: list[Plugin]
    nextCursor: str | None  # noqa: N815  # the wire's name


class PluginQuery(PageQuery):
    """Filters of the list."""

    name: Annotated[Text | None, Field(max_length=100)] = None
    version: Annotated[Text | None, Field(max_length=255)] = None
    plugin_type: PluginType | None = None
    checksum: Annotated[Text | None, Field(max_length=71)] = None


DRY_RUN: dict[str, Any] = {
    "name": "dryRun",
    "in": "query",
    "required": False,
    "schema": {
        "type": "boolean",
        "title": "Dryrun",
        "default": False,
        "description": "Check token, fields, egress and conflict; change nothing",
    },
    "description": "Check token, fields, egress and conflict; change nothing",
}


class RegisterQuery(BaseModel):
    """The query of RegisterPlugin."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    dry_run: bool = False


@router.post(
    "/api/v1/plugins",
    operation_id="RegisterPlugin",
    summary="Register a new plugin into the global plugin registry",
    response_model=Plugin,
    response_description="Downloaded, matched and committed: the plugin",
    responses={
        200: {"headers": {"Location": {"schema": {"type": "string"}, "description": "The plugin"}}},
        202: {
            "model": RegistrationView,
            "description": "Accepted and committed; the outcome is still to come",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The registration"},
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds to wait before asking",
                },
            },
        },
        204: {"description": "Dry run: nothing stands in the way"},
        **documented(
            "malformed-json",
            "malformed-request",
            "unauthorized",
            "forbidden",
            "too-many-requests",
            "quota-used-up",
            "conflict",
            "canceled",
            "body-too-large",
            "unsupported-media-type",
            "invalid-fields",
            "digest-mismatch",
            "artifact-missing",
            "artifact-too-large",
            "host-not-found",
            "forbidden-url",
            "forbidden-address",
            "bad-response",
            "bad-redirect",
            "bad-certificate",
            "upstream-busy",
            "connect-failed",
            "truncated",
            "read-timeout",
            "deadline-passed",
            "attempts-used-up",
            "store-unavailable",
            "internal-error",
        ),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Submission.model_json_schema(by_alias=True)}},
        },
        "parameters": [DRY_RUN, PREFER],
        "security": [{"HTTPBearer": []}],
    },
)
async def register_plugin(request: Request) -> Response:
    """The registry downloads `artifactUrl`, hashes it, and answers 200 only when it matches `checksum`.

    The answer is held back for up to 30 seconds; `Prefer` changes that. Sending the same submission
    again is always safe: it joins the one in flight, or returns the plugin it became.
    """
    # By hand, not as FastAPI's dependencies: to work those out costs more than all that follows (decision 0012).
    services = await services_of(request)
    token = await authenticate(request, services, "register")
    submitted = await submission(request, services, token)
    dry_run = await _wants_dry_run(request)
    if dry_run:
        return _dry_run_answer(await services.ask(services.store.preview, submitted))
    with span("RegisterPlugin", parent=request.headers.get("traceparent"), role="server") as trace:
        outcome = await services.submissions.submit(submitted, token.submitter, trace=trace)
        return await _answer(services, outcome, request, token)


async def _wants_dry_run(request: Request) -> bool:
    """Whether the query asks for a dry run; it holds nothing else.

    Raises:
        Problem: 422.
    """
    if not request.scope["query_string"]:
        return False
    refuse_repeats(request)
    try:
        return RegisterQuery.model_validate(dict(request.query_params)).dry_run
    except ValidationError as error:
        raise invalid_query(error.errors()) from error


async def _answer(services: Services, outcome: Outcome, request: Request, token: Token) -> Response:
    """Answer with what stands already, or what comes of the registration within the wait."""
    if isinstance(outcome, AlreadyRegistered):
        return plugin_answer(outcome.plugin)
    if isinstance(outcome, Taken):
        raise outcome.conflict
    if isinstance(outcome, OverQuota):
        raise over_quota(outcome)
    note({"registration": outcome.registration.id})
    request.scope[REGISTRATION] = outcome.registration.id
    preference = Preference.parse(request.headers.getlist("Prefer"))
    default_s = services.settings.sync_wait_s
    settled, honoured = await outcome_of(
        outcome.registration.id, services, request, token, preference, default_s=default_s
    )
    if settled is None:
        current = None
        if honoured.wait_s(default_s):  # it may have come further meanwhile
            with suppress(StoreUnavailable):  # it was accepted, whatever the store says now
                current = await services.ask(services.store.registration, outcome.registration.id)
        return accepted_answer(current or outcome.registration, honoured)
    return _settled_answer(settled, honoured)


def _settled_answer(settled: Settled, preference: Preference) -> Response:
    if settled.plugin is not None:
        return plugin_answer(settled.plugin, preference)
    failure = settled.registration.failure
    assert failure is not None  # noqa: S101  # every other final state has its reason
    raise problem_of(failure, settled.registration.id)


def over_quota(outcome: OverQuota) -> Problem:
    """Return what is told to who has too many registrations in flight."""
    return Problem(
        "quota-used-up",
        f"Your token has {outcome.limit} registrations queued or being verified, which is all it may have at once: "
        "send this again when some have ended, or have the registry's operators raise REGISTRY_IN_FLIGHT_PER_TOKEN.",
        retryable=True,
        headers={"Retry-After": str(RETRY_AFTER_S)},
    )


def plugin_answer(plugin: Plugin, preference: Preference | None = None) -> Response:
    """Return the 200 that is *plugin*."""
    applied = preference.applied if preference else {}
    return as_json(plugin, headers={"Location": f"/api/v1/plugins/{plugin.id}", **applied})


def accepted_answer(registration: Registration, preference: Preference | None = None) -> Response:
    """Return the 202 that tells where *registration* can be asked for."""
    return as_json(
        RegistrationView.of(registration),
        status=202,
        headers={
            "Location": f"/api/v1/registrations/{registration.id}",
            "Retry-After": str(RETRY_AFTER_S),
            **(preference.applied if preference else {}),
        },
    )


def _dry_run_answer(standing: AlreadyRegistered | Taken | None) -> Response:
    """Answer 204: nothing was verified, so nothing may be answered that says so."""
    if isinstance(standing, AlreadyRegistered):
        return plugin_answer(standing.plugin)
    if isinstance(standing, Taken):
        raise standing.conflict
    return Response(status_code=204)


@router.get(
    "/api/v1/plugins/{plugin_id}",
    operation_id="GetPlugin",
    summary="One plugin",
    response_model=Plugin,
    responses=documented(
        "malformed-request", "unauthorized", "forbidden", "too-many-requests", "not-found", "store-unavailable"
    ),
)
async def get_plugin(
    plugin_id: str,
    services: Annotated[Services, Depends(services_of)],
    _token: Annotated[Token, Depends(allowed("read", "register", "operate"))],
) -> Response:
    """A plugin never changes once it is registered."""
    plugin = await services.ask(services.store.plugin, known_id(plugin_id))
    if plugin is None:
        raise Problem("not-found", "There is no plugin of this id.")
    return as_json(plugin)


@router.get(
    "/api/v1/plugins",
    operation_id="ListPlugins",
    summary="Plugins, newest first",
    response_model=PluginPage,
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
async def list_plugins(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    _token: Annotated[Token, Depends(allowed("read", "operate"))],
    query: Annotated[PluginQuery, Query()],
) -> Response:
    """Filter by name (as uniqueness sees it), version, type and checksum."""
    refuse_repeats(request)
    plugins = partial(services.store.plugins, filters=_lowered(query.filters))
    shown, cursor = await a_page(services.ask, plugins, query, "plugin")
    return as_json(PluginPage(items=shown, nextCursor=cursor))


def _lowered(filters: dict[str, str]) -> dict[str, Any]:
    return {key: value.lower() if key == "checksum" else value for key, value in filters.items()}
