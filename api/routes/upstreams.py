"""Upstreams: how one host does that artifacts come from, and leaving it alone until it is well again."""

from typing import Annotated, Self

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.http.auth import allowed, require_every_name
from api.http.paging import MAX_HOST_CHARACTERS, Note, refuse_repeats
from api.http.problems import Problem, documented
from api.routes.registrations import RegistrationView
from api.routes.snapshot import PausedView
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.registration import Operator, Timestamp
from shared.store.tokens import Token
from shared.store.upstreams import UpstreamSeen

router = APIRouter(tags=["operations"])

_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")


class HourView(View):
    """What settled in one hour."""

    begun_at: Timestamp
    settled: int
    failed: int
    bytes: int
    verifying_s: float = Field(description="From their claims to their outcomes, in all")


class UpstreamDetail(View):
    """One upstream host."""

    host: str
    paused: PausedView | None
    in_flight: int
    causes: dict[str, int] = Field(description="How many of the registrations that are kept failed for what")
    hours: list[HourView] = Field(
        description="The last 24 hours, newest first, without those in which nothing settled"
    )
    registrations: list[RegistrationView] = Field(description="The newest twenty")

    @classmethod
    def of(cls, seen: UpstreamSeen) -> Self:
        """Return the view of what was *seen*."""
        return cls(
            host=seen.host,
            paused=PausedView.model_validate(seen.paused) if seen.paused else None,
            in_flight=seen.in_flight,
            causes=dict(seen.causes),
            hours=[HourView.model_validate(each) for each in seen.hours],
            registrations=[RegistrationView.of(each) for each in seen.newest],
        )


class NoteQuery(BaseModel):
    """A word with what is done."""

    model_config = ConfigDict(extra="forbid")

    note: Annotated[Note, Field(description="Why, in your words: shown to all who operate")] = ""


@router.get(
    "/api/v1/upstreams/{host}",
    operation_id="GetUpstream",
    summary="How one upstream host does",
    response_model=UpstreamDetail,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def get_upstream(
    host: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("read", "operate"))],
) -> Response:
    """Its rates by the hour, why its artifacts failed, what is in flight, and whether it is paused."""
    require_every_name(token)
    return as_json(UpstreamDetail.of(await known_upstream(services, host)))


@router.post(
    "/api/v1/upstreams/{host}/pause",
    operation_id="PauseUpstream",
    summary="Fetch nothing new from a host until it is resumed",
    response_model=UpstreamDetail,
    responses=documented(*_REFUSALS, "not-found", "invalid-fields", *_SURPRISES),
)
async def pause_upstream(
    request: Request,
    host: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
    query: Annotated[NoteQuery, Query()],
) -> Response:
    """What is under way goes on to its end; what waits keeps its attempts. To pause it twice does no harm."""
    refuse_repeats(request)
    require_every_name(token)
    await pause(services, host, token, query.note)
    return as_json(UpstreamDetail.of(await known_upstream(services, host)))


@router.post(
    "/api/v1/upstreams/{host}/resume",
    operation_id="ResumeUpstream",
    summary="Fetch from a paused host again",
    response_model=UpstreamDetail,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def resume_upstream(
    host: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
) -> Response:
    """What waited for it has its turn within seconds. To resume what is not paused does no harm."""
    require_every_name(token)
    await resume(services, host, token)
    return as_json(UpstreamDetail.of(await known_upstream(services, host)))


async def known_upstream(services: Services, host: str) -> UpstreamSeen:
    """Return what is known of *host*.

    Raises:
        Problem: 404, no registration names it.
    """
    return await services.ask(services.upstreams.seen, await _known(services, host))


async def pause(services: Services, host: str, token: Token, note: str) -> None:
    """Have nothing new fetched from *host*, which some registration names."""
    known = await _known(services, host)
    await services.ask(services.upstreams.pause, known, Operator(token.label, token.id), note)
    services.monitor.look_again()


async def resume(services: Services, host: str, token: Token) -> None:
    """Have *host* fetched from again."""
    known = await _known(services, host)
    await services.ask(services.upstreams.resume, known, Operator(token.label, token.id))
    services.monitor.look_again()


async def _known(services: Services, host: str) -> str:
    host = host.lower()
    readable = len(host) <= MAX_HOST_CHARACTERS and host.isprintable()
    if not readable or not await services.ask(services.upstreams.known, host):
        raise Problem(
            "not-found", "No registration that is kept names this host: give it as in a URL, with its port."
        )
    return host
