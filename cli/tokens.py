"""`token create`, `token list`, `token revoke`: straight in the store, by whoever may read it."""

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime

import click

from cli.refusal import USAGE, Refusal
from cli.terminal import say
from shared.errors import StoreUnavailable
from shared.registration import rfc3339
from shared.settings import BadSettings, read_settings
from shared.store.database import SchemaMismatch, open_database
from shared.store.schema import check_schema
from shared.store.tokens import SCOPES, Scope, Token, Tokens

_DURATION = re.compile(r"([1-9][0-9]{0,5})([smhd])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


@click.group()
def token() -> None:
    """Make, show and revoke access tokens."""


@token.command()
@click.option(
    "--scope", "scopes", multiple=True, required=True, type=click.Choice(SCOPES), help="What it allows; repeatable."
)
@click.option("--names", multiple=True, help="Only plugins named like this, such as 'nginx-*'; repeatable.")
@click.option("--expires-in", help="How long it is valid: 90d, 12h, 30m, 45s. For ever, if left out.")
@click.option("--label", default="", help="Whose it is: shown in lists, and kept with what it submits.")
@click.option("--state", help="State folder of the embedded registry.")
def create(
    scopes: tuple[Scope, ...], names: tuple[str, ...], expires_in: str | None, label: str, state: str | None
) -> None:
    """Make a token and print it, this once, alone on stdout."""
    lifetime_s = _seconds(expires_in) if expires_in is not None else None
    with _tokens(state) as (tokens, where):
        made = tokens.create(
            label or f"made {rfc3339(datetime.now(UTC))}", scopes, names=names, lifetime_s=lifetime_s
        )
    say(f"A token for {where}, shown this once:", err=True)
    say(made.text)


@token.command("list")
@click.option("--state", help="State folder of the embedded registry.")
def list_tokens(state: str | None) -> None:
    """Show every token, but not the tokens themselves: those are not kept."""
    with _tokens(state) as (tokens, _where):
        for each in tokens.list():
            scopes, names = ",".join(sorted(each.scopes)), ",".join(each.names) or "any name"
            say(f"{each.id}  {_condition(each):<30}  {scopes:<22}  {names}  {each.label}")


@token.command()
@click.argument("token_id")
@click.option("--state", help="State folder of the embedded registry.")
def revoke(token_id: str, state: str | None) -> None:
    """Revoke a token at once, by the id that `token list` shows."""
    with _tokens(state) as (tokens, _where):
        if not tokens.revoke(token_id):
            raise Refusal(f"There is no token {token_id}; `token list` shows them.", USAGE)
    say(f"Revoked {token_id}.", err=True)


@contextmanager
def _tokens(state: str | None) -> Iterator[tuple[Tokens, str]]:
    """Yield the tokens of the store that is meant, and where that is, in words."""
    try:
        settings = read_settings(**({"state_dir": state} if state else {}))
        if settings.url is not None and state is None:
            raise Refusal(
                f"REGISTRY_URL names the registry at {settings.url}, and tokens are made in a store: run this where "
                "that registry's settings are, without REGISTRY_URL, or name a state folder with --state.",
                USAGE,
            )
        if settings.default_store is not None and not settings.default_store.exists():
            raise Refusal(f"There is no store in {settings.state_dir} yet: start `plugin-registry up` there first.")
        with closing(open_database(settings.database_url)) as database:
            check_schema(database)
            where = f"the registry in {settings.store_file}" if settings.store_file else "the registry on PostgreSQL"
            yield Tokens(database), where
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    except ValueError as error:
        raise Refusal(f"No token was made: {error}.", USAGE) from error
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error


def _condition(it: Token) -> str:
    if it.revoked_at is not None:
        return "revoked"
    if it.expires_at is None:
        return "valid"
    until = rfc3339(it.expires_at)
    return f"until {until}" if it.expires_at > datetime.now(UTC) else "expired"


def _seconds(text: str) -> int:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise Refusal("--expires-in is a number and a unit, such as 90d, 12h, 30m or 45s.", USAGE)
    return int(match[1]) * _UNITS[match[2]]
