"""Access tokens: their form, what they allow, and where they are kept.

A token reads ``prg_<id><secret><checksum>``: a prefix that secret scanners can know, twelve letters
that name it, forty that are secret, and six of CRC-32 that tell a typing error without a look at the
store. Only a SHA-256 of the secret is kept.
"""

import hashlib
import hmac
import re
import secrets
import string
import zlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Literal, get_args

from sqlalchemy import RowMapping, bindparam, func, insert, select, update

from shared.characters import refuse_hidden
from shared.fields import normalised
from shared.store.database import Database, NowMs
from shared.store.tables import moment, tokens

Scope = Literal["register", "read", "operate"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.digits + string.ascii_letters
_ID_LETTERS, _SECRET_LETTERS, _CHECK_LETTERS = 12, 40, 6
_FORM = re.compile(rf"prg_[0-9A-Za-z]{{{_ID_LETTERS + _SECRET_LETTERS + _CHECK_LETTERS}}}")
_PATTERN = re.compile(r"[A-Za-z0-9 ._*?-]+")
MAX_PATTERNS = 100
"""Of one token: a list that it reads is filtered by all of them."""
_NOBODY = hashlib.sha256(secrets.token_bytes()).hexdigest()
_NOW = NowMs()


@dataclass(frozen=True)
class Token:
    """What is known of a token once it is made; *names* are patterns, none of them meaning any name."""

    id: str
    label: str
    scopes: frozenset[Scope]
    names: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def submitter(self) -> str:
        """Who submits with it, for quotas and turns: its label, which several may share; its id where it has none."""
        return self.label or self.id

    def may_use_name(self, name: str) -> bool:
        """Whether a plugin called *name* may be registered with this token, and its registrations be read.

        ``*`` and ``?`` stand for others, every other character for itself; `named_like` says the same in SQL.
        """
        patterns = (normalised(pattern).replace("[", "[[]") for pattern in self.names)
        return not self.names or any(fnmatchcase(normalised(name), pattern) for pattern in patterns)


@dataclass(frozen=True)
class Credential:
    """A token as its bearer holds it, split in two."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The token, whole. It is shown once."""
        body = self.id + self.secret
        return f"prg_{body}{_check_letters(body)}"


def mint() -> Credential:
    """Return a new credential of about 238 bits that nobody can guess."""
    return Credential(_letters(_ID_LETTERS), _letters(_SECRET_LETTERS))


def parse(text: str) -> Credential | None:
    """Return the credential that *text* spells, or None if it is no token of ours."""
    if _FORM.fullmatch(text) is None:
        return None
    body, check = text[4:-_CHECK_LETTERS], text[-_CHECK_LETTERS:]
    if _check_letters(body) != check:
        return None
    return Credential(body[:_ID_LETTERS], body[_ID_LETTERS:])


class Tokens:
    """The tokens in the store. Every method is one transaction and may raise `StoreUnavailable`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self,
        label: str,
        scopes: Collection[Scope],
        *,
        names: Collection[str] = (),
        lifetime_s: float | None = None,
    ) -> Credential:
        """Store a new token and return its credential, which cannot be had again.

        Raises:
            ValueError: a pattern can match no name, or is none; there are too many; something is hidden in the label.
        """
        try:
            refuse_hidden(label)
        except ValueError as error:
            raise ValueError(f"the label {error}") from error
        if len(names) > MAX_PATTERNS:
            raise ValueError(f"a token may have {MAX_PATTERNS} patterns of names at most")
        for pattern in names:
            if _PATTERN.fullmatch(pattern) is None:
                raise ValueError(f"{pattern!r} is no pattern of names: use letters, digits, spaces, . _ - * and ?")
        credential = mint()
        with self._database.write() as connection:
            connection.execute(
                insert(tokens).values(
                    id=credential.id,
                    label=label,
                    secret_sha256=_sha256(credential.secret),
                    scopes=",".join(sorted(scopes)),
                    names="\n".join(names),
                    created_at=_NOW,
                    expires_at=None if lifetime_s is None else _NOW + int(lifetime_s * 1000),
                )
            )
        return credential

    def authenticate(self, text: str) -> Token | None:
        """Return the token that *text* proves, if it does."""
        return self.authenticate_all([text])[0]

    def authenticate_all(self, texts: Sequence[str]) -> list[Token | None]:
        """Return the token that each of *texts* proves; malformed, unknown, expired and revoked ones look the same.

        Nothing is cached: a revoked token is refused from the next request on.
        """
        credentials = [parse(text) for text in texts]
        ids = {credential.id for credential in credentials if credential is not None}
        with self._database.read() as connection:
            rows = connection.execute(_KNOWN, {"ids": [*ids]}).mappings().all() if ids else ()
        known = {row["id"]: row for row in rows}
        return [_proven(each, known.get(each.id)) if each is not None else None for each in credentials]

    def valid(self, token_id: str) -> Token | None:
        """Return the token of this id, unless it has expired or was revoked."""
        with self._database.read() as connection:
            row = connection.execute(_KNOWN, {"ids": [token_id]}).mappings().first()
        return _token(row) if row is not None and _good(row) else None

    def list(self) -> list[Token]:
        """Return every token, the oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(select(tokens).order_by(tokens.c.created_at, tokens.c.id)).mappings()
            return [_token(row) for row in rows]

    def revoke(self, token_id: str) -> bool:
        """Revoke a token at once and for good; return whether there is one of that id."""
        with self._database.write() as connection:
            found = connection.execute(
                update(tokens)
                .where(tokens.c.id == token_id)
                .values(revoked_at=func.coalesce(tokens.c.revoked_at, _NOW))
            )
            return found.rowcount > 0


_KNOWN = select(tokens, (tokens.c.expires_at <= _NOW).label("expired")).where(
    tokens.c.id.in_(bindparam("ids", expanding=True))
)


def _proven(credential: Credential, row: RowMapping | None) -> Token | None:
    known = row["secret_sha256"] if row is not None else _NOBODY
    proven = hmac.compare_digest(_sha256(credential.secret), known)
    return _token(row) if row is not None and proven and _good(row) else None


def _good(row: RowMapping) -> bool:
    """Whether the token in a row of `_KNOWN` has neither expired nor been revoked."""
    return not row["expired"] and row["revoked_at"] is None


def _token(row: RowMapping) -> Token:
    return Token(
        id=row["id"],
        label=row["label"],
        scopes=frozenset(scope for scope in SCOPES if scope in row["scopes"].split(",")),
        names=tuple(row["names"].splitlines()),
        created_at=moment(row["created_at"]),
        expires_at=moment(row["expires_at"]) if row["expires_at"] is not None else None,
        revoked_at=moment(row["revoked_at"]) if row["revoked_at"] is not None else None,
    )


def _letters(count: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(count))


def _sha256(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _check_letters(body: str) -> str:
    number, letters = zlib.crc32(body.encode()), ""
    for _ in range(_CHECK_LETTERS):
        number, digit = divmod(number, len(_ALPHABET))
        letters = _ALPHABET[digit] + letters
    return letters
