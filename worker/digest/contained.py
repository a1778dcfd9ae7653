"""Questions about a stranger's bytes, answered in a child process: what goes wrong there costs the answer, not us.

A loop inside an extension holds the interpreter and all its threads, and cannot be ended from within. So whoever
answers has a process of its own, with a limit of CPU time for each question, by its own clock, and of memory; it
knows nothing of ours. It stays for the next question, and is made anew if it was lost.
"""

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

CPU_S = 1.0
"""For one question; an honest one takes milliseconds."""
WITHIN_S = 20.0
"""Until then the answer is there, on a busy machine too, or there is none."""
MEMORY_BYTES = 512 * 2**20
MAX_ANSWER_BYTES = 64 * 1024
_LENGTH_BYTES = 8


class NoAnswer(Exception):
    """The question was too much for the child; the message says how it ended."""


class Contained:
    """Asks *module*, which runs `serve` when it is called as a program. One question at a time."""

    def __init__(self, module: str, *, within_s: float = WITHIN_S) -> None:
        self._command = [sys.executable, "-m", module]
        self._within_s = within_s
        self._one = threading.Lock()
        self._wire: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._ended: Callable[[], None] = lambda: None

    def ask(self, question: bytes) -> bytes:
        """Return the answer to *question*.

        Raises:
            NoAnswer: there is none.
        """
        if not self._one.acquire(timeout=self._within_s):
            raise NoAnswer("others were before us")
        try:
            wire = self._wire or self._begin()
            wire.sendall(len(question).to_bytes(_LENGTH_BYTES, "big") + question)
            return _received(wire, at_most=MAX_ANSWER_BYTES)
        except OSError as error:
            how = _ending_of(self._child)
            self._end_child()
            raise NoAnswer(how or str(error)) from error
        finally:
            self._one.release()

    def close(self) -> None:
        """End the child, if there is one."""
        with self._one:
            self._end_child()

    def _begin(self) -> socket.socket:
        wire, theirs = socket.socketpair()
        wire.settimeout(self._within_s)
        with theirs:
            self._child = subprocess.Popen(  # noqa: S603  # the command is ours
                self._command,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.DEVNULL,  # a traceback may quote what is a stranger's
                env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
            )
        self._wire = wire
        self._ended = weakref.finalize(self, _end, self._child, wire)  # with us, if not before
        return wire

    def _end_child(self) -> None:
        self._wire = None
        self._ended()


def _end(child: subprocess.Popen[bytes], wire: socket.socket) -> None:
    wire.close()
    child.kill()
    child.wait()


def _ending_of(child: subprocess.Popen[bytes] | None) -> str:
    """Return how *child* ended by itself; nothing if it has not. Its socket may be closed a moment before that."""
    try:
        ended = child.wait(0.5) if child is not None else None
    except subprocess.TimeoutExpired:
        return ""
    if ended is None:
        return ""
    return f"it ended by {signal.Signals(-ended).name}" if ended < 0 else f"it ended with status {ended}"


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Answer the questions on standard input, until it ends. Each may take `CPU_S`, or this process is ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for our parent, and we end with it
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with socket.socket(fileno=os.dup(0)) as wire:
        while True:
            try:
                question = _received(wire, at_most=MEMORY_BYTES)
            except ConnectionError:
                return
            signal.setitimer(signal.ITIMER_PROF, CPU_S)
            answered = answer(question)
            signal.setitimer(signal.ITIMER_PROF, 0)
            wire.sendall(len(answered).to_bytes(_LENGTH_BYTES, "big") + answered)


def _received(wire: socket.socket, *, at_most: int) -> bytes:
    """Return the next message.

    Raises:
        ConnectionError: there is none, or it has more than *at_most* bytes.
        TimeoutError: it did not come in time.
    """
    length = int.from_bytes(_exactly(wire, _LENGTH_BYTES), "big")
    if length > at_most:
        raise ConnectionError(f"it announced {length} bytes")
    return _exactly(wire, length)


def _exactly(wire: socket.socket, count: int) -> bytes:
    received = bytearray()
    while len(received) < count:
        piece = wire.recv(min(count - len(received), 2**20))
        if not piece:
            raise ConnectionError("it ended")
        received += piece
    return bytes(received)
