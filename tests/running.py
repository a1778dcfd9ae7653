"""The command `plugin-registry`, run for real."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import psutil
import requests

from cli.state import StateFolder
from shared.store.database import open_database
from shared.store.tokens import Tokens
from tests import forks

PROGRAM = "plugin_registry_client"
COMMAND = [sys.executable, "-m", PROGRAM]
PROJECT = Path(__file__).parent.parent
PATIENCE_S = 120.0
"""How long anything is waited for: that costs nothing where all is well, and a machine may be busy with others."""


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment without any setting of the registry's, and *extra*."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    return {**kept, "PYTHONPATH": str(PROJECT), **(extra or {})}


def run(
    *arguments: str, env: Mapping[str, str] | None = None, timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    environment = clean_environment(env)
    if forks.can_fork(PROGRAM, environment):
        return forks.run(PROGRAM, arguments, environment, timeout_s)
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


class Running(Protocol):
    """A run of the command that was begun."""

    def send_signal(self, sig: int, /) -> None: ...

    def wait(self, timeout: float | None = None, /) -> int: ...


def begin(arguments: Sequence[str], env: Mapping[str, str], stream: int) -> Running:
    """Run the command with *stream* as all three of its streams, and do not wait for its end."""
    environment = clean_environment(env)
    if forks.can_fork(PROGRAM, environment):
        return forks.fork(PROGRAM, arguments, environment, (stream, stream, stream))
    return subprocess.Popen([*COMMAND, *arguments], env=environment, stdin=stream, stdout=stream, stderr=stream)


def one_sentence(output: str) -> str:
    """Return the sentence in which a command refused."""
    assert "Traceback" not in output
    (line,) = [each for each in output.splitlines() if each.startswith("plugin-registry: ")]
    return line


def until(condition: Callable[[], Any], *, within_s: float = PATIENCE_S, what: str = "the condition") -> Any:
    """Return what *condition* returns once that is true."""
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not come about within {within_s} s")


def problem(response: requests.Response, status: int, code: str, *, prefix: str = "") -> dict[str, Any]:
    """Check that *response* is the problem it should be, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"{prefix}/problems/{code}"
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"]
    assert document["detail"]
    assert document["fault"] in {"submitter", "upstream", "registry"}
    return document


