"""One GET, and the head of its answer: on a connection that was dialled as we say, or on one that was kept.

`http.client` writes the request and reads the head. Whom to connect to is decided in `worker/connect.py`, where head
and body end in `worker/framing.py`. Nothing is retried here, but for a kept connection that was closed meanwhile.
"""

import base64
import re
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from shared.egress import Target
from shared.errors import ConnectFailed
from worker.attempts import Attempt
from worker.connect import NO_CONNECTION
from worker.framing import StrictResponse

Dial = Callable[[str, int, Attempt], socket.socket]

KEPT_S = 4.0
"""How long a connection is kept for the next download. Servers close theirs after five seconds or more."""
KEPT_AT_MOST = 64
HTTP_1_1 = 11
_GONE = (ConnectionError, ssl.SSLError, HTTPException)
"""What it looks like when a kept connection was closed by the other side."""
_RESOURCE = re.compile(r"[^:/]+://[^/?]*(.*)")
_HEADERS = {
    "User-Agent": "plugin-registry",
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # the declared digest is of the artifact, not of a transfer form of it
}


class Client:
    """Asks for what is at a URL, once it was checked. All its connections are made by *dial*.

    With *proxy_url* every request goes through that proxy; the environment's proxies are never used.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        read_timeout_s: float,
        ca_file: Path | None = None,
        proxy_url: str | None = None,
    ) -> None:
        self._dial = dial
        self._read_timeout_s = read_timeout_s
        self._proxy = _Proxy.at(proxy_url) if proxy_url else None
        self._tls = ssl.create_default_context(cafile=str(ca_file or certifi.where()))
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])
        self._tls.hostname_checks_common_name = False
        self._kept = _Kept()

    def get(self, url: str, target: Target, attempt: Attempt, headers: Mapping[str, str]) -> "Answer":
        """Return the answer to a GET of *url*, which leads to *target*, as soon as its head is there.

        Raises:
            ForbiddenAddress, HostNotFound, ConnectFailed: there is no connection to be had.
            OSError, http.client.HTTPException: the answer did not come, or is none.
        """
        while True:
            attempt.check()
            kept = self._kept.take(target)
            connection = kept or self._connected(target, attempt)
            try:
                if kept is not None:
                    attempt.attach(kept.wire)
                return self._ask(connection, url, attempt, headers)
            except BaseException as error:
                connection.close()
                if kept is None or not isinstance(error, _GONE):
                    raise

    def _ask(self, connection: "_Connection", url: str, attempt: Attempt, headers: Mapping[str, str]) -> "Answer":
        connection.wire.settimeout(attempt.remaining_s(self._read_timeout_s))
        resource, more = _resource_of(url), {"Host": connection.authority}
        if self._proxy is not None:
            more["Connection"] = "close"
            if connection.target.scheme == "http":
                resource = f"http://{connection.authority}{resource}"
                more |= self._proxy.headers
        connection.request("GET", resource, headers={**_HEADERS, **more, **headers})
        return Answer(connection.getresponse(), connection, attempt, None if self._proxy else self._kept)

    def _connected(self, target: Target, attempt: Attempt) -> "_Connection":
        """Return a new connection to *target*, over which TLS has been agreed on if it is to be."""
        connection = _Connection(target, self._proxy, lambda host, port: self._dial(host, port, attempt))
        try:
            connection.connect()
            if target.scheme == "https":
                connection.begin_tls(self._tls)
        except ssl.SSLCertVerificationError:
            connection.close()
            raise
        except (OSError, HTTPException) as error:
            connection.close()
            raise ConnectFailed(NO_CONNECTION) from error
        return connection


@dataclass(frozen=True)
class _Proxy:
    """The proxy that everything goes through, and what it is told about us."""

    host: str
    port: int
    headers: Mapping[str, str]

    @classmethod
    def at(cls, url: str) -> "_Proxy":
        parts = urlsplit(url)
        headers = {}
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
        assert parts.hostname  # noqa: S101  # the settings were checked
        assert parts.port  # noqa: S101
        return cls(parts.hostname, parts.port, headers)


class _Connection(HTTPConnection):
    """A connection to *target*, or through *proxy* to it."""

    response_class = StrictResponse
    auto_open = 0  # a connection that was closed is not made again behind our back

    def __init__(self, target: Target, proxy: _Proxy | None, dial: Callable[[str, int], socket.socket]) -> None:
        super().__init__(proxy.host if proxy else target.host, proxy.port if proxy else target.port)
        self.target = target
        # Written by us: not every Python puts an IPv6 address into brackets, once, wherever it must be in some.
        host = f"[{target.host}]" if ":" in target.host else target.host
        usual_port = 443 if target.scheme == "https" else 80
        self.authority = host if target.port == usual_port else f"{host}:{target.port}"
        self._create_connection = lambda address, *_: dial(*address)
        if proxy and target.scheme == "https":
            self.set_tunnel(host, target.port, headers={"Host": f"{host}:{target.port}", **proxy.headers})

    @property
    def wire(self) -> socket.socket:
        """The socket, which is there once this is connected."""
        assert self.sock is not None  # noqa: S101
        return self.sock

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, in as much time as connecting had, and see that the certificate is the target's."""
        # An end without close_notify must not pass for the end of a body without a length (RFC 9112 section 9.8).
        self.sock = context.wrap_socket(self.wire, server_hostname=self.target.host, suppress_ragged_eofs=False)


