"""The tokens: who may do what, for whoever has scope admin; made here, and shown this once."""

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import Response

from api.dashboard.acts import SAID
from api.dashboard.rendering import framed
from api.dashboard.session import sign_in_page
from api.dashboard.visitor import Form, Here, Someone, Visitor, require_ours
from api.http.problems import Problem
from api.routes.tokens import TokenWanted, make
from api.services import Services
from shared.store.tokens import SCOPES, NewToken

router = APIRouter(include_in_schema=False)

SHOWN = 200
"""The newest; the command line lists all."""
DAY_S = 86_400
DAYS = (1, 7, 30, 90, 365)


@router.get("/tokens")
async def tokens(request: Request, services: Here, who: Someone, done: str = "", over: str = "") -> Response:
    """The newest tokens, those that are *over* if they are asked for, and a form to make another."""
    if who is None:
        return sign_in_page(request)
    _require_admin(who)
    return await _page(services, who, said=SAID.get(done, ""), over=bool(over))


@router.post("/tokens")
async def create(services: Here, who: Someone, sent: Form) -> Response:
    """Make one and show it, which nobody can do again."""
    if who is None:
        raise Problem("forbidden", "Sign in again: your session has ended.")
    require_ours(who, sent)
    _require_admin(who)
    try:
        wanted = _wanted(sent)
    except ValidationError as error:
        fields = ", ".join(
            f"{each['loc'][0]}: {each['msg'].removeprefix('Value error, ')}" for each in error.errors()
        )
        return await _page(services, who, said=f"No token was made. Correct {fields}.", status=422)
    return await _page(services, who, made=await make(services, wanted, who.token))


def _wanted(sent: Form) -> TokenWanted:
    days = sent.get("days", "")
    given = {
        "label": sent.get("label", "").strip(),
        "scopes": sent.get("scope", "").split(),
        "expiresInS": int(days) * DAY_S if days in map(str, DAYS) else None,
    }
    names = [each.strip() for each in sent.get("names", "").splitlines() if each.strip()]
    return TokenWanted.model_validate(given | ({"names": names} if names else {}))


async def _page(
    services: Services,
    who: Visitor,
    *,
    said: str = "",
    status: int = 200,
    made: NewToken | None = None,
    over: bool = False,
) -> Response:
    known, now = await services.ask(services.tokens.list), datetime.now(UTC)
    ended = {each.id for each in known if each.revoked_at or (each.expires_at and each.expires_at <= now)}
    wanted = [each for each in reversed(known) if (each.id in ended) is over]
    return framed(
        "tokens.html",
        who,
        "/tokens",
        said=said,
        status=status,
        tokens=wanted[:SHOWN],
        more=len(wanted) - SHOWN,
        over=over,
        ended=len(ended),
        made=made,
        scopes=SCOPES,
        days=DAYS,
    )


def _require_admin(who: Visitor) -> None:
    if not who.admin:
        raise Problem("forbidden", "This page needs a token of scope admin.")
