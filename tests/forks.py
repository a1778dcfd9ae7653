"""Our programs, loaded once and forked for each run: a process of its own each time, without a second of imports.

Only what is imported is shared; arguments, environment, folder and streams are those of each run. What a Python
decides as it starts is not among them: where that differs, the program is started.
"""

import atexit
import ctypes
import fcntl
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

_STORE = ("alembic.command", "shared.store.postgresql", "sqlalchemy.dialects.sqlite")
_API = ("api.main", "kombu.transport.pyamqp", "kombu.transport.redis", "uvloop", *_STORE)
_VERBS = ("main", "register", "declared", "many", "login", "queue", "operate", "on_call")
_LOADED = {
    "plugin_registry_client": (
        *("cli.up", "cli.demo", "cli.tokens", "cli.migrate", "cli.backup", "cli.doctor", *_STORE),
        *(f"plugin_registry_client.command.{each}" for each in _VERBS),
    ),
    "api.main": _API,
    "uvicorn": _API,
    "celery": (
        *("celery.bin.celery", "celery.apps.beat", "celery.apps.worker", "celery.concurrency.thread"),
        *("kombu.transport.pyamqp", "kombu.transport.redis", "worker.consumer", "worker.heartbeat"),
        *("worker.liveness", "worker.open_files", "worker.running", "worker.tasks", "worker.ticks", *_STORE),
    ),
}
"""What each program is made of, as far as it does not look at its environment while it is imported."""
_DECIDED_AT_START = ("PYTHON", "LC_", "LANG", "LD_")
_UNBUFFERED = "PYTHONUNBUFFERED"
_MOST_BYTES = 2**17


class Forked:
    """One run of a program, which is treated as if `subprocess` had started it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = os.pidfd_open(pid)
        self._asking = threading.Lock()

    def send_signal(self, number: int, /) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)  # nobody else has this id before it was waited for

    def terminate(self) -> None:
        """Tell it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return its status if it has ended."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None, /) -> int:
        """Return its status once it has ended."""
        waiting = select.poll()
        waiting.register(self._ended, select.POLLIN)
        if not waiting.poll(None if timeout is None else timeout * 1000):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        with self._asking:
            if self.returncode is None:
                self.returncode = int(_server().ask({"ended": self.pid}))
            return self.returncode

    def __del__(self) -> None:
        os.close(self._ended)


def can_fork(module: str, environment: Mapping[str, str]) -> bool:
    """Return whether *module* is loaded, and a Python that starts in *environment* starts as one in ours does."""

    def decided(variables: Mapping[str, str]) -> dict[str, str]:
        return {
            key: value for key, value in variables.items() if key.startswith(_DECIDED_AT_START) and key != _UNBUFFERED
        }

    return module in _LOADED and hasattr(os, "pidfd_open") and decided(environment) == decided(_environment())


def fork(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    streams: tuple[int, int, int],
    *,
    inherited: Sequence[int] = (),
    tied: bool = False,
) -> Forked:
    """Run *module* as `python -m` does; if it is *tied*, in a group of its own and for no longer than we live."""
    asked = {
        "module": module,
        "arguments": [*arguments],
        "environment": dict(environment),
        "folder": str(Path.cwd()),
        "numbers": [0, 1, 2, *inherited],
        "tied": tied,
    }
    return Forked(int(_server().ask(asked, [*streams, *inherited])))


def run(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run *module* to its end."""
    with Path(os.devnull).open("rb") as nothing, TemporaryFile() as out, TemporaryFile() as err:
        forked = fork(module, arguments, environment, (nothing.fileno(), out.fileno(), err.fileno()))
        try:
            status = forked.wait(timeout_s)
        except subprocess.TimeoutExpired:
            forked.kill()
            raise
        written = []
        for each in (out, err):
            each.seek(0)
            written.append(each.read().decode().replace("\r\n", "\n"))
    return subprocess.CompletedProcess([module, *arguments], status, *written)


class _Server:
    """The process that is forked: single-threaded, so that it may be."""

    def __init__(self) -> None:
        self._asking = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                env=_environment(),
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


def _environment() -> dict[str, str]:
    """Return in what the server is started."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    return {**kept, "PYTHONPATH": str(Path(__file__).parent.parent)}


def _serve(asked: socket.socket) -> str:
    """Fork for each that asks, until nobody can any more; in each fork, return the module that is to be run."""
    while True:
        message, streams, _flags, _address = socket.recv_fds(asked, _MOST_BYTES, 16)
        if not message:
            os._exit(0)
        what = json.loads(message)
        if "ended" in what:
            answer = os.waitstatus_to_exitcode(os.waitpid(what["ended"], 0)[1])
        else:
            _load(what["module"])
            answer = os.fork()
            if answer == 0:
                asked.close()
                _become(what, streams)
                return str(what["module"])
            for each in streams:
                os.close(each)
        asked.send(str(answer).encode())


@cache
def _load(module: str) -> None:
    for each in _LOADED[module]:
        import_module(each)
    sys.modules.pop("api.main", None)  # each fork runs it
    gc.collect()
    gc.freeze()


def _become(what: dict[str, Any], streams: Sequence[int]) -> None:
    free = max(what["numbers"]) + 1  # so that none is in another's place
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, free) for each in streams]
    for each in streams:
        os.close(each)
    for each, number in zip(moved, what["numbers"], strict=True):
        os.dup2(each, number)
        os.close(each)
    if what["tied"]:
        os.setpgid(0, 0)
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    os.environ.clear()
    os.environ.update(what["environment"])
    os.chdir(what["folder"])
    sys.argv[1:] = what["arguments"]
    at_once = _UNBUFFERED in what["environment"]
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=at_once)  # type: ignore[union-attr]  # noqa: TID251


if __name__ == "__main__":
    runpy.run_module(_serve(socket.socket(fileno=int(sys.argv[1]))), run_name="__main__", alter_sys=True)
