"""Following a registration to its end: a bar on a terminal, sentences elsewhere, and a way to go on when stopped."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any
from urllib.parse import quote

from cli.client import Answer, Client
from cli.refusal import UNREACHABLE, Refusal
from cli.terminal import say, say_again
from shared.errors import REGISTERED_MEANWHILE

POLL_S = 0.25
SILENT_S = 5.0
"""After so long without news the registry is asked."""
SAID_EVERY_S = 30.0
"""Where no terminal shows a bar, this long is the longest without a sentence: some CI systems end what is silent."""
IN_FLIGHT = {"queued", "verifying"}


class Teller:
    """Tells how far a registration has come, on stderr: by a bar on a terminal, by sentences elsewhere."""

    def __init__(self, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._on_terminal = sys.stderr.isatty()
        self._clock = clock
        self._last: tuple[Any, ...] | None = None
        self._said_at = 0.0

    def tell(self, registration: dict[str, Any]) -> None:
        """Show *registration* as it is now, if there is something new to say."""
        if self._quiet:
            return
        if self._on_terminal:
            say_again(_bar(registration))
            return
        news = (registration["status"], registration["attempts"], (registration["problem"] or {}).get("detail"))
        if news == self._last and self._clock() - self._said_at < SAID_EVERY_S:
            return
        say(_sentence(registration, first=self._last is None, new=news != self._last), err=True)
        self._last, self._said_at = news, self._clock()

    def over(self) -> None:
        """Take the bar away."""
        if self._on_terminal and not self._quiet:
            say_again("")


def follow(client: Client, registration: dict[str, Any], *, timeout_s: float, teller: Teller) -> Answer:
    """Return the plugin, or the problem, that *registration* comes to; have *teller* tell how it goes.

    A registry that is away for a while is waited for like a registration that takes its time.

    Returns:
        after *timeout_s* the registration as it was last seen, as a 202.

    Raises:
        Refusal: somebody stopped us; it says how to go on.
    """
    with _stoppable(registration["id"]):
        try:
            return _followed(client, registration, time.monotonic() + timeout_s, teller)
        finally:
            teller.over()


def _followed(client: Client, registration: dict[str, Any], give_up: float, teller: Teller) -> Answer:
    if registration["status"] in IN_FLIGHT:
        teller.tell(registration)
    while registration["status"] in IN_FLIGHT:
        if time.monotonic() > give_up:
            return Answer(202, registration)
        path = f"/api/v1/registrations/{quote(registration['id'], safe='')}"
        silent_s = max(POLL_S, min(SILENT_S, give_up - time.monotonic()))
        for news in client.events(f"{path}/events", silent_s=silent_s):
            registration = news
            teller.tell(registration)
            if time.monotonic() > give_up:
                break
        if registration["status"] not in IN_FLIGHT:
            break
        time.sleep(POLL_S)
        answer = _patient_get(client, path, give_up)
        if answer.status != 200:
            return Answer(202, registration) if _busy(answer) else answer
        registration = answer.document
        teller.tell(registration)
    return _outcome(client, registration, give_up)


def _outcome(client: Client, registration: dict[str, Any], give_up: float) -> Answer:
    if registration["status"] == "registered":
        return _patient_get(client, f"/api/v1/plugins/{quote(str(registration['pluginId']), safe='')}", give_up)
    problem = registration["problem"]
    if problem.get("cause") == REGISTERED_MEANWHILE:
        return _patient_get(client, f"/api/v1/plugins/{quote(str(problem['pluginId']), safe='')}", give_up)
    return Answer(problem["status"], problem)


@contextmanager
def _stoppable(registration_id: str) -> Iterator[None]:
    """Have who is stopped in here say how to go on; the registration itself goes on in any case."""

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Refusal(
            f"Stopped; the registration goes on: `plugin-registry wait {registration_id}` waits for it.", 128 + number
        )

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _patient_get(client: Client, path: str, give_up: float) -> Answer:
    """Return the answer to a GET; while there is none, or the registry is not well, ask again until *give_up*."""
    while True:
        try:
            answer = client.get(path)
            if not _busy(answer):
                return answer
        except Refusal as error:
            if error.exit_code != UNREACHABLE:
                raise
            answer = Answer(503, {})
        if time.monotonic() > give_up:
            return answer
        time.sleep(POLL_S)


def _busy(answer: Answer) -> bool:
    """Whether the registry is not well, or has no place for this token at the moment."""
    return answer.status >= 500 or answer.status == 429


def _mib(registration: dict[str, Any]) -> str:
    done, total = registration["bytesDownloaded"], registration["artifactBytes"]
    return f"{done / 2**20:.1f}" + (f" of {total / 2**20:.1f}" if total else "") + " MiB"


def _bar(registration: dict[str, Any]) -> str:
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


def _sentence(registration: dict[str, Any], *, first: bool, new: bool) -> str:
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
