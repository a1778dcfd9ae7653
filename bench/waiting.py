"""Goal 4: a client that waits for its registration, on an idle registry."""

import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count, pairwise
from pathlib import Path

import requests

from bench.engines import POSTGRESQL, SQLITE, store
from bench.figures import OURS, Goal, Section
from bench.large import OPENSSL, pipe
from bench.load import requests as asking
from bench.origin import SMALL_BYTES
from bench.progress import doing
from bench.registry import Registry, embedded, register, register_large, registry
from bench.stand import PROJECT, Stand
from shared.store.counters import Counters
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from shared.store.workers import Workers
from tests.engines import postgresql

NAME = "waiting"
BARE = "bare download"
APART = "ours, from a host that sends head and body apart"
EXTRA_MS = 10.0
LARGE_GOAL = 0.58
ANSWER_MS = 5.0
WAITING = 1000
COMMAND_S = 0.3
STARTS_S = {"api": 1.2, "worker-1": 1.2, "beat": 0.5}
_numbers = count(2 * 10**9)


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    section = Section(
        NAME,
        "Waiting",
        "A synchronous POST of a 4 KiB artifact to a registry on which nothing else happens, until its 200, beside "
        "a bare download of such an artifact by requests. Both on a new connection each time. The third row has our "
        "worker keep its connection to a host on which a delayed acknowledgement would cost 40 ms each time.",
    )
    rounds = 30 if stand.quick else 200
    kinds = (SQLITE,) if stand.quick else (SQLITE, POSTGRESQL)
    for kind in kinds:
        with ExitStack() as running:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder)))
            doing(f"waiting on {kind}")
            if kind == SQLITE:
                it = running.enter_context(embedded(stand, folder, workers=1))
            else:
                maintenance_url = running.enter_context(postgresql())
                store_url = running.enter_context(store(kind, folder, maintenance_url))
                it = running.enter_context(registry(stand, folder, store_url, workers=1))
            if kind == SQLITE:
                for name, at_most in STARTS_S.items():
                    used = it.processes[name].cpu_times()
                    goal = Goal(f"CPU time until {name} is ready", "at most", at_most, used.user + used.system, "s")
                    section.goals.append(goal)
                _starts(section, it)
            runs: dict[str, list[float]] = {OURS: [], BARE: [], APART: []}
            begun: list[float] = []
            for _ in range(rounds):
                runs[BARE].append(_download(stand) * 1000)
                begun.append(time.time())
                runs[OURS].append(register(stand, it) * 1000)
            runs[APART] += [register(stand, it, path="apart") * 1000 for _ in range(rounds)]
            parts = _stages(it.store_url, begun, runs[OURS])
            told = (f"{part:.1f} ms until {name}" for name, part in parts.items())
            section.notes.append(f"{kind}, where the time goes, on average: {', then '.join(told)}.")
            if kind == SQLITE and not {"curl", "openssl"} & stand.lacking:
                _large(stand, section, it)
        table = section.table(f"{kind}, one small artifact", "ms", runs)
        extra = table.median(OURS) - table.median(BARE)
        section.goals.append(Goal(f"{kind}: median above the bare download's", "at most", EXTRA_MS, extra, "ms"))
        name = f"{kind}: from the settlement to the answer, on average"
        section.goals.append(Goal(name, "at most", ANSWER_MS, parts["answered"], "ms"))
        _idle(stand, section, kind)
    return section


def _large(stand: Stand, section: Section, it: Registry) -> None:
    """A synchronous POST of a large artifact over http, beside `curl | openssl`."""
    piped = pipe(
        stand.artifacts.http, stand.artifacts.large_checksum, stand.artifacts.ca_file, "openssl dgst -sha256"
    )
    runs: dict[str, list[float]] = {OURS: [], OPENSSL: []}
    for number in range(2 if stand.quick else 7):
        doing(f"waiting for a large artifact, round {number + 1}")
        large = register_large(stand, it)
        runs[OURS] += [large] if number else []  # what happens once in a worker's life is not counted
        runs[OPENSSL].append(piped()["wall_s"])
    table = section.table(f"{stand.artifacts.large_mib} MiB over http, from the POST to its 200", "s", runs)
    ratio = table.ratio(OURS, OPENSSL)
    section.goals.append(Goal("a large artifact, POST to 200, of `curl | openssl`", "at most", LARGE_GOAL, ratio))


