"""Connections only to addresses that egress allowed.

A name is resolved once, every answer is checked, and the socket is opened to one of exactly those
answers, so that no second look-up can say something else. Host header and SNI keep the name.
"""

import asyncio
import socket
import time
import weakref
from asyncio import FIRST_COMPLETED
from collections.abc import Sequence
from typing import Protocol
from urllib.parse import urlsplit

from shared.egress import Egress
from shared.errors import ConnectFailed, RegistryError, Shortage
from worker.fetch.resolver import Resolve
from worker.fetch.translation import is_ours
from worker.fetch.wire import Wire

MAX_ADDRESSES = 32
"""How many of a name's addresses are tried."""
NEXT_AFTER_S = 0.25
"""How long one has before another is tried beside it (RFC 8305 section 8)."""
MAX_AT_ONCE = 4
MAX_RACING = 32
"""How many sockets there may be beside the first of each, in all: `worker/open_files.py` counts descriptors."""
NO_CONNECTION = "No connection could be made to the artifact's host."


class Dial(Protocol):
    """How connections are made."""

    async def __call__(self, host: str, port: int, submitted_by: str, /) -> Wire:
        """Return a connection to *host*, for whom *submitted_by* names.

        Raises:
            ForbiddenAddress: one of the host's addresses must not be reached; no packet was sent.
            HostNotFound, ConnectFailed: it has none; none of them answered.
            Shortage: we have not what it takes.
        """
        ...


class Dialer:
    """Opens sockets to what egress allows."""

    def __init__(self, egress: Egress, *, connect_timeout_s: float, resolve: Resolve) -> None:
        self._egress = egress
        self._connect_timeout_s = connect_timeout_s
        self._resolve = resolve

    async def __call__(self, host: str, port: int, submitted_by: str, /) -> Wire:
        """Look *host* up, check all it has, connect to one of those."""
        addresses = await self._resolve(host, port, self._connect_timeout_s, submitted_by)
        for address in addresses:
            self._egress.check_address(address)
        wire = await _first_connected(addresses, port, self._connect_timeout_s)
        try:
            self._egress.check_address(wire.peer)
        except (OSError, RegistryError):
            wire.close()
            raise
        return wire


class ProxyDialer:
    """Opens sockets to one proxy, whose affair the addresses then are, and to nothing else."""

    def __init__(self, proxy_url: str, *, connect_timeout_s: float, resolve: Resolve) -> None:
        proxy = urlsplit(proxy_url)
        self._proxy = (proxy.hostname, proxy.port)
        self._connect_timeout_s = connect_timeout_s
        self._resolve = resolve

    async def __call__(self, host: str, port: int, submitted_by: str, /) -> Wire:
        """Connect to the proxy, which *host* and *port* are to be."""
        if (host, port) != self._proxy:
            raise RuntimeError("with a proxy set, nothing else may be connected to")
        try:
            addresses = await self._resolve(host, port, self._connect_timeout_s, submitted_by)
            return await _first_connected(addresses, port, self._connect_timeout_s)
        except Shortage:
            raise
        except RegistryError as error:
            raise ConnectFailed(
                "The registry's egress proxy cannot be reached: this is for its operators to mend.",
                cause="proxy-away",
            ).blamed("registry") from error


async def _first_connected(addresses: Sequence[str], port: int, timeout_s: float) -> Wire:
    """Return a connection to whichever of *addresses* answers first, in *timeout_s* for all of them.

    Another is tried whenever one has failed, or has not answered for a moment, as Happy Eyeballs does (RFC 8305
    section 5); no more than a few at once, the oldest then being given up in time for all others.
    """
    trying: list[asyncio.Task[Wire]] = []
    left = list(reversed(addresses[:MAX_ADDRESSES]))
    until = time.monotonic() + timeout_s
    failures: list[BaseException] = []
    try:
        async with asyncio.timeout(timeout_s):
            while left or trying:
                if left:
                    if len(trying) >= _at_once(trying):
                        _give_up(trying.pop(0))
                    trying.append(asyncio.ensure_future(_connected(left.pop(), port)))
                    if len(trying) > 1:
                        _racing.add(trying[-1])
                share_s = (until - time.monotonic()) / (len(left) + 1)
                patience_s = share_s if len(trying) >= _at_once(trying) else min(NEXT_AFTER_S, share_s)
                done, _ = await asyncio.wait(
                    trying, timeout=patience_s if left else None, return_when=FIRST_COMPLETED
                )
                for each in done:
                    trying.remove(each)
                    error = each.exception()
                    if error is None:
                        return each.result()
                    failures.append(error)
    except TimeoutError:
        pass
    finally:
        for each in trying:
            _give_up(each)
    raise next(
        (each for each in failures if is_ours(each) or not isinstance(each, OSError)), ConnectFailed(NO_CONNECTION)
    )


_racing: "weakref.WeakSet[asyncio.Task[Wire]]" = weakref.WeakSet()
"""Attempts beside a first one, of all downloads."""


def _at_once(trying: Sequence["asyncio.Task[Wire]"]) -> int:
    """Return how many may be under way at once: one, where all downloads together race with many sockets already."""
    others = sum(not each.done() for each in _racing if each not in trying)
    return MAX_AT_ONCE if others < MAX_RACING else 1


def _give_up(task: "asyncio.Task[Wire]") -> None:
    """End *task*, and have what it may have connected meanwhile closed."""
    task.add_done_callback(_close)
    task.cancel()


def _close(task: "asyncio.Task[Wire]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()


async def _connected(address: str, port: int) -> Wire:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # the socket's own signature
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return Wire(sock)
