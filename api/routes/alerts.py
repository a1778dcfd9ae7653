"""Alerts: acknowledging one, with a word and an end, so that it wakes nobody while somebody sees to it."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.auth import allowed, require_every_name
from api.http.paging import refuse_repeats
from api.http.problems import Problem, documented
from api.live.alerts import RULES
from api.routes.snapshot import AcknowledgedView
from api.routes.upstreams import NoteQuery
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.registration import Operator
from shared.store.tokens import Token

router = APIRouter(tags=["operations"])

HOUR_S = 3600
_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")


class AcknowledgeQuery(NoteQuery):
    """For how long somebody sees to it, and what they say."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, validate_by_name=True)

    for_s: Annotated[int, Field(ge=60, le=7 * 24 * HOUR_S, description="After so many seconds it wakes again")] = (
        HOUR_S
    )


class AlertKnown(View):
    """Whether somebody knows of an alert."""

    alert: str
    acknowledged: AcknowledgedView | None


@router.post(
    "/api/v1/alerts/{name}/acknowledge",
    operation_id="AcknowledgeAlert",
    summary="Have an alert wake nobody for a while",
    response_model=AlertKnown,
    responses=documented(*_REFUSALS, "not-found", "invalid-fields", *_SURPRISES),
)
async def acknowledge_alert(
    request: Request,
    name: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
    query: Annotated[AcknowledgeQuery, Query()],
) -> Response:
    """It is still shown, with your word. Whether it is so at the moment does not matter: it may come and go."""
    refuse_repeats(request)
    await acknowledge(services, name, token, query.note, for_s=query.for_s)
    return as_json(await _as_it_is(services, name))


@router.post(
    "/api/v1/alerts/{name}/withdraw",
    operation_id="WithdrawAcknowledgement",
    summary="Have an alert wake people again",
    response_model=AlertKnown,
    responses=documented(*_REFUSALS, "not-found", *_SURPRISES),
)
async def withdraw_acknowledgement(
    name: str,
    services: Annotated[Services, Depends(services_of)],
    token: Annotated[Token, Depends(allowed("operate"))],
) -> Response:
    """To withdraw what was not acknowledged does no harm."""
    await withdraw(services, name, token)
    return as_json(await _as_it_is(services, name))


async def acknowledge(services: Services, name: str, token: Token, note: str, *, for_s: int) -> None:
    """Note that whoever has *token* knows of the alert *name*, for *for_s* seconds.

    Raises:
        Problem: 404, there is no such alert; 403, the token is limited to names.
    """
    require_every_name(token)
    by = Operator(token.label, token.id)
    await services.ask(lambda: services.acknowledgements.acknowledge(_known(name), by, note, for_s=for_s))
    services.monitor.look_again()


async def withdraw(services: Services, name: str, token: Token) -> None:
    """Have the alert *name* wake people again, as `acknowledge` does the opposite."""
    require_every_name(token)
    await services.ask(services.acknowledgements.withdraw, _known(name), Operator(token.label, token.id))
    services.monitor.look_again()


async def _as_it_is(services: Services, name: str) -> AlertKnown:
    known = (await services.ask(services.acknowledgements.good)).get(name)
    return AlertKnown(alert=name, acknowledged=AcknowledgedView.model_validate(known) if known else None)


def _known(name: str) -> str:
    if name not in {rule.name for rule in RULES}:
        raise Problem(
            "not-found", f"There is no such alert; these there are: {', '.join(each.name for each in RULES)}."
        )
    return name
