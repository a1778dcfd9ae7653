"""The poller: one question to the store serves everybody who waits for something in it, and none holds a thread.

    interest(key) ──► interested ──► round: fetch(all keys) ──► found: they are told
                          └──────────── the next round ◄── not found

**A round is made when it may find something**: somebody is newly interested, or the store has changed. `version` says
the latter without asking the store for anything (`shared/store/changes.py`), and `wake` may have it looked at now. It
is a hint, so a round is made every `DOUBT_S` even so. While nobody is interested nothing at all is done.

**No news is lost.** Interest is registered before the question is asked, and answered by rounds that began later; the
version is read before the question, so what is committed while that is under way is a change that is still to come.

**Nobody is asked for too often.** Between two rounds lies a pause, and never less than what the last one took:
however many wait, half of the time is left to those who work.

Two use it. Outcomes leave out what is not final yet: who waits stays. Following answers for every key, with None for
what is gone, and each follower registers its interest again: so it needs no version, and the pause is its pace.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic
from typing import Generic, TypeVar

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.outage import Outage

Key = TypeVar("Key")
Found = TypeVar("Found")

TICK_S, IDLE_TICK_S = 0.004, 0.05
"""How often the version is looked at while somebody waits; to wake up for it costs fifty microseconds."""
LIVELY_S = 3.0
"""For how long after somebody came, or was told, it is looked at more often: most have not longer to wait."""
DOUBT_S = 15.0
"""How long a version that stays the same is believed."""
AGAIN_S = 0.1
"""When a question is asked again that was not answered."""
SHARE = 1
"""A pause is at least so many times as long as the round before it: half of the time is left to those who work."""

log = get_logger(__name__)


class Poller(Generic[Key, Found]):
    """Asks *fetch* for the keys somebody waits for; what there is nothing to tell of is not in its answer."""

    def __init__(
        self,
        fetch: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Found]]],
        version: Callable[[], int],
        *,
        pause_s: float = 0.0,
    ) -> None:
        self._fetch = fetch
        self._version = version
        self._pause_s = pause_s
        self._interested: defaultdict[Key, list[asyncio.Future[Found | None]]] = defaultdict(list)
        self._asked: dict[Key, list[asyncio.Future[Found | None]]] = {}
        """Those whose question is under way."""
        self._newly = asyncio.Event()
        self._over: asyncio.Future[None] | None = None
        """What is waited for between two rounds."""
        self._lively_until = 0.0
        self._outage = Outage(log, away="store not asked", back="store asked again")
        self._leaving = False

    def interest(self, key: Key) -> "asyncio.Future[Found | None]":
        """Return what the first round that begins after this, and finds any, will tell of *key*; None if we leave.

        Who loses interest cancels the future.
        """
        answer: asyncio.Future[Found | None] = asyncio.get_running_loop().create_future()
        if self._leaving:
            answer.set_result(None)
        else:
            self._interested[key].append(answer)
            self._lively_until = monotonic() + LIVELY_S
            self._newly.set()
            self.wake()
        return answer

    def wake(self) -> None:
        """Make a round as soon as may be: somebody said that there is a change."""
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    def leave(self) -> None:
        """Let everybody go: this process is about to stop."""
        self._leaving = True
        for answers in (*self._interested.values(), *self._asked.values()):
            _tell(answers, None)
        self._interested.clear()

    async def run(self) -> None:
        """Make rounds for as long as the process lives."""
        while True:
            await self._newly.wait()
            while self._interested:
                version, begun = self._version(), monotonic()
                well = await self._round()
                await asyncio.sleep(max(self._pause_s, SHARE * (monotonic() - begun)))
                if well and self._interested:
                    await self._something(version)
                elif not well:
                    await asyncio.sleep(AGAIN_S)
            self._newly.clear()

    async def _round(self) -> bool:
        """Ask, and tell; return whether the question was answered."""
        self._newly.clear()
        self._asked = {key: live for key, answers in self._interested.items() if (live := _waiting(answers))}
        self._interested = defaultdict(list)
        found: Mapping[Key, Found] = {}
        well = True
        try:
            if self._asked:
                found = await self._fetch(list(self._asked))
        except Exception as error:  # noqa: BLE001  # whatever it is, the next round may go well, and all wait for it
            if not isinstance(error, StoreUnavailable):  # which the store tells
                self._outage.note(str(error) or type(error).__name__)
            well = False
        else:
            self._outage.over()
        if found:
            self._lively_until = monotonic() + LIVELY_S
        for key, answers in self._asked.items():
            if key in found:
                _tell(answers, found[key])
            elif live := _waiting(answers):
                self._interested[key] += live
        self._asked = {}
        return well

    async def _something(self, version: int) -> None:
        """Wait until a round may find something."""
        loop, begun = asyncio.get_running_loop(), monotonic()
        over = self._over = loop.create_future()

        def look() -> None:  # a timer, because a task that slept would cost three times as much
            if over.done():
                return
            now = monotonic()
            if self._version() != version or now - begun >= DOUBT_S:
                over.set_result(None)
            else:
                loop.call_later(TICK_S if now < self._lively_until else IDLE_TICK_S, look)

        if not self._newly.is_set():  # who came since the round began waits for the next
            look()
            await over


def _waiting(answers: Sequence["asyncio.Future[Found | None]"]) -> list["asyncio.Future[Found | None]"]:
    return [each for each in answers if not each.done()]


def _tell(answers: Sequence["asyncio.Future[Found | None]"], found: Found | None) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_result(found)
