"""`token create`, `token list`, `token revoke`: as the light client has them, or straight in a store.

Whoever may write to the store needs no token for that. Both ways give the same documents, and so the same lines.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

from plugin_registry_client.command import tokens as client_tokens
from plugin_registry_client.command.asked import asked, connected
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.tokens import Document, TokensOfARegistry, token_group
from plugin_registry_client.errors import USAGE
from plugin_registry_client.settings import Config

from shared.errors import StoreUnavailable
from shared.registration import rfc3339
from shared.settings import BadSettings, Settings, read_settings
from shared.store.database import SchemaMismatch, open_database
from shared.store.schema import check_schema
from shared.store.tokens import Scope, Token, Tokens


class _TokensOfAStore:
    """Straight in the store."""

    def __init__(self, tokens: Tokens, where: str) -> None:
        self._tokens = tokens
        self.where = where

    def create(self, label: str, scopes: Sequence[str], names: Sequence[str], lifetime_s: int | None) -> Document:
        try:
            made = self._tokens.create(label, cast("Sequence[Scope]", scopes), names=names, lifetime_s=lifetime_s)
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
def _tokens(state: str | None) -> Iterator[client_tokens.Tokens]:
    """Yield the tokens of the registry that is meant: a *state* folder's, or where there is none, the settings'."""
    named = asked().registry
    if state is not None and named is not None:
        raise Refusal("--registry and --state both say whose tokens are meant: leave one out.", USAGE)
    if state is None and (named or os.environ.get("REGISTRY_URL") or _logged_in()):
        yield TokensOfARegistry(connected())
        return
    try:
        settings = read_settings(**({"state_dir": state} if state else {}))
        if settings.default_store is not None and not settings.default_store.exists():
            raise Refusal(f"There is no store in {settings.state_dir} yet: start `plugin-registry up` there first.")
        with closing(open_database(settings.database_url)) as database:
            check_schema(database)
            yield _TokensOfAStore(Tokens(database), _place_of(settings))
    except BadSettings as error:
        raise Refusal(f"{error}.", USAGE) from error
    except (SchemaMismatch, StoreUnavailable) as error:
        raise Refusal(str(error)) from error


token = token_group(_tokens, with_state=True)


def _logged_in() -> bool:
    """Whether `login` keeps a registry that every other verb means, and nothing here names a store."""
    stores = ("REGISTRY_STATE_DIR", "REGISTRY_DATABASE_URL", "REGISTRY_DATABASE_URL_FILE")
    return not any(os.environ.get(each) for each in stores) and Config.of(os.environ).default is not None


def _place_of(settings: Settings) -> str:
    return f"the registry in {settings.store_file}" if settings.store_file else "the registry on PostgreSQL"


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
