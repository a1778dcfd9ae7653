"""Connections only to addresses that egress allowed: a requests adapter with its own way to dial.

The seam is urllib3's ``_new_conn``, where a host name becomes a socket. Here the name is resolved
once, every answer is checked, and the socket is opened to one of exactly those answers, so that
no second look-up can say something else. Host header and SNI keep the name.
"""

import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as ResolverTimeout
from contextvars import ContextVar
from functools import partial
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.poolmanager import PoolManager

from shared.egress import Egress
from shared.errors import ConnectFailed
from worker.attempts import Attempt

MAX_ADDRESSES = 4
"""How many of a name's addresses are tried."""
RESOLVERS = 16
"""How many names a process resolves at once."""

current_attempt: ContextVar[Attempt] = ContextVar("current_attempt")
"""The attempt on whose behalf this thread connects."""

Dial = Callable[[str, int], socket.socket]
Resolve = Callable[[str, int, float], Sequence[str]]


class Resolver:
    """The system's resolver, bounded in number and in time: it takes no time limit by itself."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(RESOLVERS, thread_name_prefix="resolver")

    def __call__(self, host: str, port: int, timeout_s: float) -> list[str]:
        """Return the addresses of *host*, in the resolver's order.

        Raises:
            ConnectFailed: it has none, or there was no answer within *timeout_s*.
        """
        future = self._pool.submit(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            answers = future.result(timeout_s)
        except (OSError, UnicodeError, ResolverTimeout) as error:
            future.cancel()
            raise ConnectFailed("The host of artifactUrl could not be resolved.") from error
        return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


class Dialer:
    """Opens sockets to what egress allows, on behalf of the current attempt."""

    def __init__(self, egress: Egress, *, connect_timeout_s: float, resolve: Resolve) -> None:
        self._egress = egress
        self._connect_timeout_s = connect_timeout_s
        self._resolve = resolve

    def __call__(self, host: str, port: int) -> socket.socket:
        """Return a connected socket that the current attempt can cut off.

        Raises:
            ForbiddenAddress: one of the host's addresses must not be reached; no packet was sent.
            ConnectFailed: none of them answered.
        """
        attempt = current_attempt.get()
        addresses = self._resolve(host, port, attempt.remaining_s(self._connect_timeout_s))
        for address in addresses:
            self._egress.check_address(address)
        for address in addresses[:MAX_ADDRESSES]:
            attempt.check()
            try:
                wire = _connected(address, port, attempt.remaining_s(self._connect_timeout_s))
            except OSError:
                continue
            self._egress.check_address(wire.getpeername()[0])
            attempt.attach(wire)
            return wire
        raise ConnectFailed("No connection could be made to the host of artifactUrl.")


class EgressAdapter(HTTPAdapter):
    """A requests adapter all of whose connections come from *dial*. It never retries."""

    def __init__(self, dial: Dial) -> None:
        self._dial = dial
        super().__init__(pool_connections=32, pool_maxsize=1, max_retries=0)

    def init_poolmanager(
        self, connections: int, maxsize: int, block: bool = False, **options: Any
    ) -> None:  # requests' signature
        """Make the pools that dial our way."""
        self.poolmanager = _Pools(self._dial, num_pools=connections, maxsize=maxsize, block=block, **options)


class _Pools(PoolManager):
    def __init__(self, dial: Dial, **options: Any) -> None:
        super().__init__(**options)
        self._dial = dial

    def _new_pool(self, scheme: str, *args: Any, **options: Any) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, *args, **options)
        connection = _HTTPSConnection if scheme == "https" else _HTTPConnection
        pool.ConnectionCls = partial(connection, dial=self._dial)  # type: ignore[assignment]  # it is only called
        return pool


class _HTTPConnection(HTTPConnection):
    def __init__(self, *args: Any, dial: Dial, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


class _HTTPSConnection(HTTPSConnection):
    def __init__(self, *args: Any, dial: Dial, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


def _connected(address: str, port: int, timeout_s: float) -> socket.socket:
    wire = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        wire.settimeout(timeout_s)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.connect((address, port))
    except OSError:
        wire.close()
        raise
    return wire