def _idle(stand: Stand, section: Section, kind: str) -> None:
    """What an api spends while a thousand requests wait and nothing happens, but what a worker says of itself."""
    limits = dict.fromkeys(
        ("WAITS_PER_TOKEN", "WAITS_PER_ADDRESS", "REQUESTS_PER_TOKEN", "CONNECTIONS_PER_ADDRESS"), "0"
    )
    settings = {f"REGISTRY_MAX_{name}": value for name, value in limits.items()}
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder)))
        maintenance_url = running.enter_context(postgresql()) if kind == POSTGRESQL else None
        store_url = running.enter_context(store(kind, folder, maintenance_url))
        it = running.enter_context(registry(stand, folder, store_url, workers=0, settings=settings))
        doing(f"{WAITING} requests wait on {kind}")
        wires = [running.enter_context(socket.create_connection(("127.0.0.1", it.port))) for _ in range(WAITING)]
        numbers = requests_of("127.0.0.1", stand.artifacts.small, next(_numbers) + 10**8, WAITING, it.token)
        for wire, request in zip(wires, numbers, strict=True):
            wire.sendall(request)
        database = running.enter_context(closing(open_database(it.store_url)))
        over = threading.Event()
        running.callback(over.set)
        threading.Thread(target=_live, args=(database, over), daemon=True).start()
        time.sleep(5)  # until all of them are committed, and wait
        before, begun = it.processes["api"].cpu_times(), time.monotonic()
        time.sleep(3 if stand.quick else 10)
        after, took_s = it.processes["api"].cpu_times(), time.monotonic() - begun
        answered = select.poll()
        for wire in wires:
            answered.register(wire, select.POLLIN)
        assert not answered.poll(0), "somebody was answered"
        spent_s = after.user + after.system - before.user - before.system
    name = f"{kind}: of a core, while {WAITING:,} requests wait and nothing happens"
    section.goals.append(Goal(name, "at most", 1.0, 100 * spent_s / took_s, "%"))


def _live(database: Database, over: threading.Event) -> None:
    """Say what a worker and the sweep say of themselves while nothing happens: commits that are no outcome."""
    while not over.wait(2.0):
        Workers(database).here("bench", max_downloads=1)
        Counters(database).mark("sweep")


def requests_of(host: str, artifacts: str, first: int, count: int, token: str) -> Iterator[bytes]:
    """Yield registrations whose answers are waited for."""
    for request in asking(host, artifacts, first, count, declare=False, token=token):
        yield request.replace(b"Prefer: respond-async", b"Prefer: wait=60")


def _starts(section: Section, it: Registry) -> None:
    """What the command line spends until it has been answered."""
    environment = {**os.environ, "REGISTRY_URL": it.address, "REGISTRY_TOKEN": it.token}
    found = Store(open_database(it.store_url)).registrations(limit=1)[0]
    commands = {
        "status": (found.id,),
        "register": (
            *("--name", found.submission.name, "--version", found.submission.version, "--type", "log"),
            *("--url", found.submission.artifact_url, "--checksum", found.submission.checksum),
        ),
    }
    for command, arguments in commands.items():
        spent = []
        for _ in range(5):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(
                [sys.executable, "-m", "plugin_registry_client", command, *arguments],
                env=environment,
                cwd=PROJECT,
                check=True,
                capture_output=True,
            )
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        name = f"CPU time of `plugin-registry {command}`"
        section.goals.append(Goal(name, "at most", COMMAND_S, statistics.median(spent), "s"))


def _stages(store_url: str, begun: Sequence[float], took_ms: Sequence[float]) -> dict[str, float]:
    """Return where the time of our answers went, ms on average, by what the store noted in whole ones."""
    database = open_database(store_url)
    found = [*reversed(Store(database).registrations(limit=2 * len(begun)))][: len(begun)]
    database.close()
    parts: dict[str, list[float]] = {"accepted": [], "claimed": [], "settled": [], "answered": []}
    for registration, start, took in zip(found, begun, took_ms, strict=True):
        assert registration.claimed_at is not None
        times = (registration.created_at, registration.claimed_at, registration.updated_at)
        moments = [start, *(each.timestamp() + 0.0005 for each in times), start + took / 1000]
        for part, (earlier, later) in zip(parts.values(), pairwise(moments), strict=True):
            part.append((later - earlier) * 1000)
    return {name: statistics.fmean(part) for name, part in parts.items()}


def _download(stand: Stand) -> float:
    started = time.perf_counter()
    answer = requests.get(f"{stand.artifacts.small}/small/{next(_numbers)}", timeout=30)
    assert len(answer.content) == SMALL_BYTES
    return time.perf_counter() - started
