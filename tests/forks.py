"""The command, loaded once and forked for each run: a process of its own each time, without a second of imports.

Only what is imported is shared; arguments, environment, folder and streams are those of each run. What a Python
decides as it starts is not among them: where that differs, the command is started.
"""

import atexit
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

_LOADED = (
    *("cli.up", "cli.demo", "cli.register", "cli.queue", "cli.operate", "cli.tokens", "cli.migrate", "cli.backup"),
    *("cli.doctor", "alembic.command", "shared.store.postgresql", "sqlalchemy.dialects.sqlite"),
)
_DECIDED_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
_MOST_BYTES = 2**17


class Forked:
    """One run of the command."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = os.pidfd_open(pid)

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)  # nobody else has this id before it was waited for

    def wait(self, timeout_s: float, /) -> int:
        """Return its status as `subprocess` tells it, once it has ended; it is killed when that takes too long."""
        if self.returncode is None:
            in_time = bool(select.select([self._ended], [], [], timeout_s)[0])
            if not in_time:
                self.send_signal(signal.SIGKILL)
            self.returncode = int(_server().ask({"ended": self.pid}))
            os.close(self._ended)
            if not in_time:
                raise subprocess.TimeoutExpired("plugin-registry", timeout_s)
        return self.returncode


def can_fork(environment: Mapping[str, str]) -> bool:
    """Return whether a Python that starts in *environment* starts as one in ours does."""

    def decided(variables: Mapping[str, str]) -> dict[str, str]:
        return {key: value for key, value in variables.items() if key.startswith(_DECIDED_AT_START)}

    return hasattr(os, "pidfd_open") and decided(environment) == decided(os.environ) | {"PYTHONPATH": _project()}


def fork(arguments: Sequence[str], environment: Mapping[str, str], streams: tuple[int, int, int]) -> Forked:
    """Run the command with these *streams*."""
    asked = {"run": [*arguments], "environment": dict(environment), "folder": str(os.getcwd())}  # noqa: PTH109
    return Forked(int(_server().ask(asked, streams)))


def run(
    arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    with open(os.devnull, "rb") as nothing, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:  # noqa: PTH123
        status = fork(arguments, environment, (nothing.fileno(), out.fileno(), err.fileno())).wait(timeout_s)
        written = []
        for each in (out, err):
            each.seek(0)
            written.append(each.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess(["plugin-registry", *arguments], status, *written)


class _Server:
    """The process that is forked: single-threaded, so that it may be."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env={**kept, "PYTHONPATH": _project()},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )

    def ask(self, what: Mapping[str, Any], streams: Sequence[int] = ()) -> str:
        with self._asking:
            socket.send_fds(self._socket, [json.dumps(what).encode()], streams)
            answer = self._socket.recv(_MOST_BYTES)
        assert answer, "the server of forks has ended"
        return answer.decode()

    def close(self) -> None:
        self._socket.close()
        self._process.wait()


@cache
def _server() -> _Server:
    server = _Server()
    atexit.register(server.close)
    return server


def _project() -> str:
    return str(os.path.dirname(os.path.dirname(__file__)))  # noqa: PTH120


def _serve(asked: socket.socket) -> None:
    """Fork for each that asks, until nobody can any more; return in each fork, as the command is to run."""
    for module in _LOADED:
        import_module(module)
    gc.collect()
    gc.freeze()
    while True:
        message, streams, _flags, _address = socket.recv_fds(asked, _MOST_BYTES, 3)
        if not message:
            os._exit(0)
        what = json.loads(message)
        if "ended" in what:
            answer = os.waitstatus_to_exitcode(os.waitpid(what["ended"], 0)[1])
        else:
            answer = os.fork()
            if answer == 0:
                asked.close()
                _become(what, streams)
                return
            for each in streams:
                os.close(each)
        asked.send(str(answer).encode())


def _become(what: dict[str, Any], streams: Sequence[int]) -> None:
    for number, each in enumerate(streams):
        os.dup2(each, number)
        os.close(each)
    os.environ.clear()
    os.environ.update(what["environment"])
    os.chdir(what["folder"])
    sys.argv[1:] = what["run"]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]  # noqa: TID251


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
    from cli.main import main

    main(prog_name="plugin-registry")
