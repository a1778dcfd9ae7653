"""Services by themselves, started as they are documented, over a store and a broker that a test chooses."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import psutil

from tests import forks
from tests.running import PATIENCE_S, clean_environment, until

CELERY = (sys.executable, "-m", "celery", "--quiet", "--app")
QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat")
COMMANDS = {
    "worker": (*CELERY, "worker.main", "worker", "--pool", "threads", "--concurrency", "2", *QUIET),
    "beat": (*CELERY, "worker.clock", "beat"),
    "beat of the worker's app": (*CELERY, "worker.main", "beat"),
    "api": (sys.executable, "-m", "api.main", "--port", "0"),
    "migrate": (sys.executable, "-m", "plugin_registry_client", "migrate"),
}


@dataclass
class Service:
    """A running one, and what it said."""

    process: "subprocess.Popen[bytes]"
    output: Path

    @property
    def said(self) -> str:
        return self.output.read_text()

    @property
    def runs(self) -> bool:
        return self.process.poll() is None

    @property
    def ports(self) -> list[int]:
        """Where it listens."""
        wires = psutil.Process(self.process.pid).net_connections("tcp")
        return [wire.laddr.port for wire in wires if wire.status == psutil.CONN_LISTEN]

    def says(self, words: str) -> str:
        """Return what it said once that holds *words*."""

        def found() -> str | None:
            assert words in self.said or self.runs, self.said
            return self.said if words in self.said else None

        said: str = until(found, what=f"{words!r} from {self.output.stem}")
        return said

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and return its status."""
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@contextmanager
def service(name: str, folder: Path, environment: Mapping[str, str], *, cwd: Path | None = None) -> Iterator[Service]:
    """Run the service called *name* for the length of the block, without a home."""
    output = folder / f"{name.replace(' ', '-').replace(chr(39), '')}.log"
    cleaned = clean_environment({"PYTHONUNBUFFERED": "1", **environment})
    cleaned.pop("HOME", None)
    _python, _m, module, *arguments = COMMANDS[name]
    with output.open("w") as log, Path(os.devnull).open("rb") as nothing:
        if cwd is None and forks.can_fork(module, cleaned):
            streams = (nothing.fileno(), log.fileno(), log.fileno())
            process = cast("subprocess.Popen[bytes]", forks.fork(module, arguments, cleaned, streams, tied=True))
        else:
            process = subprocess.Popen(COMMANDS[name], env=cleaned, cwd=cwd, stdout=log, stderr=log, stdin=nothing)
    try:
        yield Service(process, output)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
