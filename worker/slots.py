"""Slots: how many downloads one target may have in this process, so that a slow one cannot take every place.

A slot is of what is connected to: the host and port that egress parsed, at every hop (invariant 15). Whoever follows
a redirect lets the slot of the old target go and takes one of the new; who has to wait for that is a task, which
costs no thread, and is served before those that have not begun. As many may wait for a target as may download from
it; whoever comes then is told at once, and puts its claim back.

Many first targets lead to the same other one, as all releases of a code host do. Whoever is known to be led there
begins with a slot of that, which it keeps in reserve while it asks the first: so it need not wait in the middle.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from shared.egress import Target

HOP_PATIENCE_S = 2.0
"""How long a redirect waits for a slot of where it leads. Then the attempt is put back until there is one."""

Place = tuple[str, int]


class Busy(Exception):
    """All slots of where a redirect leads are taken, and stay so: *target* is that."""

    def __init__(self, target: Target) -> None:
        super().__init__(target.host)
        self.target = target


class Slots:
    """*each* for every target. *freed* is called when there may be one for who has not begun."""

    def __init__(self, each: int, freed: Callable[[], object] = lambda: None) -> None:
        self._each = each
        self._freed = freed
        self._taken: Counter[Place] = Counter()
        self._waiting: dict[Place, deque[asyncio.Future[None]]] = {}

    def free(self, target: Target) -> bool:
        """Whether *target* has a slot to give."""
        return self._taken[_place(target)] < self._each

    def take(self, target: Target) -> "Slot":
        """Return a slot of *target*, which has one; others may be passed on the way there."""
        self._taken[_place(target)] += 1
        return Slot(self, _place(target))

    @property
    def taken(self) -> int:
        """How many are taken."""
        return self._taken.total()

    async def _wait(self, target: Target, patience_s: float) -> None:
        """Take a slot of *target*, as soon as there is one.

        Raises:
            Busy: there was none for *patience_s*, or too many wait already.
        """
        place = _place(target)
        if self._taken[place] < self._each:
            self._taken[place] += 1
            return
        line = self._waiting.setdefault(place, deque())
        if len(line) >= self._each:
            raise Busy(target)
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        line.append(mine)
        try:
            async with asyncio.timeout(patience_s):
                await mine
        except BaseException as error:
            if mine.done() and not mine.cancelled():
                self._leave(place)  # it was given to us at the very moment
            if isinstance(error, TimeoutError):
                raise Busy(target) from None
            raise
        finally:
            line.remove(mine)
            if not line:
                self._waiting.pop(place, None)

    def _leave(self, place: Place) -> None:
        for mine in self._waiting.get(place, ()):
            if not mine.done():
                mine.set_result(None)  # the slot goes from hand to hand
                return
        self._taken[place] -= 1
        if not self._taken[place]:
            del self._taken[place]
        self._freed()


class Slot:
    """One slot, held by an attempt from hop to hop, and until it comes to be held the one it began with."""

    def __init__(self, slots: Slots, place: Place) -> None:
        self._slots = slots
        self._held: Place | None = None
        self._reserve: Place | None = place

    async def move(self, target: Target, *, patience_s: float = HOP_PATIENCE_S) -> None:
        """Let the slot go for one of *target*; keep it, if that is the same.

        Raises:
            Busy: there is none.
        """
        place = _place(target)
        if place == self._held:
            return
        self._leave_held()
        if place == self._reserve:
            self._held, self._reserve = place, None
            return
        await self._slots._wait(target, patience_s)
        self._held = place

    def leave(self) -> None:
        """Give back what is held."""
        self._leave_held()
        if self._reserve is not None:
            place, self._reserve = self._reserve, None
            self._slots._leave(place)

    def _leave_held(self) -> None:
        if self._held is not None:
            place, self._held = self._held, None
            self._slots._leave(place)


def _place(target: Target) -> Place:
    return target.host, target.port
