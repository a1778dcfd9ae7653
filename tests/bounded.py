"""Calls that may use so much CPU time and no more, whatever they do: what spins holds the interpreter, too."""

import multiprocessing
import resource
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

Answer = TypeVar("Answer")
MAX_GROWTH_BYTES = 256 * 2**20
_processes = multiprocessing.get_context("forkserver")  # a fork of ours would take a copy of our threads' locks along
_processes.set_forkserver_preload(["pytest", "tests.fuzz.targets"])  # for all who use it: the first of them starts it


def within_cpu_s(seconds: float, call: Callable[..., Answer], *arguments: Any) -> Answer:
    """Return what *call* returns; fail if it needs more than *seconds* of CPU time, or grows by 256 MiB.

    It is made in a child whose own CPU clock ends it, so that neither a busy machine nor a loop in C makes a
    difference. A handler written in Python would wait for the interpreter that the loop holds.
    """
    reading, writing = _processes.Pipe(duplex=False)
    child = _processes.Process(target=_answer, args=(writing, seconds, call, arguments))
    child.start()
    writing.close()
    try:
        answered: Answer | BaseException = reading.recv()
    except EOFError:
        child.join()
        assert child.exitcode != -signal.SIGPROF, f"it used more than {seconds} s of CPU time"
        raise AssertionError(f"it ended its process: {child.exitcode}") from None
    finally:
        reading.close()
    child.join()
    child.close()
    if isinstance(answered, BaseException):
        raise answered
    return answered


def _answer(pipe: Connection, seconds: float, call: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MAX_GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        answer = call(*arguments)
    except Exception as error:  # noqa: BLE001  # told, and raised again
        answer = error
    signal.setitimer(signal.ITIMER_PROF, 0)
    pipe.send(answer)
