"""Running a target over many inputs, in a child that the kernel ends when one of them takes too long.

A parser that spins in C holds the interpreter, so nothing in that process could end it: the CPU time of each input
has a timer whose signal is answered in C, by a traceback, and then by the process's death. Memory is read after each
input as the most there ever was, so that what was given back counts too.
"""

import faulthandler
import gc
import multiprocessing
import os
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from ctypes import Structure, c_longlong
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from random import Random
from typing import Any, NoReturn, Protocol

from shared.logs import configure_logs
from tests.fuzz.inputs import MAX_BYTES, Maker

CPU_S = 1.0
"""Of one input of 256 KiB; an honest one takes a twentieth of it. A quarter of it is enough for a short one."""
GROWTH_BYTES = 20 * 2**20
"""By so much a process may grow over what it had after the valid inputs, however many inputs follow."""
ROOM_BYTES = 4 * 2**30
"""Of addresses, as the last resort; a memory error is a finding as well."""
STILL_S = 120.0
"""So long an input may wait for something, on however busy a machine."""

_PROJECT = Path(__file__).parent.parent.parent
_OURS = {"api", "worker", "shared", "cli"}
_FOUND = 3
"""What a child exits with that has written down what it found."""
_PEAK_UNIT_BYTES = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Target:
    """One way in: *run* takes what *make* makes, and ends well or in one of *ours*."""

    name: str
    run: Callable[[bytes], object]
    make: Maker
    ours: tuple[type[Exception], ...] = ()


class Inputs(Protocol):
    """Inputs by their number, from 0 on, without end or until an IndexError."""

    def __getitem__(self, number: int, /) -> bytes: ...


@dataclass(frozen=True)
class Made:
    """What *target* makes of a seed."""

    target: Target
    seed: int

    def __getitem__(self, number: int) -> bytes:
        return self.target.make(Random(f"{self.seed} {self.target.name} {number}"))


@dataclass(frozen=True)
class Finding:
    """What came of the input of this *number*: its *kind* in a word, *where* in a line if known, its *story*."""

    number: int
    kind: str
    where: str
    story: str


@dataclass
class Sum:
    """What a target's inputs took so far."""

    inputs: int = 0
    slowest_ms: float = 0
    growth_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)


class _Told(Structure):
    """What a child tells while it runs, in memory that its parent shares."""

    _fields_ = [(name, c_longlong) for name in ("number", "slowest_ns", "growth_bytes")]


def trial(
    target: Target,
    inputs: Inputs,
    until: float,
    *,
    first: int = 0,
    still_s: float = STILL_S,
    progress: Callable[[Sum], None] = lambda _sofar: None,
) -> Sum:
    """Run *target* over *inputs*, from the *first* on, to their end, the monotonic time *until*, or a finding.

    The input of a finding is the last that was run; whoever wants more goes on behind it with a new trial.
    """
    told: Any = RawValue(_Told, first)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.targets"])
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        trace = Path(folder, "trace")
        trace.touch()
        child = context.Process(target=_run, args=(target, inputs, first, until, told, trace), daemon=True)
        child.start()
        stood_still = _watch(child, told, still_s, lambda: progress(_sum(told, first)))
        summed, story = _sum(told, first), trace.read_text(errors="replace")
    if child.exitcode != 0:
        kind = "stands-still" if stood_still else _death(child.exitcode)
        if child.exitcode == _FOUND:
            kind, _, story = story.partition("\n")
        summed.findings.append(Finding(told.number, kind, _where(story), story))
        summed.inputs += 1
    return summed


def _sum(told: Any, first: int) -> Sum:
    return Sum(told.number - first, told.slowest_ns / 1e6, told.growth_bytes)


def _watch(child: BaseProcess, told: Any, still_s: float, progress: Callable[[], None]) -> bool:
    """Wait for *child*; return whether it had to be ended because it stood still."""
    number, since = -1, time.monotonic()
    while child.exitcode is None:
        child.join(0.5)
        progress()
        if told.number != number:
            number, since = told.number, time.monotonic()
        elif time.monotonic() - since > still_s:
            os.kill(child.pid or 0, signal.SIGABRT)  # before it dies it tells where it stands
            child.join()
            return True
    return False


def _death(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"exits-{exitcode}"
    return "spins" if exitcode == -signal.SIGPROF else f"dies-of-{signal.Signals(-exitcode).name}"


def _where(story: str) -> str:
    """Return the place that a traceback names: what was raised, the innermost line of ours, the innermost of all."""
    lines = re.findall(r'File "([^"]+)", line ([0-9]+)', story)
    if not lines:
        return ""
    raised = ""
    if "most recent call first" not in story:
        lines.reverse()
        raised = story.strip().splitlines()[-1].partition(":")[0]
    ours = next((f"{Path(file).relative_to(_PROJECT)}:{line}" for file, line in lines if _is_ours(Path(file))), "")
    return f"{raised} {ours} in {Path(lines[0][0]).name}:{lines[0][1]}".strip()


def _is_ours(file: Path) -> bool:
    return file.is_relative_to(_PROJECT) and file.relative_to(_PROJECT).parts[0] in _OURS


# --- in the child ---------------------------------------------------------------------------------


def _run(target: Target, inputs: Inputs, first: int, until: float, told: Any, trace: Path) -> NoReturn:
    """Run inputs until it is time, there are no more, or one of them is a finding; tell which, and what they took."""
    tempfile.tempdir = str(trace.parent)
    _write_logs_to_nowhere()
    for valid in target.make.valid * 3:  # so that what is loaded or kept on first use is there
        _surprise(target, valid)
    gc.collect()
    gc.freeze()  # as the product does
    with trace.open("w") as dying:
        faulthandler.enable(dying)
        faulthandler.register(signal.SIGPROF, dying, all_threads=False, chain=True)  # to the default, which is to die
        resource.setrlimit(resource.RLIMIT_AS, (ROOM_BYTES, ROOM_BYTES))
        peak_bytes, told.number = _peak_bytes(), first
        while time.monotonic() < until:
            try:
                data = inputs[told.number]
            except IndexError:
                break
            began = time.process_time_ns()
            signal.setitimer(signal.ITIMER_PROF, CPU_S * (1 + 3 * min(1, len(data) / MAX_BYTES)) / 4)
            surprise = _surprise(target, data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            told.slowest_ns = max(told.slowest_ns, time.process_time_ns() - began)
            told.growth_bytes = max(told.growth_bytes, _peak_bytes() - peak_bytes)
            if surprise:
                _end(trace, f"raises\n{surprise}")
            if told.growth_bytes > GROWTH_BYTES:
                _end(trace, f"grows\nby {told.growth_bytes >> 20} MiB, over the inputs from {first} on")
            told.number += 1
    os._exit(0)  # whatever threads there are


def _end(trace: Path, story: str) -> NoReturn:
    trace.write_text(story)
    os._exit(_FOUND)


def _surprise(target: Target, data: bytes) -> str:
    """Return the story of what was raised that the target does not call its own, if anything was."""
    try:
        target.run(data)
    except target.ours:
        pass
    except BaseException as error:  # noqa: BLE001  # what panics in Rust is no Exception
        story = "".join(traceback.format_exception(error, limit=-20))
        return story[-20_000:].encode("utf-8", "backslashreplace").decode()
    return ""


def _write_logs_to_nowhere() -> None:
    """Have logs made as ever, and thrown away."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    configure_logs(service="fuzz")


def _peak_bytes() -> int:
    """Return the most memory that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _PEAK_UNIT_BYTES
