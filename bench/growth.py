"""Goal 6: what grows with the store, and with the life of a process."""

import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil

from bench.costs import RENEWING
from bench.engines import POSTGRESQL, SQLITE, counting, store
from bench.figures import Course, Goal, Section
from bench.filling import fill
from bench.progress import doing
from bench.registry import Registry, cores, embedded
from bench.stand import PROJECT, Stand
from tests.engines import postgresql

NAME = "growth"
FEW = 1000
MAX_RATIO = 1.5
RENEWING_MS = 5.0
FLAT = 1.1
"""How much more memory at the end than after the first quarter still counts as flat."""


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    many = 100_000 if stand.quick else 1_000_000
    section = Section(
        NAME,
        "Growth",
        f"What the store's work costs with {FEW:,} registrations and the plugins they became, and with {many:,}, on "
        "both stores, in turn. Page 1,000 has 50 items to a page; where there are not so many it is the last. "
        "Below, the memory of every process of an embedded registry while registrations go through it.",
    )
    with postgresql() as maintenance_url:
        for kind in (SQLITE, POSTGRESQL):
            _costs(stand, section, kind, maintenance_url, many)
    _memory(stand, section, 4000 if stand.quick else 200_000, 5 if stand.quick else 600)
    return section


def _costs(stand: Stand, section: Section, kind: str, maintenance_url: str, many: int) -> None:
    with ExitStack() as running:
        asked: list[object] = []
        for rows in (FEW, many):
            doing(f"growth on {kind}: filling a store with {rows:,} rows")
            folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=stand.folder)))
            url = running.enter_context(store(kind, folder, maintenance_url))
            fill(url, rows)
            asked += [rows, url]
        doing(f"growth on {kind}: what work costs")
        found = stand.ours("bench.costs", 2 if stand.quick else 9, *asked)
    first_page = found["list of plugins, page 1"][str(FEW)]
    renewing = statistics.median(found[RENEWING][str(FEW)])
    section.goals.append(Goal(f"{kind}, {RENEWING}", "at most", RENEWING_MS, renewing, "ms"))
    for work, runs in found.items():
        few = first_page if work == "list of plugins, page 1,000" else runs[str(FEW)]
        table = section.table(f"{kind}, {work}", "ms", {f"{FEW:,} rows": few, f"{many:,} rows": runs[str(many)]})
        name = f"{kind}, {work}: {many:,} rows, of {FEW:,}"
        if few is first_page and runs is not found["list of plugins, page 1"]:
            name = f"{kind}, {work}: of {many:,} rows, of page 1 of {FEW:,}"
        section.goals.append(Goal(name, "at most", MAX_RATIO, table.ratio(f"{many:,} rows", f"{FEW:,} rows")))


def _memory(stand: Stand, section: Section, count: int, seconds: float) -> None:
    """Send *count* registrations through a registry, or as many as go through in *seconds*."""
    with tempfile.TemporaryDirectory(dir=stand.folder) as name, embedded(stand, Path(name), workers=cores()) as it:
        courses: dict[str, list[tuple[float, float]]] = {each: [] for each in it.processes}
        with counting(it.store_url, "plugins") as plugins:
            submitting = _submitting(stand, it, count, seconds)
            end = time.monotonic() + seconds
            while (done := plugins()) < count and time.monotonic() < end:
                doing(f"growth: memory after {done:,} of {count:,} registrations")
                for each, process in it.processes.items():
                    courses[each].append((done, _mib(process)))
                time.sleep(seconds / 60)
            submitting.kill()
            submitting.communicate()
            done = plugins()
    section.courses.append(Course("memory of each process", "registrations", "MiB", courses))
    growth = {each: _growth(points) for each, points in courses.items()}
    worst = max(growth, key=lambda each: growth[each])
    title = f"memory after {done:,} registrations, of that after a quarter of them; worst of all processes: {worst}"
    section.goals.append(Goal(title, "at most", FLAT, growth[worst]))
    section.notes += [f"{each}: {_said(courses[each])}." for each in courses]
    if done < count:
        section.notes.append(
            f"{done:,} registrations instead of {count:,} were done when the {seconds:g} s were over."
        )


def _submitting(stand: Stand, it: Registry, count: int, seconds: float) -> subprocess.Popen[bytes]:
    where = ("--port", str(it.port), "--artifacts", stand.artifacts.small, "--connections", "32")
    what = ("--count", str(count), "--seconds", str(seconds), "--declare")
    command = [sys.executable, "-m", "bench.load", *where, *what]
    environment = stand.environment(BENCH_TOKEN=it.token)
    return subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=subprocess.DEVNULL)


def _growth(points: list[tuple[float, float]]) -> float:
    """Return the memory at the end of the course, of that after its first quarter."""
    quarter = next((mib for done, mib in points if done >= points[-1][0] / 4), 0.0)
    return points[-1][1] / quarter if quarter else 1.0


def _said(points: list[tuple[float, float]]) -> str:
    middle = next(mib for done, mib in points if done >= points[-1][0] / 4)
    return f"{points[0][1]:.0f} MiB at the start, {middle:.0f} after a quarter, {points[-1][1]:.0f} at the end"


def _mib(process: psutil.Process) -> float:
    with suppress(psutil.Error):
        return float(process.memory_info().rss / 2**20)
    return 0.0
