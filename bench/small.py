"""Goal 2: many small artifacts, from submission to record."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.accepting import shim
from bench.engines import POSTGRESQL, SQLITE, counting, process, store, suspended, valkey
from bench.figures import OURS, Goal, Section, Table, turn
from bench.profiling import CpuTimes, interpreting
from bench.progress import doing
from bench.registry import cores, embedded, registry
from bench.stand import PEERS_PYTHON, PROJECT, Stand
from tests.engines import postgresql

NAME = "small"
BIN = PEERS_PYTHON.parent
RQ_FAST = ("--worker-class", "rq.worker.SimpleWorker")
"""It forks no process for each job, as its default worker does."""
PEERS = {
    "celery": ("celery", "-A", "bench.peers.celery_job", "-q", "worker", "-l", "ERROR", "--concurrency"),
    "huey": ("huey_consumer", "bench.peers.huey_job.huey", "--quiet", "--worker-type", "process", "--workers"),
    "dramatiq": ("dramatiq", "bench.peers.dramatiq_job", "--processes"),
    "taskiq": ("taskiq", "worker", "bench.peers.taskiq_job:broker", "--log-level", "ERROR", "--workers"),
    "rq": ("rq", "worker-pool", "--quiet", "--config", "bench.peers.rq_job", *RQ_FAST, "--num-workers"),
}
SHIM = "naive shim and its Celery job"
SHIM_WORKER = ("celery", "-A", "bench.peers.shim:celery", "-q", "worker", "-l", "ERROR", "--concurrency")
ROUTE_GOAL = 8.0
BACKLOG_GOAL = {SQLITE: 6.0, POSTGRESQL: 4.0}
WARM_UP = 50
PATIENCE_S = 15
"""A contender that takes longer is measured by what it did until then."""
QUICK_LEAVES_OUT = {SQLITE: {"taskiq", "rq"}, POSTGRESQL: {"celery", "dramatiq", "taskiq", "rq"}}
"""Who is not the fastest; a whole run has everyone."""


@dataclass(frozen=True)
class Contender:
    """Somebody who turns submissions into records, ready to."""

    store_url: str
    table: str
    workers: list[psutil.Process]
    submit: Callable[[int, int], list[str]]
    """The command that submits so many, from a number on."""
    environment: dict[str, str]
    processes: Mapping[str, psutil.Process] = field(default_factory=dict)


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    section = Section(
        NAME,
        "Many small artifacts",
        "Artifacts of 4 KiB, records a second, from the first submission to the last record committed, durably "
        "(SQLite in WAL with `synchronous=FULL`, PostgreSQL as it comes), with one worker process for each core. "
        "Ours is asked over HTTP with `respond-async` and 64 connections, and commits every submission before it "
        "answers. The peers' jobs are put straight into their queues, without any API before them. Their job is "
        "the usual one (`bench/peers/job.py`): no lease, no fence, no egress checks. *Backlog* has the same "
        "submissions accepted or queued while the workers are stopped, and times how long they then take. *The whole "
        "route* compares the same work: the shim that one would write (`bench/peers/shim.py`) is asked over HTTP as "
        "ours is, and its Celery job does what the peers' does.",
    )
    rounds, count = (1, 400) if stand.quick else (3, 2000)
    with postgresql() as maintenance_url:
        for kind in (SQLITE, POSTGRESQL):
            left_out = QUICK_LEAVES_OUT[kind] if stand.quick else set()
            contenders = [OURS, *(each for each in PEERS if each not in left_out)]
            live: dict[str, list[float]] = {who: [] for who in contenders}
            backlog: dict[str, list[float]] = {who: [] for who in contenders}
            for number in range(rounds):
                for who in turn(contenders, number):
                    doing(f"small artifacts on {kind}, round {number + 1} of {rounds}: {who}")
                    with _contender(stand, who, kind, maintenance_url) as it:
                        live[who].append(_live(it, 0, count))
                        if not stand.quick:
                            backlog[who].append(_backlog(it, count, count))
            _route(stand, section, kind, maintenance_url, rounds, count, live[OURS])
            _note(section, f"{kind}, submission to record", live, at_least=3.0)
            if left_out:
                section.notes.append(f"{kind}: left out of a quick run: {', '.join(sorted(left_out))}.")
            if not stand.quick:
                _note(section, f"{kind}, backlog", backlog, at_least=BACKLOG_GOAL[kind])
                if not all(goal.met for goal in section.goals[-3:]):
                    doing(f"small artifacts on {kind}: what limits ours")
                    section.notes += _limits(stand, kind, maintenance_url)
    return section


def _route(
    stand: Stand,
    section: Section,
    kind: str,
    maintenance_url: str,
    rounds: int,
    count: int,
    ours: list[float],
) -> None:
    """Measure the shim and its job, of fewer artifacts: it takes long."""
    runs = []
    for number in range(rounds):
        doing(f"small artifacts on {kind}, round {number + 1} of {rounds}: {SHIM}")
        with _contender(stand, SHIM, kind, maintenance_url) as it:
            runs.append(_live(it, 0, count // 2))
    table = Table(f"{kind}, the whole route over HTTP", "records/s", {OURS: ours, SHIM: runs})
    section.tables.append(table)
    ratio = table.ratio(OURS, SHIM)
    section.goals.append(Goal(f"{kind}, the whole route, of the naive one's", "at least", ROUTE_GOAL, ratio))


def _note(section: Section, title: str, runs: dict[str, list[float]], *, at_least: float) -> None:
    table = Table(title, "records/s", runs)
    section.tables.append(table)
    best = table.best_peer(highest=True)
    name = f"{title}, of the fastest peer's ({best})"
    section.goals.append(Goal(name, "at least", at_least, table.ratio(OURS, best)))


def _limits(stand: Stand, kind: str, maintenance_url: str) -> list[str]:
    """Return what ours is busy with under the load that was measured."""
    with _contender(stand, OURS, kind, maintenance_url) as it, counting(it.store_url, it.table) as records:
        submitting = _start(it, 0, 20_000)
        time.sleep(1)
        before, times = records(), CpuTimes(it.processes)
        time.sleep(4)
        cpu = times.for_each(records() - before)
        functions = interpreting(it.workers[0], seconds=4)
        submitting.kill()
        submitting.communicate()
    return [
        f"{kind}, CPU time of each record from submission to record: {cpu}.",
        f"{kind}, who holds the interpreter's lock in a worker, by the innermost function of ours: {functions}.",
    ]


def _live(it: Contender, first: int, count: int) -> float:
    """Return records a second while submissions come in."""
    with counting(it.store_url, it.table) as records:
        before = records()
        submitting = _start(it, first, count)
        done, ended = _wait(records, before, count)
        return done / (ended - _told(submitting))


def _backlog(it: Contender, first: int, count: int) -> float:
    """Return records a second from what was submitted before."""
    with counting(it.store_url, it.table) as records:
        before = records()
        with suspended(it.workers):
            _told(_start(it, first, count))
            started = time.monotonic()
        done, ended = _wait(records, before, count)
        return done / (ended - started)


def _wait(records: Callable[[], int], before: int, count: int) -> tuple[int, float]:
    """Wait for *count* more records, but not for ever; return how many came, and the time of the last look."""
    give_up = time.monotonic() + PATIENCE_S
    while (done := records() - before) < count and time.monotonic() < give_up:
        time.sleep(0.005)
    assert done, f"no record came within {PATIENCE_S} s"
    return done, time.monotonic()


def _start(it: Contender, first: int, count: int) -> subprocess.Popen[str]:
    command = it.submit(first, count)
    return subprocess.Popen(command, env=it.environment, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def _told(submitting: subprocess.Popen[str]) -> float:
    """Wait for the end of the submitting, and return when it began."""
    said, _ = submitting.communicate(timeout=120)
    assert submitting.returncode == 0, said
    found = json.loads(said.splitlines()[-1])
    assert set(found.get("statuses", {"202": 1})) == {"202"}, found
    return float(found["started"])


@contextmanager
def _contender(stand: Stand, who: str, kind: str, maintenance_url: str) -> Iterator[Contender]:
    with tempfile.TemporaryDirectory(dir=stand.folder) as name, ExitStack() as running:
        folder = Path(name)
        if who == OURS:
            yield running.enter_context(_ours(stand, folder, kind, maintenance_url))
            return
        store_url = running.enter_context(store(kind, folder, maintenance_url))
        broker_url = running.enter_context(valkey(folder))
        environment = {
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "BENCH_STORE_URL": store_url,
            "BENCH_BROKER_URL": broker_url,
            "RQ_REDIS_URL": broker_url,
        }

        port = running.enter_context(shim(folder, environment)) if who == SHIM else 0

        def submit(first: int, count: int) -> list[str]:
            if port:
                return _asking(stand, port, first, count)
            jobs = (stand.artifacts.small, str(first), str(count))
            return [str(PEERS_PYTHON), "-m", "bench.peers.send", who, *jobs]

        subprocess.run(
            [PEERS_PYTHON, "-m", "bench.peers.send", "tables"],
            env=environment,
            cwd=PROJECT,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        program, *options = SHIM_WORKER if who == SHIM else PEERS[who]
        command = (str(BIN / program), *options, str(cores()))
        worker = running.enter_context(process("peer", command, environment, folder))
        it = Contender(store_url, "records", [worker], submit, environment)
        _live(it, 10**8, WARM_UP)
        yield it


def _asking(stand: Stand, port: int, first: int, count: int) -> list[str]:
    """Return the command that submits over HTTP, to ours and to the shim alike."""
    where = ("--port", str(port), "--artifacts", stand.artifacts.small, "--connections", "64")
    return [sys.executable, "-m", "bench.load", *where, "--first", str(first), "--count", str(count), "--declare"]


@contextmanager
def _ours(stand: Stand, folder: Path, kind: str, maintenance_url: str) -> Iterator[Contender]:
    with ExitStack() as running:
        if kind == SQLITE:
            it = running.enter_context(embedded(stand, folder, workers=cores()))
        else:
            store_url = running.enter_context(store(kind, folder, maintenance_url))
            it = running.enter_context(registry(stand, folder, store_url, workers=cores()))

        def submit(first: int, count: int) -> list[str]:
            return _asking(stand, it.port, first, count)

        environment = stand.environment(BENCH_TOKEN=it.token)
        yield Contender(it.store_url, "plugins", it.workers, submit, environment, it.processes)
