"""`token create`, `token list`, `token revoke`: over the API of the registry that is meant.

The registry's own distribution has the same verb, which reaches straight into a store as well: it takes these
commands, and says by itself whose tokens are meant.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from typing import Any, Protocol

import click

from plugin_registry_client.client import Client
from plugin_registry_client.command.asked import connected, json_option
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_json
from plugin_registry_client.connection import segment
from plugin_registry_client.errors import USAGE

Document = Mapping[str, Any]
"""A token as the API shows it."""
SCOPES = ("register", "read", "operate", "admin")
_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PATH = "/api/v1/tokens"


class Tokens(Protocol):
    """The tokens of the registry that is meant. Each method gives what the API answers."""

    where: str
    """Which registry that is, in words."""

    def create(self, label: str, scopes: Sequence[str], names: Sequence[str], lifetime_s: int | None) -> Document:
        """Make one."""

    def list(self) -> Document:
        """Return all."""

    def revoke(self, token_id: str) -> Document:
        """Revoke one."""


class TokensOfARegistry:
    """Over the API, with a token of scope admin."""

    def __init__(self, client: Client) -> None:
        self._connection = client.connection
        self.where = f"the registry at {client.url}"

    def create(self, label: str, scopes: Sequence[str], names: Sequence[str], lifetime_s: int | None) -> Document:
        """Make one."""
        wanted: dict[str, Any] = {"label": label, "scopes": [*dict.fromkeys(scopes)]}
        if names:
            wanted["names"] = [*names]
        if lifetime_s is not None:
            wanted["expiresInS"] = lifetime_s
        return self._connection.ask("POST", _PATH, document=wanted).document

    def list(self) -> Document:
        """Return all."""
        return self._connection.get(_PATH).document

    def revoke(self, token_id: str) -> Document:
        """Revoke one."""
        return self._connection.post(f"{_PATH}/{segment(token_id)}/revoke").document


Whose = Callable[[str | None], AbstractContextManager[Tokens]]
"""Yields the tokens that are meant, of the state folder that is given if one is."""


def token_group(whose: Whose, *, with_state: bool) -> click.Group:
    """Return the verb `token` for the tokens that *whose* tells; `--state` is its option if it has one."""

    def state_option(command: Callable[..., Any]) -> Callable[..., Any]:
        help_ = "State folder of the embedded registry, whatever REGISTRY_URL names."
        return click.option("--state", help=help_)(command) if with_state else command

    @click.group()
    def token() -> None:
        """Make, show and revoke access tokens."""

    @token.command()
    @click.option(
        "--scope",
        "scopes",
        multiple=True,
        required=True,
        type=click.Choice(SCOPES),
        help="What it allows; repeatable.",
    )
    @click.option("--names", multiple=True, help="Only plugins named like this, such as 'nginx-*'; repeatable.")
    @click.option("--expires-in", help="How long it is valid: 90d, 12h, 30m, 45s. For ever, if left out.")
    @click.option("--label", default="", help="Whose it is: shown in lists, and kept with what it submits.")
    @state_option
    @json_option
    def create(
        scopes: tuple[str, ...],
        names: tuple[str, ...],
        expires_in: str | None,
        label: str,
        json_wanted: bool,
        state: str | None = None,
    ) -> None:
        """Make a token and print it, this once, alone on stdout."""
        lifetime_s = _seconds(expires_in) if expires_in is not None else None
        with whose(state) as tokens:
            made = tokens.create(label or f"made {_now()}", scopes, names, lifetime_s)
            if json_wanted:
                say_json(made)
                return
            say(f"A token for {tokens.where}, shown this once:", err=True)
            say(made["token"])

    @token.command("list")
    @state_option
    @json_option
    def list_tokens(json_wanted: bool, state: str | None = None) -> None:
        """Show every token, but not the tokens themselves: those are not kept."""
        with whose(state) as tokens:
            found = tokens.list()
            if json_wanted:
                say_json(found)
                return
            for each in found["items"]:
                scopes, names = ",".join(each["scopes"]), ",".join(each["names"]) or "any name"
                say(f"{each['id']}  {_condition(each):<30}  {scopes:<28}  {names}  {each['label']}")

    @token.command()
    @click.argument("token_id")
    @state_option
    @json_option
    def revoke(token_id: str, json_wanted: bool, state: str | None = None) -> None:
        """Revoke a token at once, by the id that `token list` shows."""
        with whose(state) as tokens:
            revoked = tokens.revoke(token_id)
            if json_wanted:
                say_json(revoked)
                return
            say(f"Revoked {revoked['id']}.", err=True)

    return token


@contextmanager
def _meant(_state: str | None) -> Iterator[Tokens]:
    yield TokensOfARegistry(connected())


token = token_group(_meant, with_state=False)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _condition(it: Document) -> str:
    if it["revokedAt"] is not None:
        return "revoked"
    if it["expiresAt"] is None:
        return "valid"
    until = it["expiresAt"]
    return f"until {until}" if until > _now() else "expired"


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Refusal("--expires-in is a number and a unit, such as 90d, 12h, 30m or 45s.", USAGE)
    return int(match[1]) * _UNITS[match[2]]
