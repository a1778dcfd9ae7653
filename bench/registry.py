"""Ours as it runs: every process by its documented command, over a store and a broker that are given."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import redis
import requests

from bench.engines import process, until, valkey
from bench.origin import small_checksum
from bench.stand import Stand
from shared.store.database import open_database
from shared.store.schema import migrate
from shared.store.tokens import SCOPES, Tokens

_numbers = count(10**9)
"""Of artifacts that nobody else asks for."""


@dataclass(frozen=True)
class Registry:
    """A running registry."""

    port: int
    token: str
    store_url: str
    workers: list[psutil.Process]
    processes: dict[str, psutil.Process]

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def registry(
    stand: Stand,
    folder: Path,
    store_url: str,
    *,
    workers: int,
    downloads: int = 256,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Registry]:
    """Run broker, api, beat and *workers* for the length of the block; without workers, no beat either."""
    database = open_database(store_url)
    migrate(database)
    token = Tokens(database).create("bench", SCOPES).text
    database.close()
    with ExitStack() as running, socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        environment = stand.environment(
            REGISTRY_DATABASE_URL=store_url,
            REGISTRY_BROKER_URL=running.enter_context(valkey(folder)),
            REGISTRY_STATE_DIR=str(folder),
            # The limit is on, and out of the way of a load from one token.
            REGISTRY_REQUESTS_A_MINUTE="10000000",
            REGISTRY_IN_FLIGHT_PER_TOKEN="0",
            REGISTRY_DOWNLOADS=str(downloads),
            **(settings or {}),
        )
        api = (sys.executable, "-m", "api.main", "--fd", str(listener.fileno()))
        found = {"api": running.enter_context(process("api", api, environment, folder, (listener.fileno(),)))}
        celery = (sys.executable, "-m", "celery", "--quiet", "--app")
        if workers:
            found["beat"] = running.enter_context(
                process("beat", (*celery, "worker.clock", "beat"), environment, folder)
            )
        quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
        for number in range(1, workers + 1):
            name = f"worker-{number}"
            pool = ("worker.main", "worker", "--pool", "threads", "--concurrency", "8", "--hostname", f"{name}@%h")
            found[name] = running.enter_context(process(name, (*celery, *pool, *quiet), environment, folder))
        port = listener.getsockname()[1]
        it = Registry(port, token, store_url, [found[each] for each in found if "worker" in each], found)
        until(lambda: _ready(it), within_s=60, what="the registry")
        if workers:
            _warm_up(stand, it, redis.Redis.from_url(environment["REGISTRY_BROKER_URL"]))
        yield it


@contextmanager
def embedded(stand: Stand, folder: Path, *, workers: int, **settings: str) -> Iterator[Registry]:
    """Run the whole registry by its one command, `plugin-registry up`, for the length of the block."""
    state = folder / "state"
    environment = stand.environment(
        REGISTRY_REQUESTS_A_MINUTE="10000000", REGISTRY_IN_FLIGHT_PER_TOKEN="0", **settings
    )
    command = (sys.executable, "-m", "plugin_registry_client", "up", "--port", "0", "--state", str(state))
    with process("up", (*command, "--workers", str(workers)), environment, folder) as up:
        until(lambda: _address(state), within_s=60, what="the registry")
        address = _address(state)
        named = {name: psutil.Process(each["pid"]) for name, each in _children(state).items()}
        found = [named[name] for name in named if name.startswith("worker")]
        it = Registry(
            port=int(address.rpartition(":")[2]),
            token=(state / "token").read_text().strip(),
            store_url=f"sqlite:///{state / 'registry.db'}",
            workers=found,
            processes={**named, "up": up},
        )
        _warm_up(stand, it, redis.Redis(unix_socket_path=str(state / "valkey" / "valkey.sock")))
        yield it


def _address(state: Path) -> str:
    with suppress(OSError):
        return (state / "address").read_text().strip()
    return ""


def _children(state: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads((state / "children.json").read_text())
    return found


def _ready(it: Registry) -> bool:
    with suppress(requests.RequestException):
        return requests.get(f"{it.address}/readyz", timeout=5).status_code == 200
    return False


def _warm_up(stand: Stand, it: Registry, broker: redis.Redis) -> None:
    """Wait until every worker listens, and see a few artifacts through: none is measured while it starts."""

    def listening() -> int:
        clients: Any = broker.client_list()
        return sum(each["cmd"] == "brpop" for each in clients)

    until(lambda: listening() >= len(it.workers), within_s=60, what="workers at the broker")
    broker.close()
    for _ in range(8 * len(it.workers)):
        register(stand, it)


def register(stand: Stand, it: Registry, *, path: str = "small") -> float:
    """Register one more small artifact and wait for it; return the seconds that took. *path* says how it is sent."""
    number = next(_numbers)
    return _registered(it, number, f"{stand.artifacts.small}/{path}/{number}", small_checksum(number))


def register_large(stand: Stand, it: Registry) -> float:
    """Register the large artifact once more and wait for it; return the seconds that took."""
    return _registered(it, next(_numbers), stand.artifacts.http, stand.artifacts.large_checksum)


def _registered(it: Registry, number: int, url: str, checksum: str) -> float:
    body = {
        "name": f"waited for {number}",
        "version": "1.0.0",
        "pluginType": "log",
        "artifactUrl": url,
        "checksum": checksum,
    }
    headers = {"Authorization": f"Bearer {it.token}"}
    started = time.perf_counter()
    answer = requests.post(f"{it.address}/api/v1/plugins", json=body, headers=headers, timeout=70)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - started


def cores() -> int:
    """Return how many worker processes everyone is given: one for each core."""
    return os.cpu_count() or 1
