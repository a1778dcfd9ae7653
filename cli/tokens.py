"""`token create`, `token list`, `token revoke`: over the API of the registry that REGISTRY_URL names, or in a store.

Whoever may write to the store needs no token for that. Both ways give the same documents, and so the same lines.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import quote

import click

from cli.client import Answer, Client, client_from_environment, refusal_of
from cli.refusal import USAGE, Refusal
from cli.terminal import say, say_json
from shared.errors import StoreUnavailable
from shared.registration import rfc3339
from shared.settings import BadSettings, Settings, read_settings
from shared.store.database import SchemaMismatch, open_database
from shared.store.schema import check_schema
from shared.store.tokens import SCOPES, Scope, Token, Tokens

Document = Mapping[str, Any]
"""A token as the API shows it."""
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATH = "/api/v1/tokens"


@click.group()
def token() -> None:
    """Make, show and revoke access tokens."""


_state = click.option("--state", help="State folder of the embedded registry, whatever REGISTRY_URL names.")
_json = click.option("--json", "json_wanted", is_flag=True, help="Print the answer alone, as JSON, on stdout.")


@token.command()
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="What it allows; repeatable."
)
@click.option("--names", multiple=True, help="Only plugins named like this, such as 'nginx-*'; repeatable.")
@click.option("--expires-in", help="How long it is valid: 90d, 12h, 30m, 45s. For ever, if left out.")
@click.option("--label", default="", help="Whose it is: shown in lists, and kept with what it submits.")
@_state
@_json
def create(
    scopes: tuple[Scope, ...],
    names: tuple[str, ...],
    expires_in: str | None,
    label: str,
    state: str | None,
    json_wanted: bool,
) -> None:
    """Make a token and print it, this once, alone on stdout."""
    lifetime_s = _seconds(expires_in) if expires_in is not None else None
    with _tokens(state) as tokens:
        made = tokens.create(label or f"made {rfc3339(datetime.now(UTC))}", scopes, names, lifetime_s)
        if json_wanted:
            say_json(made)
            return
        say(f"A token for {tokens.where}, shown this once:", err=True)
        say(made["token"])


@token.command("list")
@_state
@_json
def list_tokens(state: str | None, json_wanted: bool) -> None:
    """Show every token, but not the tokens themselves: those are not kept."""
    with _tokens(state) as tokens:
        found = tokens.list()
        if json_wanted:
            say_json(found)
            return
        for each in found["items"]:
            scopes, names = ",".join(each["scopes"]), ",".join(each["names"]) or "any name"
            say(f"{each['id']}  {_condition(each):<30}  {scopes:<28}  {names}  {each['label']}")


@token.command()
@click.argument("token_id")
@_state
@_json
def revoke(token_id: str, state: str | None, json_wanted: bool) -> None:
    """Revoke a token at once, by the id that `token list` shows."""
    with _tokens(state) as tokens:
        revoked = tokens.revoke(token_id)
        if json_wanted:
            say_json(revoked)
            return
        say(f"Revoked {revoked['id']}.", err=True)


class _Known(Protocol):
    """The tokens of the registry that is meant. Each method gives what the API answers, or raises a `Refusal`."""

    where: str
    """Which registry that is, in words."""

    def create(
        self, label: str, scopes: Sequence[Scope], names: Sequence[str], lifetime_s: int | None
    ) -> Document: ...

    def list(self) -> Document: ...

    def revoke(self, token_id: str) -> Document: ...


class _OfARegistry:
    """Over the API, with a token of scope admin."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.where = f"the registry at {client.url}"

    def create(self, label: str, scopes: Sequence[Scope], names: Sequence[str], lifetime_s: int | None) -> Document:
        wanted: dict[str, Any] = {"label": label, "scopes": [*dict.fromkeys(scopes)]}
        if names:
            wanted["names"] = [*names]
        if lifetime_s is not None:
            wanted["expiresInS"] = lifetime_s
        return _good(self._client.send(_PATH, wanted))

    def list(self) -> Document:
        return _good(self._client.get(_PATH))

    def revoke(self, token_id: str) -> Document:
        return _good(self._client.post(f"{_PATH}/{quote(token_id, safe='')}/revoke"))


class _OfAStore:
    """Straight in the store."""

    def __init__(self, tokens: Tokens, where: str) -> None:
        self._tokens = tokens
        self.where = where

    def create(self, label: str, scopes: Sequence[Scope], names: Sequence[str], lifetime_s: int | None) -> Document:
        try:
            made = self._tokens.create(label, scopes, names=names, lifetime_s=lifetime_s)
        except ValueError as error:
            raise Refusal(f"No token was made: {error}.", USAGE) from error
        return {**_document(made), "token": made.text}

    def list(self) -> Document:
        return {"items": [_document(each) for each in self._tokens.list()]}

    def revoke(self, token_id: str) -> Document:
        revoked = self._tokens.revoke(token_id)
        if revoked is None:
            raise Refusal(f"There is no token {token_id}; `token list` shows them.", USAGE)
        return _document(revoked)


@contextmanager
def _tokens(state: str | None) -> Iterator[_Known]:
    """Yield the tokens of the registry that is meant: a *state* folder's, or where there is none, the settings'."""
    try:
        settings = read_settings(**({"state_dir": state} if state else {}))
        if settings.url is not None and state is None:
            yield _OfARegistry(client_from_environment())
            return
        if settings.default_store is not None and not settings.default_store.exists():
            raise Refusal(f"There is no store in {settings.state_dir} yet: start `plugin-registry up` there first.")
        with closing(open_database(settings.database_url)) as database:
            check_schema(database)
            yield _OfAStore(Tokens(database), _place_of(settings))
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error


def _place_of(settings: Settings) -> str:
    return f"the registry in {settings.store_file}" if settings.store_file else "the registry on PostgreSQL"


def _good(answer: Answer) -> Document:
    if answer.status not in {200, 201}:
        raise refusal_of(answer)
    return answer.document


def _document(it: Token) -> dict[str, Any]:
    """Return what the API shows of a token."""
    created_at, expires_at, revoked_at = (
        None if moment is None else rfc3339(moment) for moment in (it.created_at, it.expires_at, it.revoked_at)
    )
    return {
        "id": it.id,
        "label": it.label,
        "scopes": sorted(it.scopes),
        "names": [*it.names],
        "createdAt": created_at,
        "expiresAt": expires_at,
        "revokedAt": revoked_at,
    }


def _condition(it: Document) -> str:
    if it["revokedAt"] is not None:
        return "revoked"
    if it["expiresAt"] is None:
        return "valid"
    until = it["expiresAt"]
    return f"until {until}" if until > rfc3339(datetime.now(UTC)) else "expired"


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Refusal("--expires-in is a number and a unit, such as 90d, 12h, 30m or 45s.", USAGE)
    return int(match[1]) * _UNITS[match[2]]
