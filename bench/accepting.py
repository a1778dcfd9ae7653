"""Goal 3: accepting submissions, on one process."""

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import requests

from bench.engines import POSTGRESQL, SQLITE, free_port, process, store, until, valkey
from bench.figures import OURS, Goal, Section, Table, turn
from bench.profiling import CpuTimes, interpreting
from bench.progress import doing
from bench.registry import Registry, registry
from bench.stand import PEERS_PYTHON, PROJECT, Stand
from tests.engines import postgresql

NAME = "accepting"
SHIM = "naive shim"
CONNECTIONS = 128


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    section = Section(
        NAME,
        "Accepting",
        f"Submissions a second that one api process takes from {CONNECTIONS} connections, each of which asks again "
        "once it was answered, and how long the slowest hundredth of the answers took. Ours with `respond-async`: "
        "authenticated, checked against the egress rules, committed, answered; the shim (`bench/peers/shim.py`) is "
        "FastAPI, an ORM commit and an `apply_async` for each request, with no token. Both on uvicorn with uvloop "
        "and httptools, ours with limits of its own (`http/protocol.py`), a Valkey each, no workers; the same load "
        "generator, a process of its own (`bench/load.py`).",
    )
    rounds, seconds = (2, 2.0) if stand.quick else (5, 6.0)
    kinds = (SQLITE,) if stand.quick else (SQLITE, POSTGRESQL)
    with ExitStack() as engines:
        maintenance_url = engines.enter_context(postgresql()) if POSTGRESQL in kinds else None
        for kind in kinds:
            _measure(stand, section, kind, maintenance_url, rounds, seconds)
    return section


def _measure(
    stand: Stand, section: Section, kind: str, maintenance_url: str | None, rounds: int, seconds: float
) -> None:
    found: dict[str, list[dict[str, Any]]] = {OURS: [], SHIM: []}
    with ExitStack() as running:
        folders = [Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder))) for _ in found]
        doing(f"accepting on {kind}: starting")
        urls = [running.enter_context(store(kind, folder, maintenance_url)) for folder in folders]
        ours = running.enter_context(registry(stand, folders[0], urls[0], workers=0))
        ports = {OURS: ours.port, SHIM: running.enter_context(_shim_alone(folders[1], urls[1]))}
        first = 0
        for number in range(-1, rounds):
            for who in turn([*found], number):
                doing(f"accepting on {kind}, round {number + 1} of {rounds}: {who}")
                count = int(8000 * seconds)
                answers = _load(stand, ports[who], ours.token, first, count, seconds if number >= 0 else 0.5)
                first += count
                if number >= 0:
                    found[who].append(answers)
        if not stand.quick:
            doing(f"accepting on {kind}: what limits ours")
            section.notes += _limits(stand, kind, ours, first)
    rate = Table(
        f"{kind}, accepted", "submissions/s", {who: [each["a_second"] for each in found[who]] for who in found}
    )
    p99 = Table(f"{kind}, 99th percentile", "ms", {who: [each["p99_ms"] for each in found[who]] for who in found})
    section.tables += [rate, p99]
    section.goals += [
        Goal(f"{kind}: submissions a second, of the naive shim's", "at least", 8.0, rate.ratio(OURS, SHIM)),
        Goal(f"{kind}: 99th percentile under load, of the shim's", "at most", 0.08, p99.ratio(OURS, SHIM)),
    ]


def _limits(stand: Stand, kind: str, ours: Registry, first: int) -> list[str]:
    """Return what our api is busy with under the load that was measured."""
    api = ours.processes["api"]
    times = CpuTimes(ours.processes)
    answers = _load(stand, ours.port, ours.token, first, 40_000, 4.0)
    cpu = times.for_each(round(answers["a_second"] * answers["seconds"]))
    with ThreadPoolExecutor(1) as other:
        load = other.submit(_load, stand, ours.port, ours.token, first + 40_000, 40_000, 5.0)
        time.sleep(1)
        functions = interpreting(api, seconds=3)
        load.result()
    return [
        f"{kind}, CPU time of each submission, of which one process can spend one core's at a time: {cpu}.",
        f"{kind}, who holds the interpreter's lock in our api, by the innermost function of ours: {functions}.",
    ]


def _load(stand: Stand, port: int, token: str, first: int, count: int, seconds: float) -> dict[str, Any]:
    where = ("--port", port, "--artifacts", stand.artifacts.small, "--connections", CONNECTIONS)
    what = ("--first", first, "--count", count, "--seconds", seconds)
    found: dict[str, Any] = stand.ours("bench.load", *where, *what, BENCH_TOKEN=token)
    assert set(found["statuses"]) == {"202"}, found
    return found


@contextmanager
def shim(folder: Path, environment: Mapping[str, str]) -> Iterator[int]:
    """Run the naive shim for the length of the block, and yield its port."""
    port = free_port()
    options = ("--port", str(port), "--no-access-log", "--log-level", "warning", "--no-server-header")
    command = (str(PEERS_PYTHON), "-m", "uvicorn", "bench.peers.shim:app", *options, "--backlog", "2048")
    with process("shim", command, environment, folder):
        until(lambda: _answers(port), within_s=60, what="the shim")
        yield port


@contextmanager
def _shim_alone(folder: Path, store_url: str) -> Iterator[int]:
    with valkey(folder) as broker_url:
        ours = {"PYTHONPATH": str(PROJECT), "BENCH_STORE_URL": store_url, "BENCH_BROKER_URL": broker_url}
        with shim(folder, {**os.environ, **ours}) as port:
            yield port


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/openapi.json", timeout=5).status_code == 200
    except requests.RequestException:
        return False
