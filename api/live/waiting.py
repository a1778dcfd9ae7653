"""Holding an answer back until a registration is final: for as long as the client prefers, if a place is free."""

from functools import partial

from fastapi import Request

from api.http.prefer import Preference
from api.services import Services
from shared.registration import RegistrationId, Settled
from shared.store.tokens import Token


async def outcome_of(
    registration_id: RegistrationId,
    services: Services,
    request: Request,
    token: Token,
    preference: Preference,
    *,
    default_s: float,
) -> tuple[Settled | None, Preference]:
    """Return the registration once it is final, or None; and what of *preference* was honoured.

    Where no place is free it is not waited for, and not refused either: what was asked for is done already.
    """
    wait_s = preference.wait_s(default_s)
    if not wait_s:
        return None, preference
    with services.caps.waiting(request.scope, token.id) as free:
        if not free:
            return None, Preference()
        return await services.outcomes.wait(registration_id, wait_s, partial(_client_left, request)), preference


async def _client_left(request: Request) -> None:
    """Return when the client of *request*, of which nothing more is read, has gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