@dataclass
class Registry:
    """A running embedded registry, as its users see it."""

    process: subprocess.Popen[str]
    address: str
    state: Path
    output: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    @property
    def token(self) -> str:
        return (self.state / "token").read_text().strip()

    def request(self, method: str, path: str, *, token: str | None = None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {token or self.token}", **options.pop("headers", {})}
        headers = {name: value for name, value in headers.items() if value is not None}
        return requests.request(method, self.address + path, headers=headers, timeout=PATIENCE_S, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def register(
        self, submission: Mapping[str, Any], *, prefer: str | None = None, **options: Any
    ) -> requests.Response:
        headers = {**({"Prefer": prefer} if prefer else {}), **options.pop("headers", {})}
        return self.request("POST", "/api/v1/plugins", json=submission, headers=headers, **options)

    def final(self, registration_id: str) -> dict[str, Any]:
        """Return a registration once it is final."""

        def look() -> dict[str, Any] | None:
            found: dict[str, Any] = self.get(f"/api/v1/registrations/{registration_id}").json()
            return found if found["status"] not in {"queued", "verifying"} else None

        found: dict[str, Any] = until(look, what=f"the end of {registration_id}")
        return found

    def child(self, name: str) -> psutil.Process:
        """Return the child process whose command line holds *name*."""

        def look() -> psutil.Process | None:
            for each in psutil.Process(self.process.pid).children():
                with suppress(psutil.NoSuchProcess):  # it may die, or be a zombie, between two questions
                    if each.status() != psutil.STATUS_ZOMBIE and name in " ".join(each.cmdline()):
                        return each
            return None

        found: psutil.Process = until(look, what=f"a child called {name}")
        return found

    def suspend(self, name: str) -> psutil.Process:
        """Stop the child called *name*, but not while it writes: it would keep the store from everybody."""
        child = self.child(name)

        def stopped() -> bool:
            child.suspend()
            until(lambda: _stands_still(child), what=f"that no thread of {name} runs")
            with closing(sqlite3.connect(self.state / "registry.db", timeout=1, isolation_level=None)) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    child.resume()
                    return False
                connection.execute("ROLLBACK")
            return True

        until(stopped, what=f"that {name} stands still and writes nothing")
        return child

    def cli(self, *arguments: str, token: str | None = None, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run the command as a client of this registry."""
        env = {"REGISTRY_URL": self.address, "REGISTRY_TOKEN": token or self.token, **extra}
        return run(*arguments, env=env)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE_S)


def _stands_still(process: psutil.Process) -> bool:
    """Whether each thread has stopped: one that is in the kernel just then goes on until it leaves that."""
    stats = [each.read_text() for each in Path(f"/proc/{process.pid}/task").glob("*/stat")]
    return all(each.rpartition(")")[2].split()[0] == "T" for each in stats)


@contextmanager
def running_registry(state: Path, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Registry]:
    """Run `plugin-registry up` on *state* for the length of the block, which is migrated already where it is new."""
    if not state.exists():
        _prepare(state)
    output = state.parent / f"{state.name}-{time.monotonic_ns()}.log"
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("w") as log:
        process = _begun(PROGRAM, ["up", "--port", "0", "--state", str(state), *options], clean_environment(env), log)
    try:

        def address() -> str | None:
            assert process.poll() is None, output.read_text()
            found = re.findall(r"^Plugin registry at (\S+)", output.read_text(), re.MULTILINE)
            return found[-1] if found else None

        yield Registry(process, until(address, what="the registry"), state, output)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _prepare(state: Path) -> str:
    """Make a state folder with a store in it, as a first start would, which takes longer; return the URL of that."""
    from tests.stores import sqlite_store  # it needs us

    StateFolder(state).make()
    return sqlite_store(state / "registry.db")


OUR_WIRE = ("api.main",)
PLAIN_UVICORN = ("uvicorn", "--factory", "api.main:create_app")


@contextmanager
def running_api(
    state: Path, *, served_by: Sequence[str] = OUR_WIRE, open_files: int | None = None, env: Mapping[str, str]
) -> Iterator[Registry]:
    """Run an api alone, over a store in *state* and no broker, for the length of the block."""
    url = _prepare(state)
    settings = {
        "REGISTRY_STATE_DIR": str(state),
        "REGISTRY_BROKER_URL": f"redis+socket://{state / 'nobody.sock'}",
        "PYTHONUNBUFFERED": "1",
        **env,
    }
    with closing(open_database(url)) as database:
        (state / "token").write_text(Tokens(database).create("tests", ["register", "read"]).text)
    output = state / "api.log"
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, output.open("w") as log:
        process = _begun(
            served_by[0],
            [*served_by[1:], "--fd", str(listener.fileno())],
            clean_environment(settings),
            log,
            inherited=[listener.fileno()],
            open_files=open_files,
        )
        try:
            address = f"http://127.0.0.1:{listener.getsockname()[1]}"
            until(lambda: _ready(address, process, output), within_s=60, what="the api")
            yield Registry(process, address, state, output)
        finally:
            process.terminate()
            process.wait(30)


def _begun(
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    log: IO[str],
    *,
    inherited: Sequence[int] = (),
    open_files: int | None = None,
) -> "subprocess.Popen[str]":
    """Run *module* in a process of its own, which may have *open_files*, and do not wait for its end."""
    if open_files is None and forks.can_fork(module, environment):
        with Path(os.devnull).open("rb") as nothing:
            streams = (nothing.fileno(), log.fileno(), log.fileno())
            forked = forks.fork(module, arguments, environment, streams, inherited=inherited, tied=True)
        return cast("subprocess.Popen[str]", forked)
    command = [sys.executable, "-m", module, *arguments]
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log, text=True, pass_fds=inherited)


def _ready(address: str, process: "subprocess.Popen[str]", output: Path) -> bool:
    assert process.poll() is None, output.read_text()
    try:
        return requests.get(f"{address}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False
