"""Bearer token -> the Token it proves, with the scope a route asks for."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials

from api.http.problems import Problem
from api.services import Services, services_of
from shared.store.tokens import Scope, Token

_SECRET_PARAMETERS = frozenset({"access_token", "token", "authorization"})
_bearer = HTTPBearer(auto_error=False, description="A token made by `plugin-registry token create`.")


def allowed(*scopes: Scope) -> Callable[..., Awaitable[Token]]:
    """Return a dependency that lets in tokens with any of *scopes*."""

    async def authenticated(
        request: Request,
        services: Annotated[Services, Depends(services_of)],
        _documented: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Token:
        return await authenticate(request, services, *scopes)

    return authenticated


def following(*scopes: Scope) -> Callable[..., Awaitable[Token]]:
    """Return a dependency that lets in tokens with any of *scopes*, for as many event streams as they may have."""

    async def authenticated(
        request: Request,
        services: Annotated[Services, Depends(services_of)],
        token: Annotated[Token, Depends(allowed(*scopes))],
    ) -> Token:
        services.caps.stream(request.scope, token.id)
        return token

    return authenticated


async def authenticate(request: Request, services: Services, *scopes: Scope) -> Token:
    """Return the token that *request* shows, if it has any of *scopes*.

    Raises:
        Problem: 400, 401, 403 or 429.
    """
    _refuse_secrets_in(request)
    token = await services.token_lookup.whose(_presented(request))
    if token is None:
        services.throttle.bad_token_from(services.proxies.client(request.scope))
        raise _unauthorized()
    services.throttle.request_with(token.id)
    services.caps.request(request.scope, token.id)
    if token.scopes.isdisjoint(scopes):
        wanted = " or ".join(scopes)
        raise Problem(
            "forbidden",
            f"This needs a token of scope {wanted}.",
            headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{" ".join(scopes)}"'},
        )
    return token


def require_name(token: Token, name: str) -> None:
    """Make sure that *token* may register a plugin called *name*.

    Raises:
        Problem: 403.
    """
    if not token.may_use_name(name):
        raise Problem("forbidden", f"This token may register only plugins named like: {', '.join(token.names)}.")


def require_every_name(
    token: Token,
    *,
    what: str = "This shows registrations of every name",
    instead: str = "List those with GET /api/v1/registrations, or use",
) -> None:
    """Make sure that *token* is not limited to names, for *what* is of every name (decision 0018).

    Raises:
        Problem: 403.
    """
    if token.names:
        raise Problem(
            "forbidden",
            f"{what}, and this token is limited to: {', '.join(token.names)}. "
            f"{instead} a token that was made without --names.",
        )


def _refuse_secrets_in(request: Request) -> None:
    if request.scope["query_string"] and any(
        name in _SECRET_PARAMETERS or value.startswith("prg_") for name, value in request.query_params.multi_items()
    ):
        raise Problem(
            "malformed-request",
            "A token in a URL ends up in logs: revoke this one, and send another as 'Authorization: Bearer prg_...'.",
        )


def _presented(request: Request) -> str:
    headers = request.headers.getlist("Authorization")
    if len(headers) > 1:
        raise Problem("malformed-request", "Send one Authorization header.")
    scheme, _, credentials = (headers[0] if headers else "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else ""


def _unauthorized() -> Problem:
    """Return the one 401: missing, malformed, unknown, expired and revoked tokens are told the same."""
    return Problem(
        "unauthorized",
        "Send a valid token as 'Authorization: Bearer prg_...'; it may be missing, mistyped, expired or revoked.",
        headers={"WWW-Authenticate": 'Bearer realm="plugin-registry"'},
    )
