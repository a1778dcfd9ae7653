"""Who looks at the pages: a session that somebody signed in to, and forms that only a page of that session made."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import Depends, Request

from api.http.body import read_body
from api.http.origin import from_our_page
from api.http.problems import Problem
from api.services import Services, services_of
from shared.store.sessions import form_token
from shared.store.tokens import Token

COOKIE = "plugin_registry_session"
MAX_FORM_BYTES = 16 * 1024


@dataclass(frozen=True)
class Visitor:
    """Who looks: the token that signed in, and the secret of the session."""

    token: Token
    secret: str

    @property
    def operator(self) -> bool:
        """Whether this one may act, and not only look."""
        return "operate" in self.token.scopes

    @property
    def admin(self) -> bool:
        """Whether this one may make and revoke tokens."""
        return "admin" in self.token.scopes


async def visitor(request: Request, services: Annotated[Services, Depends(services_of)]) -> Visitor | None:
    """Return who looks, if somebody signed in whose token is still good, and may see every name."""
    secret = request.cookies.get(COOKIE, "")
    token = await services.ask(services.sessions.whose, secret) if secret else None
    if token is None or token.names:
        return None
    services.caps.request(request.scope, token.id)
    return Visitor(token, secret)


async def form(request: Request) -> Mapping[str, str]:
    """Return the fields of the form that was sent, by a page of ours; what was ticked is one text, with spaces.

    Raises:
        Problem: 403, a browser says that it was another site's.
    """
    if not from_our_page(request.headers):
        raise Problem(
            "forbidden",
            "This form was sent by another site's page, or a proxy in front of the registry changed the Host header: "
            "then have it passed on as the browser sent it.",
        )
    body = await read_body(request, max_bytes=MAX_FORM_BYTES)
    fields: dict[str, str] = {}
    for name, value in parse_qsl(body.decode("utf-8", "replace")):
        fields[name] = f"{fields[name]} {value}" if name in fields else value
    return fields


async def signed_in(who: Annotated[Visitor | None, Depends(visitor)]) -> Visitor:
    """Return who looks.

    Raises:
        Problem: 401, nobody signed in; a browser then does not ask for this stream again.
    """
    if who is None:
        raise Problem("unauthorized", "Sign in at /operations.")
    return who


async def watching(
    request: Request, services: Annotated[Services, Depends(services_of)], who: Annotated[Visitor, Depends(signed_in)]
) -> Visitor:
    """Return who looks, and counts as one more event stream of that token for as long as it lasts."""
    services.caps.stream(request.scope, who.token.id)
    return who


def require_ours(who: Visitor, sent: Mapping[str, str]) -> None:
    """Make sure that a form was made for this session.

    Raises:
        Problem: 403.
    """
    if not hmac.compare_digest(sent.get("form", "").encode(), form_token(who.secret).encode()):
        raise Problem("forbidden", "This form is not of your session: load the page again, and press once more.")


Someone = Annotated[Visitor | None, Depends(visitor)]
Here = Annotated[Services, Depends(services_of)]
Form = Annotated[Mapping[str, str], Depends(form)]
