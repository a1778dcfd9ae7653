"""Sessions: browsers that signed in to the operations page with a token.

A session is worth what its token is worth at that moment: one that was revoked or has expired opens nothing.
Only a SHA-256 of the session's secret is kept.
"""

import hashlib
import hmac
import secrets

from sqlalchemy import delete, insert, or_, select

from shared.store.database import Database, NowMs
from shared.store.tables import sessions, tokens
from shared.store.tokens import Token, Tokens

LIFETIME_S = 12 * 3600.0

_s = sessions.c
_t = tokens.c
_NOW = NowMs()


class Sessions:
    """The sessions in the store. Every method may raise `StoreUnavailable`."""

    def __init__(self, database: Database, tokens: Tokens, *, lifetime_s: float = LIFETIME_S) -> None:
        self._database = database
        self._tokens = tokens
        self._lifetime_ms = int(lifetime_s * 1000)

    def open(self, token: Token) -> str:
        """Return the secret of a new session of *token*."""
        secret = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(_s.expires_at <= _NOW))
            connection.execute(
                insert(sessions).values(
                    secret_sha256=name_of(secret), token_id=token.id, expires_at=_NOW + self._lifetime_ms
                )
            )
        return secret

    def whose(self, secret: str) -> Token | None:
        """Return the token of the session that *secret* proves, if both are still good."""
        with self._database.read() as connection:
            token_id = connection.execute(
                select(_s.token_id).where(_s.secret_sha256 == name_of(secret), _s.expires_at > _NOW)
            ).scalar()
        return self._tokens.valid(token_id) if token_id is not None else None

    def good(self) -> frozenset[str]:
        """Return the names of all sessions that are good now, for whoever looks after many at once."""
        with self._database.read() as connection:
            found = connection.execute(
                select(_s.secret_sha256)
                .join(tokens, _t.id == _s.token_id)
                .where(
                    _s.expires_at > _NOW, _t.revoked_at.is_(None), or_(_t.expires_at.is_(None), _t.expires_at > _NOW)
                )
            )
            return frozenset(found.scalars())

    def close(self, secret: str) -> None:
        """End a session."""
        with self._database.write() as connection:
            connection.execute(delete(sessions).where(_s.secret_sha256 == name_of(secret)))


def form_token(secret: str) -> str:
    """Return what a form of this session must hold; another site's page cannot know it."""
    return hmac.new(secret.encode(), b"form", hashlib.sha256).hexdigest()


def name_of(secret: str) -> str:
    """Return what the store knows a session by."""
    return hashlib.sha256(secret.encode()).hexdigest()
