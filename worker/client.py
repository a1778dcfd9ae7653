"""One GET, and the answer to it: on a connection that was dialled as we say, or on one that was kept.

Whom to connect to is decided in `worker/connect.py`, what an answer is in `worker/parser.py`. Nothing is retried
here, but for a kept connection that was closed meanwhile.
"""

import base64
import re
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from shared.egress import Target
from shared.errors import BadResponse, ConnectFailed, Truncated
from worker.attempts import Attempt
from worker.connect import NO_CONNECTION
from worker.pace import Pace
from worker.parser import Body, Content, Head, HeadReader

Dial = Callable[[str, int, Attempt], socket.socket]

KEPT_S = 4.0
"""How long a connection is kept for the next download. Servers close theirs after five seconds or more."""
KEPT_AT_MOST = 64
HEAD_PIECE_BYTES = 16 * 1024
_GONE = (ConnectionError, ssl.SSLError, Truncated)
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
            BadResponse, Truncated, OSError: the answer did not come, or is none.
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
        connection.send("GET", resource, {**more, **_HEADERS, **headers})
        head, rest = connection.receive()
        return Answer(head, rest, connection, attempt, None if self._proxy else self._kept)

    def _connected(self, target: Target, attempt: Attempt) -> "_Connection":
        """Return a new connection to *target*, over which TLS has been agreed on if it is to be."""
        first = self._proxy or target
        connection = _Connection(target, self._dial(first.host, first.port, attempt))
        try:
            if target.scheme == "https":
                if self._proxy is not None:
                    connection.tunnel(self._proxy.headers)
                connection.begin_tls(self._tls)
        except ssl.SSLCertVerificationError:
            connection.close()
            raise
        except (OSError, BadResponse, Truncated) as error:
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


class _Connection:
    """A connection to *target*, or to a proxy that leads there."""

    def __init__(self, target: Target, wire: socket.socket) -> None:
        self.target = target
        self.wire = wire
        self._host = f"[{target.host}]" if ":" in target.host else target.host
        usual_port = 443 if target.scheme == "https" else 80
        self.authority = self._host if target.port == usual_port else f"{self._host}:{target.port}"

    def send(self, method: str, resource: str, headers: Mapping[str, str]) -> None:
        """Send a request without a body."""
        lines = [f"{method} {resource} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self.wire.sendall("\r\n".join(lines).encode("latin-1"))

    def receive(self) -> tuple[Head, bytes]:
        """Return the head of the answer, and what came with it of the body.

        Raises:
            BadResponse, Truncated, OSError: there is none.
        """
        reader = HeadReader()
        while True:
            piece = self.wire.recv(HEAD_PIECE_BYTES)
            if not piece:
                reader.end()
            if head := reader.feed(piece):
                return head, reader.rest

    def tunnel(self, headers: Mapping[str, str]) -> None:
        """Have the proxy at the other end lead to the target (RFC 9110 section 9.3.6).

        Raises:
            BadResponse, Truncated, OSError: it does not.
        """
        there = f"{self._host}:{self.target.port}"
        self.send("CONNECT", there, {"Host": there, **headers})
        head, rest = self.receive()
        if head.status != 200 or rest:
            raise BadResponse("The proxy leads nowhere.")

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands, in as much time as connecting had, and see that the certificate is the target's."""
        # An end without close_notify must not pass for the end of a body without a length (RFC 9112 section 9.8).
        self.wire = context.wrap_socket(self.wire, server_hostname=self.target.host, suppress_ragged_eofs=False)

    def close(self) -> None:
        """Close the connection."""
        self.wire.close()


@dataclass
class Answer:
    """An answer whose body is still to be read, and the connection it comes on."""

    head: Head
    rest: bytes
    """What came of the body with the head."""
    connection: _Connection
    attempt: Attempt
    kept: "_Kept | None"
    """Where the connection may go when the body was read."""
    handed_on: bool = field(default=False, init=False)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return self.head.status

    def header(self, name: str) -> str:
        """Return the value of a header, several joined by commas; nothing where there is none."""
        return self.head.value(name.lower())

    @cached_property
    def _body(self) -> Body:
        return Body(self.head)

    def content(self) -> Iterator[Content]:
        """Yield the body as it arrives, exactly as served, until its proper end.

        Raises:
            Truncated: it ended before that.
            BadResponse: its framing is malformed.
            OSError: nothing more arrives.
        """
        body, pace = self._body, Pace()
        yield from body.feed(self.rest)
        while not body.done:
            piece = pace.read(self.connection.wire, body.wanted)
            if not piece:
                body.end()
            yield from body.feed(piece)

    def keep(self) -> None:
        """Let the next request to the same target have the connection. The body was read to its proper end."""
        if self.kept is None or not self.head.may_be_kept or not self._body.ended_by_itself:
            return
        self.attempt.detach()
        if not self._body.surplus and _is_silent(self.connection.wire):
            self.handed_on = True
            self.kept.put(self.connection)

    def close(self) -> None:
        """Close the connection, unless it is kept."""
        if not self.handed_on:
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


def _is_silent(wire: socket.socket) -> bool:
    """Return whether the other side has said nothing since its answer. That would be missing from the next one."""
    wire.settimeout(0)
    try:
        wire.recv(1)  # a byte, or the end
    except (BlockingIOError, ssl.SSLWantReadError):  # over TLS, what it says about itself was read by this
        return True
    except OSError:
        return False
    return False


def _resource_of(url: str) -> str:
    """Return the path and query of *url*, exactly as written."""
    found = _RESOURCE.fullmatch(url)
    assert found is not None  # noqa: S101  # egress has checked it
    return found[1] if found[1].startswith("/") else f"/{found[1]}"
