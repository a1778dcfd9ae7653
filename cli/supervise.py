"""Children of this process: started, restarted when they die, ended when we end, however we end."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

BACKOFF_S = (0.5, 1, 2, 5, 10, 30)
HEALTHY_AFTER_S = 30
STOP_WITHIN_S = 10
LISTENED_AT_MOST_S = 1.0
"""If we were stopped for longer than this, so were others, or what they said was not heard."""
MOUTH = "REGISTRY_SUPERVISOR_FD"
"""What tells a child by which descriptor it is heard."""
_PR_SET_PDEATHSIG = 1  # prctl(2)


@dataclass
class Child:
    """One process to keep running. *log* takes its output; None shares ours."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    log: Path | None = None
    pass_fds: Sequence[int] = ()
    silent_s: float | None = None
    """It is ended when it was heard once and then says nothing for so long; None: nobody listens."""
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    started: float = 0
    due: float = field(default_factory=time.monotonic)
    ear: int | None = None
    """The end of the pipe at which we listen to it."""
    silence_s: float | None = None
    """How long it has said nothing, while we listened; None until it is first heard."""

    def start(self) -> None:
        """Start the process, in a group of its own so that Ctrl-C reaches it through us only."""
        self.forget()
        environment, pass_fds = dict(self.environment), [*self.pass_fds]
        if self.silent_s is not None:
            self.ear, mouth = os.pipe()
            os.set_blocking(self.ear, False)
            environment[MOUTH] = str(mouth)
            pass_fds.append(mouth)
        output = self.log.open("ab") if self.log else None
        try:
            self.process = subprocess.Popen(  # noqa: S603  # the commands are ours
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                process_group=0,
                preexec_fn=_die_with(os.getpid()) if sys.platform == "linux" else None,  # noqa: PLW1509
            )
        finally:
            if output:
                output.close()
            if self.silent_s is not None:
                os.close(mouth)
        self.started = time.monotonic()

    def listen(self, listened_s: float) -> bool:
        """Return whether it has been silent for too long, *listened_s* more than the last time included."""
        if self.ear is None or self.silent_s is None:
            return False
        with suppress(BlockingIOError):
            if os.read(self.ear, 4096):
                self.silence_s = 0
                return False
        if self.silence_s is not None:
            self.silence_s += listened_s
        return (self.silence_s or 0) > self.silent_s

    def forget(self) -> None:
        """Stop listening to a process that has ended."""
        if self.ear is not None:
            os.close(self.ear)
        self.ear = self.silence_s = None

    @property
    def running(self) -> bool:
        """Whether the process lives."""
        return self.process is not None and self.process.poll() is None


class Supervisor:
    """Keeps children running; *say* is told of each death: who, how, and the seconds until the next start.

    To be used from the main thread: the kernel ties a child to the thread that made it.
    """

    def __init__(self, children: Sequence[Child], *, say: Callable[[str, str, float], None]) -> None:
        self._children = children
        self._say = say
        self.on_change: Callable[[dict[str, int]], None] = lambda _pids: None
        self._listened = time.monotonic()

    def step(self) -> None:
        """Start what is due, and notice what has died. Nothing here may end us: a full disk least of all."""
        now = time.monotonic()
        listened_s, self._listened = min(now - self._listened, LISTENED_AT_MOST_S), now
        for child in self._children:
            how = ""
            if child.process is not None and child.running and child.listen(listened_s):
                how = f"it said nothing for {child.silent_s:g} s"
                child.process.kill()
                child.process.wait()
            if child.process is not None and not child.running:
                self._note_death(child, how or _ending(child.process.returncode), now)
            if child.process is None and now >= child.due:
                try:
                    child.start()
                except OSError as error:
                    self._note_death(child, f"it could not be started: {error.strerror}", now)
                with suppress(OSError):
                    self.on_change(self.pids())

    def pids(self) -> dict[str, int]:
        """Return the process ids of the children that live."""
        return {child.name: child.process.pid for child in self._children if child.running and child.process}

    def most_deaths(self) -> Child:
        """Return the child that has died most often in a row."""
        return max(self._children, key=lambda child: child.deaths)

    def stop(self) -> None:
        """End all children, the first one last: the others need it to leave. What does not end in time is killed."""
        _end([child for child in self._children[1:] if child.running])
        _end([child for child in self._children[:1] if child.running])
        for child in self._children:
            child.forget()

    def _note_death(self, child: Child, how: str, now: float) -> None:
        child.deaths = 1 if now - child.started > HEALTHY_AFTER_S else child.deaths + 1
        delay_s = BACKOFF_S[min(child.deaths, len(BACKOFF_S)) - 1]
        child.due = now + delay_s
        child.process = None
        with suppress(OSError, ValueError):  # ValueError: stderr is closed
            self._say(child.name, how, delay_s)


def _end(children: Sequence[Child]) -> None:
    for child in children:
        if child.process:
            child.process.send_signal(signal.SIGTERM)
    give_up = time.monotonic() + STOP_WITHIN_S
    for child in children:
        if child.process:
            try:
                child.process.wait(max(0, give_up - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()


def _ending(returncode: int) -> str:
    return f"signal {signal.Signals(-returncode).name}" if returncode < 0 else f"status {returncode}"


def _die_with(parent: int) -> Callable[[], None]:
    """Return what a new child runs first: the kernel shall kill it when *parent* dies.

    Everything here survives being killed: the store is the truth. So SIGKILL, which cannot be missed.
    """
    prctl = ctypes.CDLL(None).prctl

    def tie() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we were tied to it
            os._exit(1)

    return tie
