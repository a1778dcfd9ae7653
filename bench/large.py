"""Goal 1: one large artifact, over http and https; and the memory that downloads take."""

import os
import resource
import shlex
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil

from bench.figures import OURS, Goal, Section, Table, turn
from bench.profiling import CpuTimes, running
from bench.progress import doing
from bench.stand import Served, Stand

NAME = "large"
OPENSSL, SHA256SUM = "curl | openssl", "curl | sha256sum"
SLOW = {SHA256SUM, "pooch"}
WALL_GOAL = {"http": 0.54, "https": 0.65}
Measured = dict[str, float]


def run(stand: Stand) -> Section:
    """Measure, and return what was found."""
    mib, rounds = stand.artifacts.large_mib, 3 if stand.quick else 7
    section = Section(
        NAME,
        "One large artifact",
        f"{mib} MiB from a server on the same machine. Ours on the worker's whole path: claim, egress checks, "
        "download, digest, deadline, limits, lease, progress, settling on SQLite with `synchronous=FULL`. The "
        "client's wall time, and its user and system CPU time with that of its children; starting Python is not "
        "counted.",
    )
    with stand.serving("bench.verify", "serve", stand.artifacts.large_checksum) as verify:
        for scheme, url in (("http", stand.artifacts.http), ("https", stand.artifacts.https)):
            verify(url)  # what happens once in a worker's life is not counted
            contenders: dict[str, Callable[[], Measured]] = {OURS: partial(verify, url), **_peers(stand, url)}
            if stand.quick and scheme == "https":
                del contenders["pooch"]
            _measure(stand, section, scheme, contenders, rounds)
            if not stand.quick and not all(goal.met for goal in section.goals[-2:]):
                doing(f"large artifact over {scheme}: what limits ours")
                section.notes += _limits(stand, verify, scheme, url)
    _memory(stand, section)
    return section


def _measure(
    stand: Stand, section: Section, scheme: str, contenders: dict[str, Callable[[], Measured]], rounds: int
) -> None:
    runs: dict[str, list[Measured]] = {who: [] for who in contenders}
    for number in range(rounds):
        for who in turn(list(contenders), number):
            if who in SLOW and number >= (1 if stand.quick else 3):
                continue  # they take long, and what they show needs no more rounds
            doing(f"large artifact over {scheme}, round {number + 1} of {rounds}: {who}")
            runs[who].append(contenders[who]())
    wall = Table(f"{scheme}, wall time", "s", {who: [each["wall_s"] for each in runs[who]] for who in runs})
    cpu = Table(f"{scheme}, CPU time", "s", {who: [each["cpu_s"] for each in runs[who]] for who in runs})
    section.tables += [wall, cpu]
    if OPENSSL in runs:
        goal = "wall time, of that of `curl` into `openssl dgst -sha256`"
        section.goals.append(Goal(f"{scheme}: {goal}", "at most", WALL_GOAL[scheme], wall.ratio(OURS, OPENSSL)))
        section.goals.append(Goal(f"{scheme}: CPU time, of theirs", "at most", 1.0, cpu.ratio(OURS, OPENSSL)))
    else:
        section.notes.append(f"Without curl and openssl on this machine the goal over {scheme} has no measure.")


def _limits(stand: Stand, verify: Served, scheme: str, url: str) -> list[str]:
    """Return what ours and the artifact's host are busy with while an artifact is verified."""
    ours = psutil.Process(verify.process.pid)
    times = CpuTimes({"ours": ours, "the artifact's host": stand.artifacts.host})
    for _ in range(3):
        verify(url)
    cpu = times.for_each(3)
    with ThreadPoolExecutor(1) as other:
        verifying = other.submit(lambda: [verify(url) for _ in range(4)])
        functions = running(ours, seconds=3)
        verifying.result()
    return [
        f"{scheme}, CPU time of each artifact: {cpu}.",
        f"{scheme}, where ours is while it runs, by the innermost function of ours: {functions}.",
    ]


def _peers(stand: Stand, url: str) -> dict[str, Callable[[], Measured]]:
    ca_file, checksum = stand.artifacts.ca_file, stand.artifacts.large_checksum

    def library(name: str) -> Callable[[], Measured]:
        return lambda: dict(stand.peer("bench.peers.download", name, url, checksum, ca_file))

    found: dict[str, Callable[[], Measured]] = {}
    for name, hasher in ((OPENSSL, "openssl dgst -sha256"), (SHA256SUM, "sha256sum")):
        if not {"curl", hasher.split(maxsplit=1)[0]} & stand.lacking:
            found[name] = pipe(url, checksum, ca_file, hasher)
    return {**found, "requests": library("requests"), "pooch": library("pooch")}


def pipe(url: str, checksum: str, ca_file: Path, hasher: str) -> Callable[[], Measured]:
    """Return what has curl download and *hasher* hash."""
    line = f"curl -sS --noproxy '*' --cacert {shlex.quote(str(ca_file))} {shlex.quote(url)} | {hasher}"

    def run_pipe() -> Measured:
        cpu, wall = _children_cpu_s(), time.perf_counter()
        done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=True)
        found = {"wall_s": time.perf_counter() - wall, "cpu_s": _children_cpu_s() - cpu}
        assert checksum.removeprefix("sha256:") in done.stdout
        return found

    return run_pipe


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _memory(stand: Stand, section: Section) -> None:
    """Large downloads at once on more threads than cores, and slow ones that hold what they were given."""
    rounds = 1 if stand.quick else 3
    at_once, slow = 8, 100
    fast_mib, slow_mib = [], []
    for number in range(rounds):
        doing(f"memory of downloads, round {number + 1} of {rounds}")
        checksum = stand.artifacts.large_checksum
        large = stand.ours("bench.verify", "memory", checksum, stand.artifacts.http, at_once)
        fast_mib.append(float(large["mib"]))
        held = stand.ours("bench.verify", "hold", checksum, f"{stand.artifacts.small}/slow/{{n}}", slow)
        slow_mib.append(float(held["mib"]))
    table = Table(
        "growth of the resident set for each download, at its highest",
        "MiB",
        {f"{at_once} large ones at once": fast_mib, f"{slow} slow ones": slow_mib},
    )
    section.tables.append(table)
    section.goals.append(Goal("memory for each large download", "at most", 4.0, max(fast_mib), "MiB"))
    section.goals.append(Goal("memory for each slow download", "at most", 0.5, max(slow_mib), "MiB"))
    section.notes.append(f"{os.cpu_count()} cores; a slow download announces 64 MiB and brings 16 KiB a second.")
