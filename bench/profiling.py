"""Where a process of ours spends its time, so that a missed goal is shown with what limits it."""

import os
import re
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from bench.stand import PEERS_PYTHON

OURS = ("api/", "shared/", "worker/")
SHOWN = 6


def running(process: psutil.Process, *, seconds: int) -> str:
    """Return in which functions of ours *process* is whenever one of its threads runs, waiting not included."""
    return _shares(_functions(_stacks(process, seconds)))


def interpreting(process: psutil.Process, *, seconds: int) -> str:
    """Return in which functions of ours *process* is whenever one of its threads holds the interpreter's lock.

    It is not stopped to look: its threads would be stopped one after the other, and the lock be found with the first.
    """
    return _shares(_functions(_stacks(process, seconds, "--gil", "--nonblocking")))


def _stacks(process: psutil.Process, seconds: int, *options: str) -> str:
    """Return what py-spy saw: lines of frames and how often they were seen."""
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        command = (str(PEERS_PYTHON.parent / "py-spy"), "record", *options, "--format", "raw", "--rate", "100")
        whom = ("--duration", str(seconds), "--pid", str(process.pid), "--output", str(stacks))
        done = subprocess.run([*command, *whom], capture_output=True, text=True, check=False)
        if not stacks.exists():
            raise RuntimeError(f"py-spy saw nothing: {done.stderr[-1000:]}")
        return stacks.read_text()


def _shares(places: Counter[str]) -> str:
    total = sum(places.values())
    return "; ".join(f"{count / total:.0%} {place}" for place, count in places.most_common(SHOWN))


def _functions(stacks: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        ours = [frame for frame in stack.split(";") if any(f"({folder}" in frame for folder in OURS)]
        found[f"`{re.sub(r':[0-9]+[)]', ')', ours[-1])}`" if ours else "no code of ours on the stack"] += int(count)
    return found


class CpuTimes:
    """The CPU time that processes used since this was made: those that have a name, and all others that we began."""

    OTHERS = "everything else that runs here"

    def __init__(self, named: Mapping[str, psutil.Process]) -> None:
        self._names = {process.pid: re.sub(r"-[0-9]+$", "s", name) for name, process in named.items()}
        self._before = self._now()
        self._began = time.monotonic()

    def for_each(self, count: int) -> str:
        """Return the milliseconds that each of *count* took of everyone, and how busy that kept the cores."""
        used: dict[str, float] = defaultdict(float)
        for pid, seconds in self._now().items():
            used[self._names.get(pid, self.OTHERS)] += seconds - self._before.get(pid, 0.0)
        there_were = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        parts = (
            f"{name} {seconds / count * 1000:.2f} ms"
            for name, seconds in sorted(used.items(), key=lambda one: -one[1])[:4]
        )
        return f"{', '.join(parts)}; together {sum(used.values()) / there_were:.0%} of {os.cpu_count()} cores"

    @staticmethod
    def _now() -> dict[int, float]:
        found = {}
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                times = process.cpu_times()
                found[process.pid] = times.user + times.system
        return found
