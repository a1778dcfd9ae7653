"""How many downloads one upstream host may have in this process, so that a slow one cannot take every slot."""

import threading
from collections import Counter, OrderedDict, defaultdict
from urllib.parse import urlsplit

from shared.registration import RegistrationId

MAX_PARKED = 1024
"""Registrations remembered for each busy host; those beyond are left to the sweep."""


PATIENCE_S = 0.1
"""How long a claim waits for a slot before it is put back."""


class Hosts:
    """Slots by host. Who finds none is parked, and taken on by whoever leaves one."""

    def __init__(self, slots_each: int, *, patience_s: float = PATIENCE_S) -> None:
        self._slots_each = slots_each
        self._patience_s = patience_s
        self._taken: Counter[str] = Counter()
        self._parked: defaultdict[str, OrderedDict[RegistrationId, None]] = defaultdict(OrderedDict)
        self._lock = threading.Lock()
        self._freed = threading.Condition(self._lock)
        """Of all hosts: one for each could be dropped while somebody waits at it."""

    def enter(self, host: str) -> bool:
        """Take a slot of *host*; return whether there was one.

        Where downloads are quick there soon is: to wait a moment costs less than to put a claim back and make it
        again. Where some are parked already they are not quick, and nobody waits.
        """
        with self._lock:
            if self._taken[host] >= self._slots_each and not self._parked.get(host):
                self._freed.wait_for(lambda: self._taken[host] < self._slots_each, self._patience_s)
            if self._taken[host] >= self._slots_each:
                return False
            self._taken[host] += 1
            return True

    def park(self, host: str, registration_id: RegistrationId) -> bool:
        """Remember *registration_id* for the next free slot; return False if there is one by now."""
        with self._lock:
            if self._taken[host] < self._slots_each:
                return False
            if len(self._parked[host]) < MAX_PARKED:
                self._parked[host][registration_id] = None
            return True

    def leave(self, host: str) -> RegistrationId | None:
        """Give a slot of *host* back; return who is parked the longest, for the caller to take on."""
        with self._lock:
            self._taken[host] -= 1
            self._freed.notify_all()
            if self._taken[host] <= 0:
                del self._taken[host]
            waiting = self._parked.get(host)
            if not waiting:
                self._parked.pop(host, None)
                return None
            return waiting.popitem(last=False)[0]

    def is_parked(self, registration_id: RegistrationId) -> bool:
        """Whether *registration_id* waits here already, and so needs no second claim."""
        with self._lock:
            return any(registration_id in waiting for waiting in self._parked.values())


def host_of(url: str) -> str:
    """Return the host and port of a URL that egress allowed, as the name its slots go by."""
    return urlsplit(url).netloc.lower()
