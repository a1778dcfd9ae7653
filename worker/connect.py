"""Connections only to addresses that egress allowed.

A name is resolved once, every answer is checked, and the socket is opened to one of exactly those
answers, so that no second look-up can say something else. Host header and SNI keep the name.
"""

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as AnswerTimeout
from ipaddress import ip_address
from urllib.parse import urlsplit

from shared.egress import Egress
from shared.errors import ConnectFailed, HostNotFound, RegistryError
from worker.attempts import Attempt

MAX_ADDRESSES = 4
"""How many of a name's addresses are tried."""
MAX_LOOK_UPS = 256
"""How many names a process resolves at once, those included whose resolver hangs."""
NO_CONNECTION = "No connection could be made to the host of artifactUrl."
_NOT_RESOLVED = "The host of artifactUrl could not be resolved."
_NO_SUCH_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}

Resolve = Callable[[str, int, float], Sequence[str]]


class Resolver:
    """The system's resolver, bounded in number and in time, of which it has no bounds by itself.

    Each look-up has a thread of its own: one that hangs holds up its own download and no other.
    """

    def __init__(self, look_up: Callable[[str, int], Iterable[str]] | None = None) -> None:
        self._look_up = look_up or _system_look_up
        self._slots = threading.BoundedSemaphore(MAX_LOOK_UPS)

    def __call__(self, host: str, port: int, timeout_s: float) -> list[str]:
        """Return the addresses of *host*, in the resolver's order.

        Raises:
            HostNotFound: it has none, for certain.
            ConnectFailed: there was no answer within *timeout_s*, or one that can pass.
        """
        if _is_address(host):
            return [host]
        if not self._slots.acquire(timeout=timeout_s):
            raise ConnectFailed(_NOT_RESOLVED, cause="resolver-busy")
        answer: Future[list[str]] = Future()
        threading.Thread(target=self._answer, args=(answer, host, port), name="resolver", daemon=True).start()
        try:
            return answer.result(timeout_s)
        except socket.gaierror as error:
            if error.errno in _NO_SUCH_HOST:
                raise HostNotFound("The host of artifactUrl does not exist: is its name right?") from error
            raise ConnectFailed(_NOT_RESOLVED, cause="not-resolved") from error
        except (OSError, UnicodeError, AnswerTimeout) as error:
            raise ConnectFailed(_NOT_RESOLVED, cause="not-resolved") from error

    def _answer(self, answer: "Future[list[str]]", host: str, port: int) -> None:
        try:
            answer.set_result(list(dict.fromkeys(self._look_up(host, port))))
        except Exception as error:  # noqa: BLE001  # it is raised where the answer is waited for
            answer.set_exception(error)
        finally:
            self._slots.release()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _system_look_up(host: str, port: int) -> Iterator[str]:
    for answer in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        yield str(answer[4][0])


class Dialer:
    """Opens sockets to what egress allows."""

    def __init__(self, egress: Egress, *, connect_timeout_s: float, resolve: Resolve) -> None:
        self._egress = egress
        self._connect_timeout_s = connect_timeout_s
        self._resolve = resolve

    def __call__(self, host: str, port: int, attempt: Attempt) -> socket.socket:
        """Return a connected socket that *attempt* can cut off.

        Raises:
            ForbiddenAddress: one of the host's addresses must not be reached; no packet was sent.
            HostNotFound, ConnectFailed: it has none; none of them answered.
        """
        addresses = self._resolve(host, port, attempt.remaining_s(self._connect_timeout_s))
        for address in addresses:
            self._egress.check_address(address)
        wire = _first_connected(addresses, port, attempt, self._connect_timeout_s)
        try:
            self._egress.check_address(wire.getpeername()[0])
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

    def __call__(self, host: str, port: int, attempt: Attempt) -> socket.socket:
        """Return a socket connected to the proxy.

        Raises:
            ConnectFailed: the proxy did not answer.
        """
        if (host, port) != self._proxy:
            raise RuntimeError("with a proxy set, nothing else may be connected to")
        timeout_s = self._connect_timeout_s
        try:
            addresses = self._resolve(host, port, attempt.remaining_s(timeout_s))
            return _first_connected(addresses, port, attempt, timeout_s)
        except RegistryError as error:
            raise ConnectFailed(
                "The registry's egress proxy cannot be reached: this is for its operators to mend.",
                cause="proxy-away",
            ) from error


def _first_connected(addresses: Sequence[str], port: int, attempt: Attempt, timeout_s: float) -> socket.socket:
    """Return a socket to the first of *addresses* that answers, for *attempt* to cut off."""
    for address in addresses[:MAX_ADDRESSES]:
        attempt.check()
        try:
            wire = _connected(address, port, attempt.remaining_s(timeout_s))
        except OSError:
            continue
        attempt.attach(wire)
        return wire
    raise ConnectFailed(NO_CONNECTION)


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