@dataclass(frozen=True)
class Answer:
    """An answer whose body is still to be read, and the connection it comes on."""

    response: HTTPResponse
    connection: _Connection
    attempt: Attempt
    kept: "_Kept | None"
    """Where the connection may go when the body was read."""

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.response.status

    def header(self, name: str) -> str:
        """Return the value of a header, several joined by commas; nothing where there is none."""
        return self.response.getheader(name, "")

    def keep(self) -> None:
        """Let the next request to the same target have the connection. The body was read to its proper end."""
        alive = self.response.version == HTTP_1_1 and not self.response.will_close
        if self.kept is None or not alive:
            return
        self.attempt.detach()
        if _is_silent(self.connection, self.response):
            self.response.close()
            self.kept.put(self.connection)

    def close(self) -> None:
        """Close the connection, unless it is kept."""
        if not self.response.isclosed():
            self.response.close()
            self.connection.close()


class _Kept:
    """Connections that nobody uses at the moment, the longest unused first. Each was checked when it was dialled."""

    def __init__(self) -> None:
        self._idle: deque[tuple[float, _Connection]] = deque()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def put(self, connection: _Connection) -> None:
        """Keep *connection* for a while."""
        with self._lock:
            self._idle.append((time.monotonic() + KEPT_S, connection))
            surplus = self._idle.popleft()[1] if len(self._idle) > KEPT_AT_MOST else None
            if self._idle and self._timer is None:
                self._look_later()
        if surplus is not None:
            surplus.close()

    def take(self, target: Target) -> _Connection | None:
        """Return a connection to *target* whose other side is still there, as far as can be seen from here."""
        while True:
            with self._lock:
                found = next((each for each in reversed(self._idle) if each[1].target == target), None)
                if found is None:
                    return None
                self._idle.remove(found)
            until, connection = found
            if time.monotonic() < until and not _has_something_to_read(connection.wire):
                return connection
            connection.close()

    def _look_later(self) -> None:
        timer = threading.Timer(self._idle[0][0] - time.monotonic(), self._drop_old)
        timer.daemon = True
        timer.start()
        self._timer = timer

    def _drop_old(self) -> None:
        with self._lock:
            now = time.monotonic()
            old = [connection for until, connection in self._idle if until <= now]
            self._idle = deque(each for each in self._idle if each[0] > now)
            self._timer = None
            if self._idle:
                self._look_later()
        for each in old:
            each.close()


def _has_something_to_read(wire: socket.socket) -> bool:
    """Return whether the other side has closed *wire*, or sent what nobody asked for."""
    poll = select.poll()
    poll.register(wire, select.POLLIN)
    return bool(poll.poll(0))


def _is_silent(connection: _Connection, response: HTTPResponse) -> bool:
    """Return whether nothing was read beyond the body. Whatever was would be missing from the next answer."""
    connection.wire.settimeout(0)
    try:
        return not response.fp.peek(1)
    except ssl.SSLWantReadError:
        return True
    except OSError:
        return False


def _resource_of(url: str) -> str:
    """Return the path and query of *url*, exactly as written."""
    found = _RESOURCE.fullmatch(url)
    assert found is not None  # noqa: S101  # egress has checked it
    return found[1] if found[1].startswith("/") else f"/{found[1]}"
