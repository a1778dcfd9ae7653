"""A PgBouncer of the suite's own before a PostgreSQL: each transaction has whichever server connection is free."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import make_url

from tests.running import PATIENCE_S, until


@contextmanager
def pgbouncer(
    database_url: str, *settings: str, files: Mapping[str, str] | None = None
) -> Iterator[Callable[[str], str]]:
    """Run one with *settings* besides what it needs, and yield what leads a database's URL through it.

    *database_url* is any of the server's; *files* are settings that name a file, by what that holds.
    """
    server = make_url(database_url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    known = {
        "host": server.query.get("host", server.host),
        "port": server.port or 5432,
        "user": server.username,
        "password": server.password,
    }
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-", dir="/tmp"))
    try:
        lines = [
            "[databases]",
            "* = " + " ".join(f"{name}={value}" for name, value in known.items() if value is not None),
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {port}",
            "unix_socket_dir =",
            "auth_type = any",
            "pool_mode = transaction",
            *settings,
        ]
        for name, text in (files or {}).items():
            (folder / name).write_text(text)
            lines.append(f"{name} = {folder / name}")
        (folder / "pgbouncer.ini").write_text("\n".join(lines) + "\n")
        nobody = os.getuid() == 0  # it refuses to be root's
        if nobody:
            os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
        process = subprocess.Popen(
            [str(shutil.which("pgbouncer")), "--quiet", folder / "pgbouncer.ini"],
            user="nobody" if nobody else None,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: _listens(port), what="PgBouncer")
            yield lambda url: make_url(url).set(host="127.0.0.1", port=port, query={}).render_as_string(False)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)
    finally:
        shutil.rmtree(folder)


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
