"""The URLs of settings: parsed when settings are read, and refused with a reason that quotes none of them.

They hold passwords, and each of their readers (libpq, SQLAlchemy, kombu, redis) reads a bad one in its own way, late,
and quotes it. So what is let through here is what all of them read alike.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE = re.compile(r"[^!-~]")
LIBPQ_OPTIONS = frozenset(  # fifty lines of one word each say no more
    "application_name channel_binding client_encoding connect_timeout dbname fallback_application_name "  # noqa: SIM905
    "gssdelegation gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle "
    "keepalives_interval krbsrvname load_balance_hosts max_protocol_version min_protocol_version oauth_client_id "
    "oauth_client_secret oauth_issuer oauth_scope options passfile password port replication require_auth "
    "requirepeer scram_client_key scram_server_key service ssl_max_protocol_version ssl_min_protocol_version "
    "sslcert sslcertmode sslcompression sslcrl sslcrldir sslkey sslkeylogfile sslmode sslnegotiation sslpassword "
    "sslrootcert sslsni target_session_attrs tcp_user_timeout user".split()
)
"""What a PostgreSQL URL may say behind its '?' (PostgreSQL 18, section 34.1.2)."""

BrokerKind = Literal["redis", "sentinel", "amqp"]
_BROKERS: Mapping[str, tuple[BrokerKind, bool]] = {
    "redis": ("redis", False),
    "rediss": ("redis", True),
    "redis+socket": ("redis", False),
    "sentinel": ("sentinel", False),
    "sentinels": ("sentinel", True),
    "amqp": ("amqp", False),
    "pyamqp": ("amqp", False),
    "amqps": ("amqp", True),
}
"""By scheme: what is spoken, and whether over TLS. `sentinels` is ours: no reader has a word for that."""
_KOMBU_SCHEMES = {"sentinels": "sentinel"}
CERTIFICATE_CHECKS = ("required", "optional", "none")


@dataclass(frozen=True)
class Broker:
    """A broker: how kombu is told of it, and how certificates are checked: not at all where there is no TLS."""

    url: str
    kind: BrokerKind
    tls: bool
    check: str = "required"
    certificate_file: str | None = None
    key_file: str | None = None


def parse_database_url(text: str, password: str | None = None) -> str:
    """Return the URL of a store as SQLAlchemy is to be told it, with *password* in it.

    Raises:
        ValueError: why it is none.
    """
    if _scheme(text) in {"sqlite", "sqlite+pysqlite"}:
        path = text.partition("://")[2]
        if not path.startswith("/") or path == "/":
            raise ValueError("names no file: write sqlite:///FILE, or sqlite:////FOLDER/FILE from the root")
        if "?" in text:
            raise ValueError("has a '?', and a file takes no options: in its name write %3F")
        if password is not None:
            raise ValueError("is a file, which has no password: leave REGISTRY_DATABASE_PASSWORD out")
        return text
    if _scheme(text) not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise ValueError("must begin with postgresql:// or sqlite:///")
    parts = _split(text)
    if not {name for name, _value in parse_qsl(parts.query, keep_blank_values=True)} <= LIBPQ_OPTIONS:
        raise ValueError(
            "has an option behind its '?' that PostgreSQL does not know: see section 34.1.2 of its manual"
        )
    if parts.path.strip("/").count("/"):
        raise ValueError("has more than one name behind its host: a '/' in a database's name is written %2F")
    return _with_password(parts._replace(scheme="postgresql"), password, "REGISTRY_DATABASE_PASSWORD", user=True)


def sqlite_url(file: Path) -> str:
    """Return the URL of the store in *file*, whatever its name holds."""
    return f"sqlite:///{quote(str(file))}"


def parse_broker_url(text: str, password: str | None = None) -> Broker:
    """Return the broker that *text* names, with *password*. Several URLs of one kind may stand there, between ';'.

    Raises:
        ValueError: why it names none.
    """
    brokers = [_broker(each, password) for each in text.split(";") if each]
    if not brokers:
        raise ValueError("names no broker")
    first = brokers[0]
    if any((each.kind, each.tls, each.check) != (first.kind, first.tls, first.check) for each in brokers):
        raise ValueError("names brokers of several kinds: all between ';' must begin, and check certificates, alike")
    if len(brokers) > 1 and first.kind == "redis":
        raise ValueError("names several Redis servers, between which nobody decides: use sentinel://, or one of them")
    return Broker(
        ";".join(each.url for each in brokers),
        *(first.kind, first.tls, first.check, first.certificate_file, first.key_file),
    )


def _broker(text: str, password: str | None) -> Broker:
    scheme = _scheme(text)
    if scheme not in _BROKERS:
        raise ValueError("must begin with redis://, rediss://, sentinel://, sentinels://, amqp:// or amqps://")
    kind, tls = _BROKERS[scheme]
    parts = _split(text)
    if scheme == "redis+socket":
        if parts.hostname or not parts.path:
            raise ValueError("names no socket: write redis+socket:///FOLDER/SOCKET")
        _options(parts, {"virtual_host"})
        return Broker(_with_password(parts, password, "REGISTRY_BROKER_PASSWORD"), kind, tls)
    if not parts.hostname:
        raise ValueError("names no host")
    if kind != "amqp" and not (parts.path in {"", "/"} or parts.path[1:].isdecimal()):
        raise ValueError("must end with the number of a database, such as /0, or with the port")
    options = _options(parts, {"ssl_cert_reqs", "ssl_certfile", "ssl_keyfile"} if tls else set())
    check = options.get("ssl_cert_reqs", "required").removeprefix("CERT_").lower()
    if check not in CERTIFICATE_CHECKS:
        raise ValueError("ssl_cert_reqs must be required, optional or none")
    plain = parts._replace(scheme=_KOMBU_SCHEMES.get(scheme, scheme), query="")
    return Broker(
        _with_password(plain, password, "REGISTRY_BROKER_PASSWORD", user=kind == "amqp"),
        *(kind, tls, check, options.get("ssl_certfile"), options.get("ssl_keyfile")),
    )


def parse_proxy_url(text: str) -> str:
    """Return *text* if it is http://HOST:PORT, with a user and a password or without.

    Raises:
        ValueError: why it is not.
    """
    parts = _split(text) if _scheme(text) == "http" else None
    if parts is None or not parts.hostname or not parts.port or parts.path.strip("/") or parts.query:
        raise ValueError("must be http://HOST:PORT")
    return text


def _scheme(text: str) -> str:
    return text.partition("://")[0].lower() if "://" in text else ""


def _split(text: str) -> SplitResult:
    """Return the parts of a URL that all read alike.

    Raises:
        ValueError: it could be read in several ways, or in none.
    """
    if _UNPRINTABLE.search(text):
        raise ValueError("holds a space, or a character beyond ASCII: write its bytes as %XX")
    if "#" in text:
        raise ValueError("holds a '#', where a URL ends: in a password write it as %23")
    userinfo, at, place = text.partition("://")[2].rpartition("@")
    if at and set(userinfo) & set("/?@[]"):
        raise ValueError(
            "has an '@' too many: in a user, a password or behind the host '/' is written %2F, '?' %3F, '@' %40"
        )
    if _STRAY_PERCENT.search(userinfo):
        raise ValueError("holds a '%' in its user or password that begins no %XX: write it as %25")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ValueError("names a host that is none: an IPv6 address stands between [ and ]") from None
    try:
        zero = parts.port == 0
    except ValueError:
        zero = True
    if zero or place.partition("/")[0].partition("?")[0].endswith(":"):
        raise ValueError("has a port that is no number between 1 and 65535")
    return parts


def _options(parts: SplitResult, known: set[str]) -> dict[str, str]:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if not set(options) <= known:
        may = f"only {', '.join(sorted(known))} may stand" if known else "nothing may stand"
        raise ValueError(f"has an option behind its '?' that is not known: {may} there")
    return options


def _with_password(parts: SplitResult, password: str | None, variable: str, *, user: bool = False) -> str:
    if password is None:
        return _text(parts)
    if parts.password is not None:
        raise ValueError(f"holds a password, and {variable} another: leave one of them out")
    if user and not parts.username:
        raise ValueError(f"names no user, whose password {variable} is")
    userinfo = f"{quote(unquote(parts.username or ''), safe='')}:{quote(password, safe='')}"
    return _text(parts._replace(netloc=f"{userinfo}@{parts.netloc.rpartition('@')[2]}"))


def _text(parts: SplitResult) -> str:
    """Return the URL of *parts*; `geturl` drops the '//' where no host stands."""
    return f"{parts.scheme}://{parts.netloc}{parts.path}{f'?{parts.query}' if parts.query else ''}"
