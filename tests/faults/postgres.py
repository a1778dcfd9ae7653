"""A PostgreSQL of the tests' own that can be stopped, killed and started again."""

import pwd
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from sqlalchemy import make_url

from tests.engines import postgresql
from tests.running import PATIENCE_S, until


class Postgres:
    """A server, by the URL of its maintenance database."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._data = Path(str(make_url(url).query["host"])) / "data"
        self._command = self._postmaster().cmdline()
        self._user = pwd.getpwuid(self._postmaster().uids().real).pw_name
        self._again: subprocess.Popen[bytes] | None = None

    def _postmaster(self) -> psutil.Process:
        return psutil.Process(int((self._data / "postmaster.pid").read_text().split()[0]))

    def _processes(self) -> list[psutil.Process]:
        postmaster = self._postmaster()
        return [postmaster, *postmaster.children(recursive=True)]

    def suspend(self) -> None:
        """Stop every process of the server where it stands."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Have it stand still for the length of the block."""
        self.suspend()
        try:
            yield
        finally:
            self.resume()

    def resume(self) -> None:
        """Let them go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def crash(self) -> None:
        """Kill every process of the server."""
        processes = self._processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        processes[0].wait(PATIENCE_S)  # for as long as nobody has, the next one takes it to be running
        until(lambda: not any(_lives(each) for each in processes), what="the end of PostgreSQL")

    def start(self) -> None:
        """Start the server again on what it has on disk."""
        if self._again is not None:
            self._again.wait(PATIENCE_S)  # it has crashed, too
        changed = self._user != psutil.Process().username()
        self._again = subprocess.Popen(
            self._command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            user=self._user if changed else None,
        )
        until(self._answers, what="PostgreSQL")

    def close(self) -> None:
        """End the server, if it is one that was started again."""
        if self._again is not None:
            self._again.terminate()
            self._again.wait(PATIENCE_S)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError):
            psycopg.connect(self.url).close()
            return True
        return False


def _lives(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


@contextmanager
def own_postgresql() -> Iterator[Postgres]:
    """Run a PostgreSQL that nobody else uses, so that anything may be done to it."""
    with postgresql() as url:
        server = Postgres(url)
        try:
            yield server
        finally:
            server.close()
