"""The room: registrations that wait in a worker for their turn. None is claimed, so a worker that dies owes nothing.

**Submitters take turns.** Who is next is asked of one submitter after the other, so a hundred thousand registrations
of one team delay the first of another by one. Of a submitter its targets take turns, among those that have a slot;
of a target, the one that has waited longest is next.

**Nobody fills the room.** A submitter may have as many here as there are places free: alone it has half of them, and
whoever comes finds some. What does not fit is let go after a moment: the store knows it, and the sweep rings again.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shared.egress import Target
from shared.registration import RegistrationId

PLACES = 4096


@dataclass(frozen=True)
class Entry:
    """One that waits. *target* is where it leads first; None if it leads nowhere."""

    id: RegistrationId
    submitted_by: str
    target: Target | None


class Room:
    """Who waits, by submitter and target."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self._ids: set[RegistrationId] = set()
        self._lines: OrderedDict[str, dict[Target | None, deque[RegistrationId]]] = OrderedDict()
        """Of each submitter, who was served longest ago first, a line for each target."""
        self._waiting: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, registration_id: object) -> bool:
        return registration_id in self._ids

    def fits(self, submitted_by: str) -> bool:
        """Whether one more of this submitter may wait here."""
        return self._waiting.get(submitted_by, 0) < self._places - len(self._ids)

    def put(self, entry: Entry) -> None:
        """Let *entry* wait, once."""
        if entry.id in self._ids:
            return
        self._ids.add(entry.id)
        lines = self._lines.setdefault(entry.submitted_by, {})
        lines.setdefault(entry.target, deque()).append(entry.id)
        self._waiting[entry.submitted_by] = self._waiting.get(entry.submitted_by, 0) + 1

    def next(self, free: Callable[[Target | None], bool]) -> Entry | None:
        """Take out who is next among those whose target is *free*, if there is anybody."""
        for submitter, lines in self._lines.items():
            for target, line in lines.items():
                if free(target):
                    return self._take(submitter, target, line)
        return None

    def _take(self, submitter: str, target: Target | None, line: deque[RegistrationId]) -> Entry:
        registration_id = line.popleft()
        self._ids.discard(registration_id)
        lines = self._lines[submitter]
        del lines[target]
        if line:
            lines[target] = line  # behind the submitter's other targets, which take turns, too
        self._waiting[submitter] -= 1
        if lines:
            self._lines.move_to_end(submitter)
        else:
            del self._lines[submitter], self._waiting[submitter]
        return Entry(registration_id, submitter, target)

    def clear(self) -> list[RegistrationId]:
        """Let everybody go; return who was here."""
        gone = list(self)
        self._ids.clear()
        self._lines.clear()
        self._waiting.clear()
        return gone

    def __iter__(self) -> Iterator[RegistrationId]:
        return iter(self._ids.copy())
