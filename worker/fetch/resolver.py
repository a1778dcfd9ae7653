"""Look-ups of names that can be given up, with shares for each zone and each submitter.

The system's resolver blocks for as long as a name server is silent, and cannot be told to stop. So each look-up has a
thread of its own, of which there are only so many; one that hangs keeps its place until it really ends, whoever has
given it up meanwhile. That somebody's name servers are silent must not cost others theirs: those of one zone hold a
few places at most, and one submitter as many as are left for everybody else.
"""

import asyncio
import os
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import ip_address
from typing import Any, TypeVar

from shared.errors import ConnectFailed, HostNotFound, RegistryError, Shortage
from worker.fetch.translation import is_ours

PLACES = 256
"""How many names a process resolves at once, those included whose resolver hangs."""
PLACES_EACH_ZONE = 16
NOT_RESOLVED = "The artifact's host could not be resolved."
_NO_SUCH_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
_ASK_AGAIN_S = 0.05

Resolve = Callable[[str, int, float, str], Awaitable[list[str]]]
"""A host, a port, seconds and a submitter -> addresses."""
Found = TypeVar("Found")


class Resolver:
    """The system's resolver, bounded in number and in time, of which it has no bounds by itself."""

    def __init__(self, look_up: Callable[[str, int], Iterable[str]] | None = None, *, places: int = PLACES) -> None:
        self._look_up = look_up or _system_look_up
        self._places = places
        self._taken: Counter[tuple[str, str]] = Counter()
        """By ``("zone", …)`` and ``("submitter", …)``."""
        self._free = places

    async def __call__(self, host: str, port: int, timeout_s: float, submitted_by: str = "") -> list[str]:
        """Return the addresses of *host*, in the resolver's order.

        Raises:
            HostNotFound: it has none, for certain.
            ConnectFailed: there was no answer within *timeout_s*, or one that can pass.
            Shortage: we have no place for this look-up within as much, though its zone has; or no file for it.
        """
        if _is_address(host):
            return [host]
        mine = (("zone", zone_of(host)), ("submitter", submitted_by))
        try:
            async with asyncio.timeout(timeout_s):
                while not self._has_place(*mine):
                    await asyncio.sleep(_ASK_AGAIN_S)
        except TimeoutError as error:
            if self._taken[mine[0]] < PLACES_EACH_ZONE:
                raise Shortage("The registry looks up too many names at once.", cause="resolver") from error
            raise ConnectFailed(NOT_RESOLVED, cause="not-resolved") from error
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer(host, port, mine)
        except (OSError, UnicodeError) as error:  # TimeoutError is one of these
            raise _named(error) from error

    def _has_place(self, zone: tuple[str, str], submitter: tuple[str, str]) -> bool:
        return self._taken[submitter] < self._free and self._taken[zone] < PLACES_EACH_ZONE

    async def _answer(self, host: str, port: int, mine: Iterable[tuple[str, str]]) -> list[str]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[str]] = loop.create_future()

        def leave(set_answer: Callable[[Found], None], found: Found) -> None:
            self._free += 1
            self._taken.subtract(mine)
            for each in mine:
                if not self._taken[each]:
                    del self._taken[each]
            if not answer.done():
                set_answer(found)

        def look_up() -> None:
            try:
                told: tuple[Any, ...] = leave, answer.set_result, list(dict.fromkeys(self._look_up(host, port)))
            except Exception as error:  # noqa: BLE001  # it is raised where the answer is waited for
                told = leave, answer.set_exception, error
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(*told)

        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        self._free -= 1
        self._taken.update(mine)
        return await answer


def _named(error: OSError | UnicodeError) -> RegistryError:
    """Return what a look-up that failed with *error* tells us.

    Without a descriptor the system says that a name does not exist, or that it could not ask: so we try for one.
    """
    code = error.errno if isinstance(error, socket.gaierror) else None
    if is_ours(error) or code == socket.EAI_MEMORY or not _can_open_a_file():
        return Shortage("The registry has too little of what a look-up takes.", cause="resolver")
    if code in _NO_SUCH_HOST:
        return HostNotFound("There is no host of this name: is it spelled right?")
    return ConnectFailed(NOT_RESOLVED, cause="not-resolved")


def _can_open_a_file() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return False
    return True


def zone_of(host: str) -> str:
    """Return what stands for the zone of *host*: whose name servers may be slow together.

    That is its last two labels; three where the last two are such as ``co.uk``, under which everybody has zones.
    """
    labels = host.split(".")
    of_a_country = len(labels) > 2 and len(labels[-1]) == 2 and len(labels[-2]) <= 3
    return ".".join(labels[-3:] if of_a_country else labels[-2:])


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _system_look_up(host: str, port: int) -> Iterator[str]:
    for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        yield str(answer[4][0])
