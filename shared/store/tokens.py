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
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Literal, get_args

from sqlalchemy import Connection, RowMapping, bindparam, insert, literal, or_, select, update

from shared.characters import refuse_hidden
from shared.fields import MAX_NAME_CHARACTERS, normalised
from shared.registration import Operator
from shared.store.actions import record_other
from shared.store.database import Database, NowMs
from shared.store.tables import moment, tokens

Scope = Literal["register", "read", "operate", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

_ALPHABET = string.digits + string.ascii_letters
_ID_LETTERS, _SECRET_LETTERS, _CHECK_LETTERS = 12, 40, 6
_FORM = re.compile(rf"prg_[0-9A-Za-z]{{{_ID_LETTERS + _SECRET_LETTERS + _CHECK_LETTERS}}}")
_ID = re.compile(rf"[0-9A-Za-z]{{{_ID_LETTERS}}}")
PATTERN = "[A-Za-z0-9 ._*?-]+"
"""Of names, as a token has them."""
MAX_PATTERNS = 100
"""Of one token: a list that it reads is filtered by all of them."""
MAX_LABEL_CHARACTERS = 200
MAX_LIFETIME_S = 999_999 * 86_400
"""So that the end of a token is a moment that can be written down."""
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
        """Whether a plugin called *name* may be registered with this token, and its registrations be read."""
        return name_is_like(name, self.names)


def name_is_like(name: str, patterns: Sequence[str]) -> bool:
    """Whether *name* is like one of *patterns*, none of them meaning any name.

    ``*`` and ``?`` stand for others, every other character for itself; `named_like` says the same in SQL.
    """
    if not patterns:
        return True
    name = normalised(name)
    return any(fnmatchcase(name, _as_fnmatch(pattern)) for pattern in patterns)


@lru_cache(4096)
def _as_fnmatch(pattern: str) -> str:
    return normalised(pattern).replace("[", "[[]")


@dataclass(frozen=True)
class NewToken(Token):
    """A token as it is handed out, *text* and all."""

    text: str = field(repr=False)
    """The token, whole. It is shown once."""


class LastAdmin(Exception):
    """Without this token nobody could make another over the API."""


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


def parse_label(label: str) -> str:
    """Return *label*, or raise ValueError."""
    if len(label) > MAX_LABEL_CHARACTERS:
        raise ValueError(f"may have {MAX_LABEL_CHARACTERS} characters at most")
    return refuse_hidden(label)


def parse_pattern(pattern: str) -> str:
    """Return *pattern*, of names, or raise ValueError."""
    if len(pattern) > MAX_NAME_CHARACTERS:
        raise ValueError(f"may have {MAX_NAME_CHARACTERS} characters at most, as a name")
    if re.fullmatch(PATTERN, pattern) is None:
        raise ValueError("is no pattern of names: use letters, digits, spaces, . _ - * and ?")
    return pattern


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
        by: Operator | None = None,
    ) -> NewToken:
        """Store a new token and return it with its text, which cannot be had again.

        It is recorded *by* whom, if by a token; who has the store itself leaves no record.

        Raises:
            ValueError: a pattern can match no name, or is none; there are too many; something is hidden in the label.
        """
        _refuse_bad(label, names)
        credential = mint()
        new = insert(tokens).values(
            id=credential.id,
            label=label,
            secret_sha256=_sha256(credential.secret),
            scopes=",".join(sorted(set(scopes))),
            names="\n".join(names),
            created_at=_NOW,
            expires_at=None if lifetime_s is None else _NOW + int(lifetime_s * 1000),
        )
        with self._database.write() as connection:
            token = _token(connection.execute(new.returning(*tokens.c)).mappings().one())
            if by is not None:
                record_other(connection, by, "create-token", token.id, token.label)
        return NewToken(**vars(token), text=credential.text)

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

    def revoke(self, token_id: str, *, by: Operator | None = None) -> Token | None:
        """Revoke a token at once and for good; return it as it is then, None where there is none of that id.

        It is recorded *by* whom, if by a token, and the first time alone. Such a one may revoke every token, itself
        too, but for the last that could make another: who has the store itself can always do that.

        Raises:
            LastAdmin: it is that one.
        """
        if _ID.fullmatch(token_id) is None:  # not every database takes every character
            return None
        this = tokens.c.id == token_id
        with self._database.write() as connection:
            if by is not None and _admins(connection) == {token_id}:
                raise LastAdmin
            revoking = update(tokens).where(this, tokens.c.revoked_at.is_(None)).values(revoked_at=_NOW)
            row = connection.execute(revoking.returning(*tokens.c)).mappings().first()
            if row is not None and by is not None:
                record_other(connection, by, "revoke-token", token_id, row["label"])
            if row is None:  # it was revoked before, or there is none
                row = connection.execute(select(tokens).where(this)).mappings().first()
        return _token(row) if row is not None else None


def _admins(connection: Connection) -> set[str]:
    """Return the ids of the tokens that may make others, and keep them as they are until the transaction ends.

    Else two that revoke each other at the same time would both be gone (on SQLite, one writes at a time anyhow).
    """
    good = (tokens.c.revoked_at.is_(None), or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > _NOW))
    admin = (literal(",") + tokens.c.scopes + ",").contains(",admin,")
    found = select(tokens.c.id).where(*good, admin, tokens.c.names == "").order_by(tokens.c.id).with_for_update()
    return set(connection.execute(found).scalars())


def _refuse_bad(label: str, names: Collection[str]) -> None:
    try:
        parse_label(label)
    except ValueError as error:
        raise ValueError(f"the label {error}") from error
    if len(names) > MAX_PATTERNS:
        raise ValueError(f"a token may have {MAX_PATTERNS} patterns of names at most")
    for pattern in names:
        try:
            parse_pattern(pattern)
        except ValueError as error:
            raise ValueError(f"{pattern!r} {error}") from error


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
