"""Following a registration to its end: a bar on a terminal, sentences elsewhere, and a way to go on when stopped."""

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

from plugin_registry_client.client import Client
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say, say_again
from plugin_registry_client.results import Plugin, Registration

SAID_EVERY_S = 30.0
"""Where no terminal shows a bar, this long is the longest without a sentence: some CI systems end what is silent."""


class Teller:
    """Tells how far a registration has come, on stderr: by a bar on a terminal, by sentences elsewhere."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._on_terminal = sys.stderr.isatty()
        self._clock = clock
        self._last: tuple[Any, ...] | None = None
        self._said_at = 0.0

    def tell(self, registration: Registration) -> None:
        """Show *registration* as it is now, if there is something new to say."""
        if self._quiet:
            return
        known = registration.document
        if self._on_terminal:
            say_again(bar(known))
            return
        news = (known["status"], known["attempts"], (known["problem"] or {}).get("detail"))
        if news == self._last and self._clock() - self._said_at < SAID_EVERY_S:
            return
        say(_sentence(known, first=self._last is None, new=news != self._last), err=True)
        self._last, self._said_at = news, self._clock()

    def over(self) -> None:
        """Take the bar away."""
        if self._on_terminal and not self._quiet:
            say_again("")


def told_to_the_end(client: Client, registration: Registration, *, timeout_s: float, teller: Teller) -> Plugin:
    """Return the plugin that *registration* becomes, as `Client.wait` does; have *teller* tell how it goes."""
    with stoppable(f"the registration goes on: `plugin-registry wait {registration.id}` waits for it"):
        began = time.monotonic()
        try:
            ended_before = registration.final
            for seen in client.looks(registration, timeout_s=timeout_s):
                registration = seen
                if not ended_before:
                    teller.tell(seen)
        finally:
            teller.over()
        left_s = max(0.0, began + timeout_s - time.monotonic())
        return client.outcome_of(registration, timeout_s=left_s, waited_s=timeout_s)


@contextmanager
def stoppable(what: str) -> Iterator[None]:
    """Have who is stopped in here say *what* goes on, and how to follow it."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Refusal(f"Stopped; {what}.", 128 + number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mib(registration: Mapping[str, Any]) -> str:
    done, total = registration["bytesDownloaded"], registration["artifactBytes"]
    return f"{done / 2**20:.1f}" + (f" of {total / 2**20:.1f}" if total else "") + " MiB"


def bar(registration: Mapping[str, Any]) -> str:
    """Return a bar of how far *registration* has come."""
    done, total = registration["bytesDownloaded"], registration["artifactBytes"]
    filled = int(30 * done / total) if total else 0
    state = registration["status"]
    if state == "queued" and registration["attempts"]:
        state = f"trying again ({registration['attempts']} so far)"
    elif registration.get("ahead") is not None:
        wait = registration["estimatedWaitS"]
        state = f"queued, {registration['ahead']} ahead" + (f", about {wait:.0f} s" if wait is not None else "")
    name = f"{registration['name']} {registration['version']}"
    return f"{name}  [{'#' * filled:<30}]  {_mib(registration)}  {state}"


def _sentence(registration: Mapping[str, Any], *, first: bool, new: bool) -> str:
    """Return what is to be said of *registration*: that it was accepted, what has changed, or that it goes on."""
    name, state = f"{registration['name']} {registration['version']}", registration["status"]
    if first:
        return f"{name} is accepted as {registration['id']}; now {state}."
    if not new:
        return f"{name} is still {state}, {_mib(registration)}."
    problem = registration["problem"]
    if state == "queued" and problem is not None and registration["attempts"]:
        return (
            f"Attempt {registration['attempts']} at {name} failed ({problem.get('cause')}): {problem['detail']} "
            f"The next begins at {registration['nextAttemptAt']}."
        )
    return (
        f"{name} is {state} (attempt {registration['attempts']})." if state == "verifying" else f"{name} is {state}."
    )
