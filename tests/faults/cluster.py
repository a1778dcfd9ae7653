"""The registry as it runs on many machines: every process by itself, to be killed, stopped and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, cast

import psutil
import requests
from celery import Celery

from cli.supervise import Child
from shared.queues import QUEUE, VERIFY_TASK
from shared.store.database import open_database
from shared.store.tokens import SCOPES, Tokens
from tests import forks
from tests.conftest import a_submission, open_loopback
from tests.faults.brokers import Broker, Valkey
from tests.faults.history import Answer, History, everything_in, everything_told, in_flight, mistold, violations
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, clean_environment, until

LEASE_S = 6.0
"""Renewed every 0.75 s, up to 5 s late on a machine that is busy with something else."""
SWEEP_S = 0.5
QUICK = {
    "REGISTRY_IN_FLIGHT_PER_TOKEN": "0",
    "REGISTRY_LEASE_S": str(LEASE_S),
    "REGISTRY_SWEEP_INTERVAL_S": str(SWEEP_S),
    "REGISTRY_RETRY_BASE_S": "0.2",
    "REGISTRY_RETRY_CAP_S": "1",
    "REGISTRY_MAX_ATTEMPTS": "4",
    "REGISTRY_MAX_LEASES_LOST": "4",  # workers are killed here without end, and registrations are not why
    "REGISTRY_MAX_DOWNLOADS_PER_HOST": "64",
    "REGISTRY_REQUESTS_A_MINUTE": "0",
    "REGISTRY_FETCH_DEADLINE_S": "300",
    "REGISTRY_READ_TIMEOUT_S": "120",
    "PYTHONUNBUFFERED": "1",
}
THREADS = 8


@dataclass
class Truth:
    """The artifact host, and what it served."""

    origin: Origin
    served: dict[str, set[str]] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(10**9)))

    def artifact(self, body: bytes | None = None, **served: Any) -> tuple[dict[str, str], Served]:
        """Serve an artifact, and return the submission that declares it truly."""
        artifact = Served(
            body=f"fault artifact {next(self._numbers)} ".encode() * 50 if body is None else body, **served
        )
        url = self.origin.serve(artifact)
        self.served[url] = {artifact.checksum}
        return a_submission(artifactUrl=url, checksum=artifact.checksum), artifact

    def slow_artifact(self, seconds: float) -> tuple[dict[str, str], Served]:
        """Serve an artifact with a pause of *seconds* in its middle."""
        submission, artifact = self.artifact()
        artifact.handle = lambda handler: serve_in_halves(handler, artifact.body, lambda: time.sleep(seconds))
        return submission, artifact

    def submissions(self, count: int, **served: Any) -> list[dict[str, str]]:
        """Return *count* submissions of one artifact each."""
        return [self.artifact(**served)[0] for _ in range(count)]

    def checksums(self, url: str) -> set[str]:
        """Return the digests of what *url* has ever served."""
        return self.served.get(url.partition("?")[0], set())  # a query is a signature, and changes nothing


@dataclass
class Client:
    """A client that notes every answer."""

    address: str
    token: str
    history: History

    def submit(self, submission: Mapping[str, str], *, prefer: str = "respond-async") -> requests.Response:
        """Register, by default without waiting."""
        return self._ask("POST", "/api/v1/plugins", submission, headers={"Prefer": prefer}, json=dict(submission))

    def accepted(self, submission: Mapping[str, str]) -> str:
        """Submit, check that it is accepted, and return the registration's id."""
        response = self.submit(submission)
        assert response.status_code == 202, response.text
        return str(response.json()["id"])

    def taken(self, submission: Mapping[str, str], *, prefer: str = "respond-async") -> requests.Response:
        """Submit as often as it takes, and return the answer that says it was taken.

        What is met on the way must be such that a client may try again without a thought: a connection that was
        refused or broken, or an answer that says so.
        """
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            with suppress(requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
                response = self.submit(submission, prefer=prefer)
                if response.status_code in {200, 202}:
                    return response
                assert response.status_code in {502, 503, 504}, response.text
                assert response.json()["retryable"], response.text
            time.sleep(0.2)
        raise AssertionError(f"{submission['name']} was not taken")

    def look(self, registration_id: str) -> dict[str, Any]:
        """Return how a registration stands."""
        response = self._ask("GET", f"/api/v1/registrations/{registration_id}", None)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def _ask(self, method: str, path: str, submission: Mapping[str, str] | None, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        asked_at = time.monotonic()
        response = requests.request(method, self.address + path, headers=headers, timeout=PATIENCE_S, **options)
        self.history.note(Answer(asked_at, time.monotonic(), response.status_code, response.json(), submission))
        return response


class _Forked(Child):
    """One of our programs, which need not be loaded anew each time that it is started again."""

    def start(self) -> None:
        """Fork it, where it can be."""
        _python, _m, module, *arguments = self.command
        if not forks.can_fork(module, self.environment):
            super().start()
            return
        assert self.log is not None
        with Path(os.devnull).open("rb") as nothing, self.log.open("ab") as log:
            streams = (nothing.fileno(), log.fileno(), log.fileno())
            forked = forks.fork(module, arguments, self.environment, streams, inherited=self.pass_fds, tied=True)
        self.process = cast("subprocess.Popen[bytes]", forked)
        self.started = time.monotonic()


class Cluster:
    """Processes by name: ``broker``, ``api``, ``beat``, and workers by any other."""

    def __init__(
        self,
        folder: Path,
        database_url: str,
        truth: Truth,
        *,
        broker: Broker | None = None,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.database_url = database_url
        self.truth = truth
        self.settings = settings
        self.children: dict[str, Child] = {}
        self.altered: set[str] = set()
        """Who runs with settings or options of a test's own, which the next test must not meet."""
        self.history = History()
        self.broker = broker or Valkey(folder)
        self.broker_port = self.broker.port
        self.broker_url = self.broker.url
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        database = open_database(database_url)
        self.token = Tokens(database).create("faults", SCOPES).text
        database.close()

    # --- processes ------------------------------------------------------------------------------

    def start(self, *workers: str) -> None:
        """Start broker, api, beat and *workers*, and wait until all of them work."""
        self.start_broker()
        self.spawn_api()
        self.spawn_beat()
        for name in workers:
            self.spawn_worker(name)
        self.wait_for_api()
        for name in workers:
            self.wait_for_worker(name)

    def start_broker(self) -> None:
        """Start the broker on its port, with what it kept on disk."""
        if command := self.broker.command():
            self._spawn("broker", *command, settings=self.broker.environment())
        until(self.broker.answers, what="the broker")

    def spawn_api(self, **settings: str) -> None:
        """Start the api on a socket that outlives it."""
        self._spawn(
            "api",
            *(sys.executable, "-m", "api.main", "--fd", str(self._listener.fileno())),
            pass_fds=(self._listener.fileno(),),
            settings=settings,
        )

    def wait_for_api(self) -> None:
        """Wait until the api takes submissions."""

        def ready() -> bool:
            with suppress(requests.RequestException):
                return requests.get(f"{self.address}/readyz", timeout=5).status_code == 200
            return False

        until(ready, what="the api")

    def start_api(self) -> None:
        """Start the api and wait for it."""
        self.spawn_api()
        self.wait_for_api()

    def spawn_beat(self, **settings: str) -> None:
        """Start the clock."""
        command = (sys.executable, "-m", "celery", "--quiet", "--app", "worker.clock", "beat")
        self._spawn("beat", *command, settings=settings)

    def spawn_worker(self, name: str, *options: str, **settings: str) -> None:
        """Start a worker."""
        self._spawn(
            name,
            *(sys.executable, "-m", "celery", "--quiet", "--app", "worker.main", "worker", "--pool", "threads"),
            *("--concurrency", str(THREADS), "--hostname", f"{name}@%h"),
            *("--without-gossip", "--without-mingle", "--without-heartbeat", *options),
            settings=settings,
            altered=bool(options),
        )

    def wait_for_worker(self, name: str) -> None:
        """Wait until a worker takes bells from the broker."""
        until(lambda: self.listens(name), what=f"{name} at the broker")

    def listens(self, name: str) -> bool:
        """Whether a worker waits for bells at the broker, without anything in between."""
        return self.broker.listens(self.wires(name), workers=sum(map(self.running, self.workers)))

    def wires(self, name: str) -> list[tuple[int, int]]:
        """Return the open connections of a process of ours: its own port, and that of the other end."""
        with suppress(psutil.Error):
            found = self.process(name).net_connections("tcp")
            return [(wire.laddr.port, wire.raddr.port) for wire in found if wire.laddr and wire.raddr]
        return []

    def _spawn(
        self,
        name: str,
        *command: str,
        settings: Mapping[str, str] | None = None,
        altered: bool = False,
        pass_fds: Sequence[int] = (),
    ) -> None:
        assert threading.current_thread() is threading.main_thread(), "the kernel ties a child to its thread"
        environment = {
            **QUICK,
            **open_loopback(self.truth.origin.port),
            "REGISTRY_DATABASE_URL": self.database_url,
            "REGISTRY_BROKER_URL": self.broker_url,
            "REGISTRY_STATE_DIR": str(self.folder),
            **self.settings,
            **(settings or {}),
        }
        kind = _Forked if command[:2] == (sys.executable, "-m") else Child
        child = kind(name, command, clean_environment(environment), self.folder / f"{name}.log", pass_fds)
        child.start()
        self.children[name] = child
        (self.altered.add if altered or settings else self.altered.discard)(name)

    def process(self, name: str) -> psutil.Process:
        """Return a process of ours."""
        child = self.children[name].process
        assert child is not None
        return psutil.Process(child.pid)

    def running(self, name: str) -> bool:
        """Whether a process of ours lives."""
        return name in self.children and self.children[name].running

    def kill(self, *names: str) -> None:
        """Kill processes of ours, as nothing can survive."""
        for name in names:
            self._signal(name, signal.SIGKILL)
        for name in names:
            self.wait(name)

    def stop(self, *names: str) -> None:
        """Tell processes of ours to end, and wait until they have."""
        for name in names:
            self._signal(name, signal.SIGTERM)
        for name in names:
            self.wait(name)

    def end(self, name: str, *, within_s: float) -> int:
        """Tell a process of ours to end, and return how it did, which must be by itself and in time."""
        self._signal(name, signal.SIGTERM)
        child = self.children[name].process
        assert child is not None
        return child.wait(within_s)

    def tell(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a process of ours."""
        self._signal(name, number)

    def wait(self, name: str) -> int:
        """Wait for the end of a process of ours."""
        child = self.children[name].process
        assert child is not None
        return child.wait(PATIENCE_S)

    def suspend(self, name: str) -> None:
        """Stop a process of ours where it stands."""
        process = self.process(name)
        process.suspend()
        until(lambda: process.status() == psutil.STATUS_STOPPED, what=f"{name} being stopped")

    def resume(self, name: str) -> None:
        """Let a stopped process of ours go on."""
        self._signal(name, signal.SIGCONT)

    @contextmanager
    def suspended(self, name: str) -> Iterator[None]:
        """Stop a process of ours for the length of the block."""
        self.suspend(name)
        try:
            yield
        finally:
            self.resume(name)

    def _signal(self, name: str, number: signal.Signals) -> None:
        child = self.children[name].process
        if child is not None and child.poll() is None:
            child.send_signal(number)

    def rss(self, name: str) -> int:
        """Return how many bytes of memory a process of ours holds."""
        return int(self.process(name).memory_info().rss)

    @property
    def workers(self) -> list[str]:
        """The names of all workers there have been."""
        return [name for name in self.children if name not in {"broker", "api", "beat"}]

    def heal(self, *workers: str) -> None:
        """Bring the cluster to where it would be had nothing befallen it, with exactly *workers*."""
        self.resume_all()
        surplus = [name for name in self.workers if name not in workers]
        self.kill(*surplus)
        for name in surplus:
            del self.children[name]
        if self.running("broker"):
            self.flush()  # the bells of killed workers would come back in the middle of another test
        self.kill(*self.altered.intersection(self.children))
        for name, start in (
            ("broker", self.start_broker),
            ("api", self.spawn_api),
            ("beat", self.spawn_beat),
            *((name, lambda name=name: self.spawn_worker(name)) for name in workers),
        ):
            if not self.running(name):
                start()
        self.wait_for_api()
        for name in workers:
            self.wait_for_worker(name)

    def resume_all(self) -> None:
        """Let every stopped process go on."""
        for name in self.children:
            self.resume(name)

    def close(self) -> None:
        """End every process."""
        for name in self.children:
            self._signal(name, signal.SIGCONT)
            self._signal(name, signal.SIGKILL)
        for name in self.children:
            self.wait(name)
        self.broker.close()
        self._listener.close()

    # --- the broker -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Make the broker forget everything."""
        self.broker.flush()

    def ring(self, *registration_ids: str) -> None:
        """Ring a bell for anything."""
        with Celery("faults", broker=self.broker_url, set_as_current=False) as app:
            app.send_task(VERIFY_TASK, args=[list(registration_ids)], queue=QUEUE)

    def bells_waiting(self) -> int:
        """Return how many bells wait for a worker; what runs by the clock does not count."""
        return self.broker.bells_waiting()

    def messages_waiting(self) -> int:
        """Return how many messages wait in the queue of bells, without looking at them."""
        assert isinstance(self.broker, Valkey), "RabbitMQ is not asked this"
        return self.broker.messages_waiting()

    def messages_with_workers(self, *, but: int = 0) -> int:
        """Return how many messages more than *but* were taken and not yet done with."""
        assert isinstance(self.broker, Valkey), "RabbitMQ is not asked this"
        return max(0, self.broker.messages_with_workers() - but)

    # --- clients and the end --------------------------------------------------------------------

    def get(self, path: str, *, within_s: float = PATIENCE_S) -> requests.Response:
        """Ask the api for something, with our token."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return requests.get(self.address + path, headers=headers, timeout=within_s)

    @property
    def client(self) -> Client:
        """A client of the api."""
        return Client(self.address, self.token, self.history)

    def in_flight(self) -> list[str]:
        """Return the registrations that are not final, as the store has them."""
        return [*in_flight(self.database_url)]

    def until_final(self) -> None:
        """Wait until no registration is in flight."""
        until(lambda: not self.in_flight(), what=f"the end of everything in flight on {self.folder}")

    def check(self, *registration_ids: str, status: str = "registered") -> None:
        """Check that nothing was lost, doubled, changed or false, and what became of *registration_ids*."""
        for each in registration_ids:
            self.client.look(each)
        registrations, plugins = everything_in(self.database_url)
        found = violations(self.history.answers, registrations, plugins, self.truth.checksums)
        assert not found, found
        wrong = mistold(everything_in(self.database_url)[0], everything_told(self.database_url))
        assert not wrong, wrong
        ended: dict[str, str] = {each.id: str(each.status) for each in registrations}
        assert Counter(ended[each] for each in registration_ids) == Counter({status: len(registration_ids)})

    def events(self, name: str, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return what a process logged of *event*."""
        found = []
        for line in (self.folder / f"{name}.log").read_text(errors="replace").splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if entry.get("event") == event and fields.items() <= entry.items():
                    found.append(entry)
        return found

    def clock_of(self, name: str) -> float:
        """Return the time at which a process wrote its last line, by its own clock."""
        last = (self.folder / f"{name}.log").read_text().splitlines()[-1]
        return datetime.fromisoformat(json.loads(last)["timestamp"]).timestamp()


def serve_in_halves(handler: BaseHTTPRequestHandler, body: bytes, meanwhile: Callable[[], object]) -> None:
    """Serve *body*, all but its last half before *meanwhile* and the rest after it."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])
    handler.wfile.flush()
    meanwhile()
    handler.wfile.write(body[len(body) // 2 :])


def all_at_once(work: Callable[[Any], Any], items: Sequence[Any], *, threads: int = 8) -> list[Any]:
    """Return what *work* makes of *items*, done by several threads."""
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
