"""Stores for tests: each empty and of its own, copied from one that was migrated once."""

import atexit
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlmodel import SQLModel

from shared.store import schema
from shared.store.database import Database, open_database
from shared.store.schema import migrate
from tests.engines import fresh_database

_numbers = count(1)


@cache
def migrated_file() -> Path:
    """Return an embedded store, migrated, that nobody opens."""
    folder = Path(tempfile.mkdtemp(prefix="template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "registry.db"
    with closing(open_database(f"sqlite:///{path}")) as database:
        migrate(database)
    assert not path.with_name("registry.db-wal").exists(), "all of it is in the one file"
    return path


def sqlite_store(path: Path) -> str:
    """Make an embedded store at *path*, and return its URL."""
    shutil.copyfile(migrated_file(), path)
    return f"sqlite:///{path}"


@cache
def _migrated_database(maintenance_url: str) -> str:
    """Return the name of a database, migrated, that nobody connects to."""
    name = _made(maintenance_url, "template1")
    with closing(open_database(_url_of(maintenance_url, name))) as database:
        migrate(database)
    return name


@contextmanager
def postgresql_store(maintenance_url: str) -> Iterator[str]:
    """Make a store on PostgreSQL for the length of the block, and yield its URL."""
    template = _migrated_database(maintenance_url)
    with fresh_database(maintenance_url, template=template) as url:
        yield url


@contextmanager
def emptied_postgresql_store(maintenance_url: str) -> Iterator[str]:
    """Yield the URL of a store on PostgreSQL that others have used before, and left empty."""
    free = _emptied(maintenance_url)
    name = free.pop() if free else _copied(maintenance_url)
    url = _url_of(maintenance_url, name)
    yield url
    with psycopg.connect(url, autocommit=True) as connection:
        for table in SQLModel.metadata.sorted_tables:
            kept = " WHERE name <> 'feed'" if table.name == "marks" else ""  # which a migration wrote
            connection.execute(f"DELETE FROM {table.name}{kept}")  # of few rows that is faster than to truncate
    free.append(name)


@cache
def _emptied(_maintenance_url: str) -> list[str]:
    """Return the names of those that nobody uses now."""
    return []


def _copied(maintenance_url: str) -> str:
    return _made(maintenance_url, _migrated_database(maintenance_url))


def _made(maintenance_url: str, template: str) -> str:
    """Make a database that is dropped when this process ends, and return its name."""
    name = f"registry_{secrets.token_hex(6)}"
    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    atexit.register(_drop, maintenance_url, name)
    return name


def _drop(maintenance_url: str, name: str) -> None:
    with suppress(psycopg.OperationalError), psycopg.connect(maintenance_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _url_of(maintenance_url: str, name: str) -> str:
    head, _, query = maintenance_url.partition("?")
    return head.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")


@contextmanager
def a_store(kind: str, folder: Path, maintenance_url: str) -> Iterator[Database]:
    """Make a store of *kind*, ``sqlite`` or ``postgresql``, and open it for the length of the block."""
    if kind == "sqlite":
        with closing(open_database(sqlite_store(folder / f"registry-{next(_numbers)}.db"))) as database:
            yield database
        return
    with postgresql_store(maintenance_url) as url, closing(open_database(url)) as database:
        yield database


@contextmanager
def empty_store(kind: str, folder: Path, maintenance_url: str) -> Iterator[Database]:
    """Open a database of *kind* that has no tables yet, for the length of the block."""
    if kind == "sqlite":
        with closing(open_database(f"sqlite:///{folder / f'empty-{next(_numbers)}.db'}")) as database:
            yield database
        return
    with fresh_database(maintenance_url) as url, closing(open_database(url)) as database:
        yield database


@contextmanager
def newer_release(folder: Path, upgrade: str, *, oldest_code: str | None = None) -> Iterator[str]:
    """Have `migrate` be that of a release with one migration more, and yield its version.

    It does *upgrade*, SQL in sentences with "; " between them, and lets code live from *oldest_code* on, or says
    nothing of that. Processes that run are of the release before.
    """
    before = max(path.name[:4] for path in (schema.MIGRATIONS / "versions").glob("*.py"))
    version = f"{int(before) + 1:04}"
    scripts = folder / f"migrations-{version}"
    shutil.copytree(schema.MIGRATIONS, scripts)
    said = "" if oldest_code is None else f"OLDEST_CODE = {oldest_code!r}\n"
    (scripts / "versions" / f"{version}_next.py").write_text(
        "from alembic import op\n"
        f"revision, down_revision = {version!r}, {before!r}\n{said}\n"
        f"def upgrade():\n    for sentence in {upgrade.split('; ')!r}:\n        op.execute(sentence)\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "MIGRATIONS", scripts)
        patch.setattr(schema, "SCHEMA_VERSION", version)
        yield version
