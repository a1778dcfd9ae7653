"""Tokens over the API: made, listed and revoked by whoever has one of scope admin that is not limited to names."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.auth import allowed, require_every_name
from api.http.body import fields
from api.http.problems import Problem, documented
from api.routes.views import View, as_json
from api.services import Services, services_of
from shared.characters import NO_HIDDEN
from shared.fields import MAX_NAME_CHARACTERS
from shared.registration import Operator, Timestamp
from shared.store.tokens import (
    MAX_LABEL_CHARACTERS,
    MAX_LIFETIME_S,
    MAX_PATTERNS,
    PATTERN,
    SCOPES,
    LastAdmin,
    NewToken,
    Scope,
    Token,
    parse_label,
    parse_pattern,
)

router = APIRouter(tags=["tokens"])

_REFUSALS = ("malformed-request", "unauthorized", "forbidden", "too-many-requests")
_SURPRISES = ("store-unavailable", "internal-error")


async def administrator(token: Annotated[Token, Depends(allowed("admin"))]) -> Token:
    """Return who asks. What it made would not be limited to names, so it may not be either."""
    require_every_name(token, what="Tokens are made, shown and revoked for every name", instead="Use")
    return token


def _each_once(scopes: list[Scope]) -> list[Scope]:
    if len(set(scopes)) < len(scopes):
        raise ValueError("must name each scope once")
    return scopes


def _whole(number: object) -> object:
    """Return *number* as the integer that it is in JSON Schema, where 60.0 is one."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


Pattern = Annotated[
    str,
    AfterValidator(parse_pattern),
    Field(json_schema_extra={"pattern": f"^{PATTERN}$", "maxLength": MAX_NAME_CHARACTERS}),
]


class TokenWanted(BaseModel):
    """The body of CreateToken."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel, use_attribute_docstrings=True)

    label: Annotated[str, Field(min_length=1, max_length=MAX_LABEL_CHARACTERS), AfterValidator(parse_label)] = Field(
        examples=["ci of team a"], json_schema_extra={"pattern": NO_HIDDEN}
    )
    """Whose it is: shown in lists, and kept with what it submits; several may share one."""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=len(SCOPES)), AfterValidator(_each_once)] = Field(
        examples=[["register"]], json_schema_extra={"uniqueItems": True}
    )
    """What it allows."""
    names: Annotated[list[Pattern], Field(min_length=1, max_length=MAX_PATTERNS)] = Field(
        default_factory=list, examples=[["nginx-*"]]
    )
    """Only plugins named like one of these, in which `*` and `?` stand for others. Left out, it is any name."""
    expires_in_s: Annotated[int, Field(ge=1, le=MAX_LIFETIME_S), BeforeValidator(_whole)] | None = Field(
        None, examples=[7_776_000]
    )
    """How long it is valid, in seconds. For ever, if left out."""


class TokenView(View):
    """What is known of a token. The token itself is not kept."""

    id: str
    label: str
    scopes: Annotated[list[Scope], BeforeValidator(sorted)]
    names: list[str] = Field(description="Patterns of names, none of them meaning any name")
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None


class NewTokenView(TokenView):
    """A token that was just made."""

    token: str = Field(validation_alias="text", description="The token, whole. It is shown this once")


class TokenList(BaseModel):
    """All tokens, the oldest first."""

    items: list[TokenView]


_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": TokenWanted.model_json_schema(by_alias=True)}},
    }
}


@router.post(
    "/api/v1/tokens",
    operation_id="CreateToken",
    summary="Make a token",
    status_code=201,
    response_model=NewTokenView,
    responses={
        201: {
            "headers": {"Cache-Control": {"schema": {"type": "string"}, "description": "no-store"}},
        },
        **documented(
            *("malformed-json", *_REFUSALS, "body-too-large", "unsupported-media-type", "invalid-fields"),
            *_SURPRISES,
        ),
    },
    openapi_extra=_BODY,
)
async def create_token(
    request: Request,
    services: Annotated[Services, Depends(services_of)],
    by: Annotated[Token, Depends(administrator)],
) -> Response:
    """Its text is in this answer and nowhere else. Where the answer is lost, list, and revoke what nobody has."""
    wanted = await fields(request, services, TokenWanted, "a token")
    made = await make(services, wanted, by)
    return as_json(NewTokenView.model_validate(made), status=201, headers={"Cache-Control": "no-store"})


@router.get(
    "/api/v1/tokens",
    operation_id="ListTokens",
    summary="All tokens, the oldest first, those that are over too",
    response_model=TokenList,
    responses=documented(*_REFUSALS, *_SURPRISES),
)
async def list_tokens(
    services: Annotated[Services, Depends(services_of)],
    _by: Annotated[Token, Depends(administrator)],
) -> Response:
    """Whose each is, what it allows, and until when; but not the tokens themselves: those are not kept."""
    found = await services.ask(services.tokens.list)
    return as_json(TokenList(items=[TokenView.model_validate(each) for each in found]))


@router.get(
    "/api/v1/tokens/current",
    operation_id="GetCurrentToken",
    summary="The token that asks",
    response_model=TokenView,
    responses=documented(*_REFUSALS, *_SURPRISES),
)
async def current_token(token: Annotated[Token, Depends(allowed(*SCOPES))]) -> Response:
    """What it allows, and until when: any valid token may ask this of itself."""
    return as_json(TokenView.model_validate(token))


@router.post(
    "/api/v1/tokens/{token_id}/revoke",
    operation_id="RevokeToken",
    summary="Revoke a token, at once and for good",
    response_model=TokenView,
    responses=documented(*_REFUSALS, "not-found", "wrong-state", *_SURPRISES),
)
async def revoke_token(
    token_id: str,
    services: Annotated[Services, Depends(services_of)],
    by: Annotated[Token, Depends(administrator)],
) -> Response:
    """It is refused from the next request on. A token may revoke itself, unless it is the last of scope admin."""
    return as_json(TokenView.model_validate(await revoke(services, token_id, by)))


async def make(services: Services, wanted: TokenWanted, by: Token) -> NewToken:
    """Return a new token that is as *wanted*."""
    return await services.ask(
        services.tokens.create,
        wanted.label,
        wanted.scopes,
        names=wanted.names,
        lifetime_s=wanted.expires_in_s,
        by=Operator(by.label, by.id),
    )


async def revoke(services: Services, token_id: str, by: Token) -> Token:
    """Revoke a token; return it as it is then.

    Raises:
        Problem: 404, there is none; 409, it is the last that could make another.
    """
    try:
        revoked = await services.ask(services.tokens.revoke, token_id, by=Operator(by.label, by.id))
    except LastAdmin:
        raise Problem(
            "wrong-state",
            "This is the last valid token of scope admin, and without it nobody could make another here: make one "
            "first, and revoke this one with that.",
        ) from None
    if revoked is None:
        raise Problem("not-found", "There is no token of this id; GET /api/v1/tokens lists them.")
    return revoked
