"""The attempts of this process: their deadlines, leases and sockets.

Two threads keep them. The watchdog shuts the socket of an attempt whose deadline or lease has
passed; it talks to nothing, so nothing can delay it. The heartbeat renews all leases and notes all
progress in one statement, about once a second (invariant 8); it may wait for the store as long as that takes.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from shared.errors import DeadlinePassed, StoreUnavailable
from shared.logs import get_logger
from shared.registration import Claim, Progress
from shared.store import Store

WATCH_EVERY_S = 0.1
RENEW_EVERY_S = 0.75
"""A canceled download stops when its claim cannot be renewed: within a second, the store's answer included."""
SAFETY_S = 1.0
"""How long before its lease ends a worker stops by itself."""

log = get_logger(__name__)


class Released(Exception):
    """The attempt was stopped from outside and its claim is to be put back: the worker is leaving."""


class LeaseLost(Exception):
    """The claim is, or is about to be, somebody else's: nothing more may be written for it."""


class Attempt:
    """One claim being worked on. `fetch` reports to it, and may be cut off by it at any time."""

    def __init__(self, claim: Claim, *, deadline_s: float, lease_s: float, started: float) -> None:
        self.claim = claim
        self.bytes_downloaded = 0
        self.artifact_bytes: int | None = None
        self.deadline = time.monotonic() + deadline_s
        self.lease_ends = started + lease_s - SAFETY_S
        self._reason: Exception | None = None
        self._cut = threading.Event()
        self._wire: socket.socket | None = None
        self._lock = threading.Lock()

    def remaining_s(self, at_most_s: float) -> float:
        """Return the time left, no more than *at_most_s*, never less than a moment."""
        return max(0.001, min(at_most_s, self.deadline - time.monotonic()))

    def attach(self, wire: socket.socket) -> None:
        """Let this attempt be cut off by shutting *wire*; it takes the place of an earlier one.

        A duplicate of the descriptor is kept, because TLS moves the original into another object:
        so a handshake can be cut off too.
        """
        with self._lock:
            self._drop_wire()
            self._wire = socket.socket(fileno=os.dup(wire.fileno()))
            if self._reason is not None:
                _shut(self._wire)

    def detach(self) -> None:
        """Let go of the wire, which may be another attempt's from now on."""
        with self._lock:
            self._drop_wire()

    def cut_off(self, reason: Exception) -> None:
        """End this attempt now, for *reason*: the first one given stands."""
        with self._lock:
            if self._reason is None:
                self._reason = reason
            self._cut.set()
            if self._wire is not None:
                _shut(self._wire)

    def check(self) -> None:
        """Raise the reason for which this attempt was cut off, if it was."""
        if self._reason is not None:
            raise self._reason

    def pause(self, seconds: float) -> None:
        """Wait, unless this attempt is cut off before or meanwhile; then raise its reason."""
        self._cut.wait(seconds)
        self.check()

    @property
    def fields(self) -> dict[str, str | int]:
        """What names this attempt in logs and traces."""
        claim = self.claim
        return {"registration": claim.registration_id, "epoch": claim.epoch, "attempt": claim.attempt}

    def _drop_wire(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None


class Attempts:
    """All attempts of this process, watched and kept alive while they last."""

    def __init__(self, store: Store, *, lease_s: float, deadline_s: float) -> None:
        self._store = store
        self._lease_s = lease_s
        self._deadline_s = deadline_s
        self._live: set[Attempt] = set()
        self._lock = threading.Lock()
        self._leaving = threading.Event()

    def start(self) -> None:
        """Start the watchdog and the heartbeat; both end with the process."""
        for name, step, every_s in (
            ("watchdog", self._watch, WATCH_EVERY_S),
            ("heartbeat", self._renew, RENEW_EVERY_S),
        ):
            threading.Thread(target=repeat, args=(step, every_s), name=name, daemon=True).start()

    @property
    def leaving(self) -> bool:
        """Whether this process has been told to stop."""
        return self._leaving.is_set()

    def leave(self) -> None:
        """Cut off every attempt, so that its claim is put back at once."""
        self._leaving.set()
        for attempt in self._all():
            attempt.cut_off(Released("this worker was told to stop"))

    @contextlib.contextmanager
    def hold(self, claim: Claim, *, claimed_at: float) -> Iterator[Attempt]:
        """Watch over *claim*, made at the monotonic time *claimed_at*, for the length of the block."""
        attempt = Attempt(claim, deadline_s=self._deadline_s, lease_s=self._lease_s, started=claimed_at)
        with self._lock:
            self._live.add(attempt)
        if self.leaving:
            attempt.cut_off(Released("this worker was told to stop"))
        try:
            yield attempt
        finally:
            with self._lock:
                self._live.discard(attempt)
            attempt.detach()

    def _all(self) -> list[Attempt]:
        with self._lock:
            return list(self._live)

    def _watch(self) -> None:
        now = time.monotonic()
        for attempt in self._all():
            if now >= attempt.lease_ends:
                attempt.cut_off(LeaseLost("the lease could not be renewed in time"))
            elif now >= attempt.deadline:
                attempt.cut_off(DeadlinePassed(f"The download was not done after {self._deadline_s:g} s."))

    def _renew(self) -> None:
        attempts = self._all()
        progress = [
            Progress(
                attempt.claim.registration_id,
                attempt.claim.epoch,
                attempt.bytes_downloaded,
                attempt.artifact_bytes,
            )
            for attempt in attempts
        ]
        started = time.monotonic()
        try:
            ours = self._store.renew(progress, lease_s=self._lease_s)
        except StoreUnavailable as error:
            log.warning("leases not renewed", claims=len(progress), reason=error.detail)
            return
        for attempt in attempts:
            if (attempt.claim.registration_id, attempt.claim.epoch) in ours:
                attempt.lease_ends = started + self._lease_s - SAFETY_S
            else:
                attempt.cut_off(LeaseLost("another worker has the claim, or it was settled"))


def repeat(step: Callable[[], None], every_s: float) -> None:
    """Take *step* every so many seconds, for as long as the process lives, whatever comes of it."""
    while True:
        time.sleep(every_s)
        try:
            step()
        except Exception:  # these threads must outlive any surprise
            log.exception("what runs by the clock here failed")


def _shut(wire: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed already, which is what we want
        wire.shutdown(socket.SHUT_RDWR)
