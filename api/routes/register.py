"""RegisterPlugin: the hot route, called by hand (decision 0012)."""

from contextlib import suppress

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.access_log import REGISTRATION
from api.http.auth import authenticate
from api.http.body import invalid_query, submission
from api.http.paging import refuse_repeats
from api.http.prefer import Preference
from api.http.prefix import at
from api.http.problems import RETRY_AFTER_S, Problem, problem_of
from api.live.waiting import outcome_of
from api.routes.register_openapi import REGISTER_PLUGIN
from api.routes.registrations import RegistrationView
from api.routes.views import as_json
from api.services import Services, services_of
from shared.errors import REGISTERED_MEANWHILE, StoreUnavailable
from shared.registration import (
    AlreadyRegistered,
    Outcome,
    OverQuota,
    Plugin,
    Registration,
    Settled,
    Taken,
)
from shared.store.tokens import Token
from shared.tracing import note, span

router = APIRouter(tags=["plugins"])


class RegisterQuery(BaseModel):
    """The query of RegisterPlugin."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel)

    dry_run: bool = False


@router.post(
    "/api/v1/plugins",
    operation_id="RegisterPlugin",
    summary="Register a new plugin into the global plugin registry",
    **REGISTER_PLUGIN,
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
    return await _settled_answer(services, settled, honoured)


async def _settled_answer(services: Services, settled: Settled, preference: Preference) -> Response:
    plugin, failure = settled.plugin, settled.registration.failure
    if plugin is None and failure is not None and failure.cause == REGISTERED_MEANWHILE:
        plugin = await services.ask(services.store.plugin, failure.facts["pluginId"])
    if plugin is not None:
        return plugin_answer(plugin, preference)
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
    return as_json(plugin, headers={"Location": at(f"/api/v1/plugins/{plugin.id}"), **applied})


def accepted_answer(registration: Registration, preference: Preference | None = None) -> Response:
    """Return the 202 that tells where *registration* can be asked for."""
    return as_json(
        RegistrationView.of(registration),
        status=202,
        headers={
            "Location": at(f"/api/v1/registrations/{registration.id}"),
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
