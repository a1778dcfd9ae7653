"""Goal 5: many slow downloads in one worker process."""

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import requests

from bench.engines import SQLITE, process, store, valkey
from bench.figures import OURS, Goal, Section
from bench.progress import doing
from bench.registry import Registry, register, registry
from bench.small import PEERS
from bench.stand import PEERS_PYTHON, PROJECT, Stand

NAME = "density"
SLOW = 500
MAX_MIB = 140.0
MANY, MANY_MAX_MIB = 2000, 250.0
MAX_CORE_PERCENT = 3.0
HELD_UP_MS = 25.0
FORKS = 8


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    section = Section(
        NAME,
        "Density",
        f"One worker process with {SLOW} downloads that bring 16 KiB a second each, and fast artifacts of 4 KiB "
        "that are submitted and waited for before and meanwhile. Room for so many was made by settings: 600 "
        "downloads, and as many from one host, because here all come from one.",
    )
    fast = 20 if stand.quick else 100
    rounds = 1 if stand.quick else 3
    without: list[float] = []
    meanwhile: list[float] = []
    mib: list[float] = []
    percent: list[float] = []
    for number in range(rounds):
        doing(f"{SLOW} slow downloads, round {number + 1} of {rounds}")
        with ExitStack() as running:
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder)))
            url = running.enter_context(store(SQLITE, folder, None))
            room = {"REGISTRY_MAX_DOWNLOADS_PER_HOST": "600", "REGISTRY_FETCH_DEADLINE_S": "3600"}
            it = running.enter_context(registry(stand, folder, url, workers=1, downloads=600, settings=room))
            without += [register(stand, it) * 1000 for _ in range(fast)]
            _submit_slow(stand, it, SLOW)
            time.sleep(2)
            meanwhile += [register(stand, it) * 1000 for _ in range(fast)]
            mib.append(it.workers[0].memory_info().rss / 2**20)
            percent.append(_core_percent(it.workers[0]))
            assert _slow_now(stand) == SLOW, f"only {_slow_now(stand)} slow downloads were under way"
    section.table("a fast artifact, until its 200", "ms", {"without slow ones": without, f"beside {SLOW}": meanwhile})
    holders = {OURS: [each / SLOW for each in mib]}
    if not stand.quick:
        doing("a prefork worker")
        holders["a prefork child"] = _prefork_mib(stand)
    section.table("resident set of whoever holds a slow download", "MiB", holders)
    extra = statistics.median(meanwhile) - statistics.median(without)
    section.goals += [
        Goal(f"one worker process with {SLOW} slow downloads", "at most", MAX_MIB, max(mib), "MiB"),
        Goal("their share of a core", "at most", MAX_CORE_PERCENT, statistics.median(percent), "%"),
        Goal("a fast artifact beside them: median above that without", "at most", HELD_UP_MS, extra, "ms"),
    ]
    if not stand.quick:
        doing(f"{MANY} slow downloads")
        section.goals.append(Goal(f"the same with {MANY}", "at most", MANY_MAX_MIB, _with_many(stand), "MiB"))
    whole = ", ".join(f"{each:.0f} MiB" for each in mib)
    section.notes.append(
        f"The whole worker process: {whole}. A prefork child holds one download and nothing beside it; its figure is "
        "its proportional set, in which what it shares with its siblings counts once."
    )
    return section


def _core_percent(worker: psutil.Process) -> float:
    """Return how much of a core *worker* uses, over some seconds."""
    worker.cpu_percent()
    time.sleep(5)
    return float(worker.cpu_percent())


def _with_many(stand: Stand) -> float:
    """Return how many MiB a worker holds with a great many slow downloads."""
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder)))
        url = running.enter_context(store(SQLITE, folder, None))
        room = {"REGISTRY_MAX_DOWNLOADS_PER_HOST": str(MANY), "REGISTRY_FETCH_DEADLINE_S": "3600"}
        it = running.enter_context(registry(stand, folder, url, workers=1, downloads=MANY, settings=room))
        _submit_slow(stand, it, MANY)
        time.sleep(5)
        assert _slow_now(stand) == MANY, f"only {_slow_now(stand)} slow downloads were under way"
        return float(it.workers[0].memory_info().rss / 2**20)


def _submit_slow(stand: Stand, it: Registry, count: int) -> None:
    """Submit so many slow artifacts, and wait until each is being downloaded."""
    headers = {"Authorization": f"Bearer {it.token}", "Prefer": "respond-async"}

    def submit(number: int) -> None:
        body = {
            "name": f"slow {number}",
            "version": "1.0.0",
            "pluginType": "log",
            "artifactUrl": f"{stand.artifacts.small}/slow/{number}",
            "checksum": f"sha256:{'0' * 64}",
        }
        answer = requests.post(f"{it.address}/api/v1/plugins", json=body, headers=headers, timeout=30)
        assert answer.status_code == 202, answer.text

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(submit, range(count)))
    give_up = time.monotonic() + 60
    while _slow_now(stand) < count and time.monotonic() < give_up:
        time.sleep(0.1)


def _slow_now(stand: Stand) -> int:
    return int(requests.get(f"{stand.artifacts.small}/slow", timeout=10).text)


def _prefork_mib(stand: Stand) -> list[float]:
    """Return what each child of a Celery prefork worker takes that has done a job like ours."""
    with tempfile.TemporaryDirectory(dir=stand.folder) as name:
        folder = Path(name)
        with valkey(folder) as broker_url:
            environment = {
                **os.environ,
                "PYTHONPATH": str(PROJECT),
                "BENCH_STORE_URL": f"sqlite:///{folder / 'records.db'}",
                "BENCH_BROKER_URL": broker_url,
            }
            program, *options = PEERS["celery"]
            command = (str(PEERS_PYTHON.parent / program), *options, str(FORKS))
            with process("celery", command, environment, folder) as worker:
                stand.peer("bench.peers.send", "tables", env=environment)
                stand.peer("bench.peers.send", "celery", stand.artifacts.small, 0, 20 * FORKS, env=environment)
                time.sleep(5)
                return [_proportional(child) / 2**20 for child in worker.children()]


def _proportional(child: psutil.Process) -> int:
    with suppress(psutil.Error, AttributeError):
        return int(child.memory_full_info().pss)
    return int(child.memory_info().rss)
