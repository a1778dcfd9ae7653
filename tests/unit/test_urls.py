"""URLs of settings: what all their readers read alike is let through, all else is refused without being quoted."""

import pytest
from kombu.utils.url import parse_url
from psycopg import pq
from sqlalchemy import make_url

from shared.urls import LIBPQ_OPTIONS, parse_broker_url, parse_database_url, parse_proxy_url


@pytest.mark.parametrize(
    ("text", "host", "port", "user", "password", "database"),
    [
        ("postgresql://u@h/db", "h", None, "u", None, "db"),
        ("postgres://u:p%40%2F@h:5433/db?sslmode=verify-full", "h", 5433, "u", "p@/", "db"),
        ("postgresql+psycopg://u@[::1]:5/db", "::1", 5, "u", None, "db"),
        ("postgresql:///db?host=/run/postgresql", None, None, None, None, "db"),
        ("postgresql://h", "h", None, None, None, None),
        ("sqlite:////var/lib/my%20registry.db", None, None, None, None, "/var/lib/my registry.db"),
        ("sqlite:///here.db", None, None, None, None, "here.db"),
    ],
)
def test_a_store_is_read_as_sqlalchemy_reads_it(
    text: str, host: str | None, port: int | None, user: str | None, password: str | None, database: str | None
) -> None:
    url = make_url(parse_database_url(text))
    assert (url.host, url.port, url.username, url.password, url.database or None) == (
        host,
        port,
        user,
        password,
        database,
    )
    assert url.get_backend_name() == ("sqlite" if text.startswith("sqlite") else "postgresql")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("postgresql://u:abc#def@h/db", "'#'"),
        ("postgresql://u:a/b@h/db", "'@' too many"),
        ("postgresql://u:a?b@h/db", "'@' too many"),
        ("postgresql://u:a@b@h/db", "'@' too many"),
        ("postgresql://u:50%off@h/db", "'%'"),
        ("postgresql://u@h/db?bogus=1", "option"),
        ("postgresql://u@h/db?bogus", "option"),
        ("postgresql://u@h:bad/db", "port"),
        ("postgresql://u@h:0/db", "port"),
        ("postgresql://u@h:65536/db", "port"),
        ("postgresql://u@h:/db", "port"),
        ("postgresql://u@[::1/db", "IPv6"),
        ("postgresql://u@h/db/other", "more than one name"),
        ("postgresql://u@h/d b", "space"),
        ("postgresql://u:geheimß@h/db", "ASCII"),
        ("mysql://h/db", "must begin with"),
        ("db.example/registry", "must begin with"),
        ("postgresql:/db", "must begin with"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite://registry.db", "names no file"),
        ("sqlite:///registry.db?mode=ro", "'?'"),
    ],
)
def test_a_bad_store_is_refused_with_its_reason(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("?", r"\?")) as refused:
        parse_database_url(text)
    _quotes_nothing(str(refused.value), text)


@pytest.mark.parametrize(
    ("text", "kind", "tls", "check"),
    [
        ("redis://h", "redis", False, "required"),
        ("redis://:p%40@h:6380/3", "redis", False, "required"),
        ("rediss://u:p@h/0", "redis", True, "required"),
        ("rediss://h/0?ssl_cert_reqs=none", "redis", True, "none"),
        ("rediss://h/0?ssl_cert_reqs=CERT_OPTIONAL", "redis", True, "optional"),
        ("sentinel://one:26379;sentinel://two:26379", "sentinel", False, "required"),
        ("sentinels://one:26379", "sentinel", True, "required"),
        ("amqp://u:p@h//", "amqp", False, "required"),
        ("amqps://u:p@one/vhost;amqps://u:p@two/vhost", "amqp", True, "required"),
        ("redis+socket:///run/valkey%20s/valkey.sock", "redis", False, "required"),
    ],
)
def test_a_broker_says_its_kind_and_whether_it_is_verified(text: str, kind: str, tls: bool, check: str) -> None:
    broker = parse_broker_url(text)
    assert (broker.kind, broker.tls, broker.check) == (kind, tls, check)
    ours = [parse_url(each) for each in text.split("?ssl", maxsplit=1)[0].replace("sentinels", "sentinel").split(";")]
    assert [parse_url(each) for each in broker.url.split(";")] == ours


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("redis://:abc#def@h/0", "'#'"),
        ("redis://:a/b@h/0", "'@' too many"),
        ("redis://h:bad/0", "port"),
        ("redis://h/name", "number of a database"),
        ("redis:///0", "no host"),
        ("redis://h/0?ssl_cert_reqs=none", "nothing may stand"),
        ("rediss://h/0?ssl_ca_certs=ca.pem", "only ssl_cert_reqs"),
        ("rediss://h/0?ssl_cert_reqs=no", "ssl_cert_reqs"),
        ("redis://one;redis://two", "nobody decides"),
        ("redis://one;amqp://two", "several kinds"),
        ("sentinel://one;sentinels://two", "several kinds"),
        ("amqp://", "no host"),
        ("redis+socket://host/path", "no socket"),
        ("redis+socket:///path?virtual=1", "only virtual_host"),
        ("memory://", "must begin with"),
        ("broker:6379", "must begin with"),
        (";", "no broker"),
    ],
)
def test_a_bad_broker_is_refused_with_its_reason(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        parse_broker_url(text)
    _quotes_nothing(str(refused.value), text)


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        ("redis://:one@h", "BROKER"),
        ("amqp://h", "BROKER"),
        ("postgresql://h/db", "DATABASE"),
        ("sqlite:///x", "DATABASE"),
    ],
)
def test_a_password_beside_a_url_that_has_no_place_for_it_is_refused(text: str, variable: str) -> None:
    parse = parse_broker_url if variable == "BROKER" else parse_database_url
    with pytest.raises(ValueError, match=f"REGISTRY_{variable}_PASSWORD"):
        parse(text, "two")


def test_a_password_that_holds_what_urls_are_made_of_arrives_as_it_is() -> None:
    password = "".join(map(chr, range(33, 127))) + "ü "
    assert make_url(parse_database_url("postgresql://u@h/db", password)).password == password
    assert parse_url(parse_broker_url("redis://h/0", password).url)["password"] == password
    assert parse_url(parse_broker_url("amqp://u@h//", password).url)["password"] == password


@pytest.mark.parametrize(
    "text", ["http://h", "https://h:1", "http://u:p#q@h:1", "http://h:1/path", "http://h:1?x", "h:1"]
)
def test_a_proxy_is_a_host_and_a_port(text: str) -> None:
    assert parse_proxy_url("http://u:p@h:3128")
    with pytest.raises(ValueError, match=r"must be|'#'"):
        parse_proxy_url(text)


def test_what_libpq_takes_is_let_through() -> None:
    assert {each.keyword.decode() for each in pq.Conninfo.get_defaults()} <= LIBPQ_OPTIONS


def _quotes_nothing(told: str, text: str) -> None:
    for part in ("abc", "def", "50%off", "geheim", "bogus", "bad", "other", "a/b", "a@b"):
        assert part not in text or part not in told
