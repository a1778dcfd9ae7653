"""A store that refuses is told with its reason, for those who operate it: what the database said, and no secret."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
import trustme
from sqlalchemy import URL, make_url, text

from shared.errors import StoreUnavailable
from shared.store import database as database_module
from shared.store.database import Database, _reason, open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema
from tests.conftest import a_parsed_submission
from tests.engines import fresh_database
from tests.faults.proxy import proxy_to_database
from tests.pooler import pgbouncer
from tests.running import run, until
from tests.stores import emptied_postgresql_store, sqlite_store

SECRET = "hunter2-of-the-store"
DISK_FULL = """
CREATE FUNCTION full_up() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'could not extend file "base/5/16384": No space left on device' USING ERRCODE = 'disk_full';
END $$;
CREATE TRIGGER full_up BEFORE INSERT ON registrations EXECUTE FUNCTION full_up()
"""


def reason_of(url: str) -> str:
    """Return why the store at *url* takes nothing."""

    def take(database: Database) -> None:
        check_schema(database)
        Store(database).submit([(a_parsed_submission(), "tests")])

    with closing(open_database(url)) as database, pytest.raises(StoreUnavailable) as raised:
        take(database)
    assert raised.value.detail == "The store cannot be reached or cannot take this now.", "it is for anybody"
    assert raised.value.failure().detail == raised.value.detail
    assert raised.value.reason in str(raised.value)
    assert SECRET not in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "INSERT INTO" not in str(raised.value)
    return raised.value.reason


def _connected(url: str) -> psycopg.Connection[Any] | None:
    with suppress(psycopg.OperationalError):
        return psycopg.connect(url)
    return None


@pytest.fixture
def url(postgresql_url: str) -> Iterator[URL]:
    """A store on a port, whose URL holds a password."""
    with emptied_postgresql_store(postgresql_url) as url:
        proxy, through = proxy_to_database(url)
        try:
            yield make_url(through).set(password=SECRET)
        finally:
            proxy.close()


WRONG: dict[str, tuple[Callable[[URL], URL], str]] = {
    "role": (lambda url: url.set(username="nobody_of_ours"), 'FATAL: role "nobody_of_ours" does not exist'),
    "database": (lambda url: url.set(database="nowhere"), 'FATAL: database "nowhere" does not exist'),
    "host": (lambda url: url.set(host="no.such.host.invalid"), "no.such.host.invalid"),
    "port": (lambda url: url.set(port=1), "Connection refused"),
    "TLS": (lambda url: url.set(query={"sslmode": "require"}), "SSL was required"),
    "parameter": (lambda url: url.set(query={"bogus": "1"}), 'invalid connection option "bogus"'),
    "read-only": (
        lambda url: url.set(query={"options": "-c default_transaction_read_only=on", "sslmode": "disable"}),
        "SQLSTATE 25006, cannot execute INSERT in a read-only transaction",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_the_url_is_told(url: URL, what: str) -> None:
    change, expected = WRONG[what]
    assert expected in reason_of(change(url).render_as_string(hide_password=False))


def test_a_server_that_has_no_room_left_is_told(url: URL, postgresql_url: str) -> None:
    with fresh_database(postgresql_url, template=str(url.database)) as full:
        with psycopg.connect(full) as connection:
            connection.execute(DISK_FULL)
        assert reason_of(full).startswith("SQLSTATE 53100, could not extend file")


def test_too_many_connections_and_missing_rights_are_told(url: URL, postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url, autocommit=True) as server:
        server.execute("CREATE ROLE crowded LOGIN CONNECTION LIMIT 1")
        try:
            crowded = url.set(username="crowded").render_as_string(hide_password=False)
            assert reason_of(crowded) == "SQLSTATE 42501, permission denied for table alembic_version"
            with until(lambda: _connected(crowded), what="the end of the connection before"):
                assert 'too many connections for role "crowded"' in reason_of(crowded)
        finally:
            server.execute("DROP ROLE crowded")


def test_a_statement_that_took_too_long_and_a_lock_are_told(url: URL) -> None:
    hurried = url.set(query={"options": "-c statement_timeout=200 -c lock_timeout=100", "sslmode": "disable"})
    text_of = hurried.render_as_string(hide_password=False)
    with psycopg.connect(url.render_as_string(hide_password=False)) as locker:
        locker.execute("LOCK TABLE registrations")
        assert reason_of(text_of) == "SQLSTATE 55P03, canceling statement due to lock timeout"
    with (
        closing(open_database(text_of)) as database,
        pytest.raises(StoreUnavailable) as raised,
        database.write() as connection,
    ):
        connection.execute(text("SELECT pg_sleep(10)"))
    assert raised.value.reason == "SQLSTATE 57014, canceling statement due to statement timeout"


def test_every_connection_being_busy_is_told(postgresql_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with emptied_postgresql_store(postgresql_url) as url, closing(open_database(url, connections=1)) as database:
        monkeypatch.setattr(database.engine.pool, "_timeout", 0.1)
        with database.read(), pytest.raises(StoreUnavailable) as raised:
            check_schema(database)
    assert "every connection of this process was busy" in raised.value.reason


@pytest.mark.program("pgbouncer")
def test_a_wrong_password_and_a_certificate_of_nobodys_are_told(postgresql_url: str, tmp_path: Path) -> None:
    """Of PgBouncer, which is easily given both."""
    ours, theirs = trustme.CA(), trustme.CA()
    issued = ours.issue_cert("127.0.0.1")
    for name, each in (("ours", ours), ("theirs", theirs)):
        each.cert_pem.write_to_path(tmp_path / f"{name}.pem")
    files = {
        "client_tls_key_file": issued.private_key_pem.bytes().decode(),
        "client_tls_cert_file": issued.cert_chain_pems[0].bytes().decode(),
        "auth_file": '"postgres" "right"\n',
    }
    settings = ("client_tls_sslmode = require", "auth_type = plain")
    with (
        emptied_postgresql_store(postgresql_url) as url,
        pgbouncer(postgresql_url, *settings, files=files) as through,
    ):
        leads = make_url(through(url)).set(password=SECRET)
        wrong = leads.render_as_string(hide_password=False)
        assert "password authentication failed" in reason_of(wrong)
        right = leads.set(password="right", query={"sslmode": "verify-full"})
        unknown = right.update_query_dict({"sslrootcert": str(tmp_path / "theirs.pem")})
        assert "certificate verify failed" in reason_of(unknown.render_as_string(hide_password=False))
        known = right.update_query_dict({"sslrootcert": str(tmp_path / "ours.pem")})
        with closing(open_database(known.render_as_string(hide_password=False))) as database:
            check_schema(database)


def test_a_password_that_a_database_repeats_is_not_told() -> None:
    said = psycopg.OperationalError(f'connection failed: no host "{SECRET}"\n\tIs the server running?')
    assert _reason(said, SECRET) == 'connection failed: no host "***"'


def test_what_sqlite_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    assert (
        reason_of(f"sqlite:///{tmp_path / 'none' / 'registry.db'}") == "SQLITE_CANTOPEN, unable to open database file"
    )
    url = sqlite_store(tmp_path / "registry.db")
    with closing(sqlite3.connect(tmp_path / "registry.db", isolation_level=None)) as locker:
        locker.execute("BEGIN IMMEDIATE")
        assert reason_of(url) == "SQLITE_BUSY, database is locked"


@pytest.mark.parametrize("command", [["migrate"], ["token", "list"]])
def test_commands_on_the_store_say_the_reason_in_one_line(command: list[str], url: URL) -> None:
    there = url.set(username="nobody_of_ours").render_as_string(hide_password=False)
    ended = run(*command, env={"REGISTRY_DATABASE_URL": there, "REGISTRY_BROKER_URL": "redis://127.0.0.1:1/0"})
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert 'role "nobody_of_ours" does not exist' in ended.stderr
    assert SECRET not in ended.stderr
