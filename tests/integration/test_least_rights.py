"""Whoever serves may read and write what is in the tables; whoever migrates owns them, and is no superuser."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from shared.errors import StoreUnavailable
from shared.registration import Status
from shared.store.counters import Counters
from shared.store.database import open_database
from shared.store.registrations import Store
from shared.store.schema import check_schema, grant, migrate
from tests.conftest import a_parsed_submission
from tests.contracts import claim, register, submit
from tests.engines import fresh_database
from tests.running import run
from tests.stores import newer_release, sqlite_store

ODD = 'we"ird %s role; DROP TABLE tokens'


@dataclass(frozen=True)
class Roles:
    """URLs of one database, by who asks."""

    superuser: str
    owner: str
    server: str
    odd: str


@pytest.fixture
def roles(postgresql_url: str) -> Iterator[Roles]:
    names = ("owner_of_ours", "server_of_ours", ODD)
    with fresh_database(postgresql_url) as url, psycopg.connect(postgresql_url, autocommit=True) as server:
        name = make_url(url).database
        try:
            for role in names:
                server.execute(f"CREATE ROLE {_quoted(role)} LOGIN")
            server.execute(f"ALTER DATABASE {name} OWNER TO owner_of_ours")
            yield Roles(url, *(make_url(url).set(username=role).render_as_string(False) for role in names))
        finally:
            with psycopg.connect(url, autocommit=True) as here:
                for role in names:
                    here.execute(f"ALTER DATABASE {name} OWNER TO postgres")
                    here.execute(f"DROP OWNED BY {_quoted(role)}; DROP ROLE {_quoted(role)}")


def migrated(url: str, *roles: str) -> None:
    with closing(open_database(url)) as database:
        migrate(database)
        for role in roles:
            grant(database, role)


REFUSED = {
    "run a program": "COPY tokens (id) FROM PROGRAM 'id'",
    "read a file": "COPY tokens (id) FROM '/etc/passwd'",
    "drop a table": "DROP TABLE registrations",
    "empty a table": "TRUNCATE registrations",
    "alter a table": "ALTER TABLE registrations ADD COLUMN x TEXT",
    "make a table": "CREATE TABLE ours (id TEXT)",
    "make a schema": "CREATE SCHEMA ours",
    "make an index": "CREATE INDEX ON registrations (id)",
    "change the version": "UPDATE alembic_version SET version_num = '9999'",
    "make a role": "CREATE ROLE another",
}


def test_a_role_that_serves_may_do_nothing_else(roles: Roles) -> None:
    ended = run("migrate", "--grant-to", "server_of_ours", "--grant-to", ODD, env=_env(roles.owner))
    assert (ended.returncode, ended.stderr) == (0, "")
    migrated(roles.owner, "server_of_ours")  # again changes nothing
    for url in (roles.server, roles.odd):
        assert {what for what in REFUSED if not _refused(url, REFUSED[what])} == set()
        with closing(open_database(url)) as database:
            check_schema(database)
            store = Store(database)
            assert register(store, claim(store, submit(store, a_parsed_submission()))) is Status.REGISTERED
            Counters(database).count()


def _refused(url: str, sentence: str) -> bool:
    with closing(open_database(url)) as database:
        try:
            with database.write() as connection:
                connection.exec_driver_sql(sentence)
        except StoreUnavailable as error:
            return error.reason.startswith("SQLSTATE 42501")
        return False


def test_tables_that_later_migrations_make_are_served_too(roles: Roles, tmp_path: Path) -> None:
    migrated(roles.owner, "server_of_ours")
    with newer_release(tmp_path, "CREATE TABLE later (id VARCHAR)"):
        migrated(roles.owner)
    with psycopg.connect(roles.server) as connection:
        connection.execute("INSERT INTO later VALUES ('one')")
    assert _refused(roles.server, "DROP TABLE later")


def test_without_a_grant_a_role_is_told_what_it_lacks(roles: Roles) -> None:
    migrated(roles.owner)
    for asks in (check_schema, migrate):
        with closing(open_database(roles.server)) as database, pytest.raises(StoreUnavailable) as raised:
            asks(database)
        assert raised.value.reason == "SQLSTATE 42501, permission denied for table alembic_version"


def test_a_role_that_is_not_there_is_told(roles: Roles, tmp_path: Path) -> None:
    for url, expected in (
        (roles.owner, "plugin-registry: There is no role 'nobody' to grant anything to: make it first"),
        (sqlite_store(tmp_path / "registry.db"), "plugin-registry: SQLite has no roles"),
    ):
        ended = run("migrate", "--grant-to", "nobody", env=_env(url))
        assert ended.returncode == 1
        assert ended.stderr.startswith(expected)
        assert len(ended.stderr.splitlines()) == 1


def test_a_schema_in_which_everybody_may_make_tables_is_told(roles: Roles) -> None:
    """As `public` is before PostgreSQL 15."""
    with psycopg.connect(roles.superuser) as connection:
        connection.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    ended = run("migrate", "--grant-to", "server_of_ours", env=_env(roles.owner))
    assert ended.returncode == 0
    assert "server_of_ours may make tables" in ended.stderr


def _env(url: str) -> dict[str, str]:
    return {"REGISTRY_DATABASE_URL": url, "REGISTRY_BROKER_URL": "redis://127.0.0.1:1/0"}


def _quoted(role: str) -> str:
    return '"' + role.replace('"', '""') + '"'
