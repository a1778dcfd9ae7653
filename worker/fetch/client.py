"""One GET, and the answer to it: on a connection that was dialled as we say, or on one that was kept.

Whom to connect to is decided in `dial.py`, what an answer is in `parser.py`. Nothing is retried
here, but for a kept connection that was closed meanwhile.
"""

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote, urlsplit

import certifi

from shared.egress import Target
from shared.errors import BadResponse, ConnectFailed, RegistryError, Truncated
from worker.digest.intake import Intake
from worker.digest.lanes import WORTH_BYTES, Lanes
from worker.fetch.dial import NO_CONNECTION, Dial
from worker.fetch.parser import Body, Head, HeadReader
from worker.fetch.tls import NO_ISSUER, no_handshake, no_trust
from worker.fetch.translation import is_ours
from worker.fetch.wire import LOOP_RAW_BYTES, Wire

KEPT_S = 4.0
"""How long a connection is kept for the next download. Servers close theirs after five seconds or more."""
KEPT_AT_MOST = 64
PIECE_BYTES = 64 * 1024
"""What the loop reads at a time. To hash it takes 40 µs, in which all others wait."""
CHUNKED_PIECE_BYTES = 16 * 1024
"""Of a body in chunks, which may hold a byte each: 64 KiB of those take 16 ms."""
FAST_BYTES_A_S = 8 * 1024 * 1024
"""Who sends so much in a second, over a mebibyte, is read in a lane."""
# Python's own, without finite-field Diffie-Hellman: a host chooses its prime, and makes us compute for a second.
CIPHERS = "@SECLEVEL=2:ECDH+AESGCM:ECDH+CHACHA20:ECDH+AES:!aNULL:!eNULL:!aDSS:!SHA1:!AESCCM"
NO_SUBMITTER = "\0webhooks"
"""In whose name hosts of webhooks are looked up: one for all, and nobody's label."""
_GONE = (ConnectionError, ssl.SSLError, Truncated)
"""What it looks like when a kept connection was closed by the other side."""
_RESOURCE = re.compile(r"[^:/]+://[^/?]*(.*)")
_HEADERS = {
    "Accept": "*/*",
    "Accept-Encoding": "identity",  # the declared digest is of the artifact, not of a transfer form of it
}


class Client:
    """Asks for what is at a URL, once it was checked. All its connections are made by *dial*, all in one loop.

    With *proxy_url* every request goes through that proxy; the environment's proxies are never used.
    """

    def __init__(
        self,
        dial: Dial,
        lanes: Lanes,
        *,
        connect_timeout_s: float,
        read_timeout_s: float,
        ca_file: Path | None = None,
        proxy_url: str | None = None,
        agent: str = "plugin-registry",
    ) -> None:
        self.agent = agent
        """What we call ourselves."""
        self._headers = {"User-Agent": agent, **_HEADERS}
        self._dial = dial
        self._lanes = lanes
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._proxy = _Proxy.at(proxy_url) if proxy_url else None
        self._tls = ssl.create_default_context(cafile=str(ca_file or certifi.where()))
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._tls.set_alpn_protocols(["http/1.1"])
        self._tls.set_ciphers(CIPHERS)
        # With OpenSSL 3 Python takes an end without close_notify for a proper one. A body without a length would be
        # complete wherever somebody cuts it (RFC 9112 section 9.8).
        self._tls.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
        self._tls.hostname_checks_common_name = False
        self._anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """Trusts whoever answers: only a certificate is read with it, to say what is wrong with it."""
        self._anybody.check_hostname, self._anybody.verify_mode = False, ssl.CERT_NONE
        self._anybody.minimum_version = ssl.TLSVersion.TLSv1_2
        self._anybody.set_ciphers(CIPHERS)
        self._kept = _Kept()
        # One for all: what is read is looked at before anybody else has a turn.
        self._buffers = _Buffers(memoryview(bytearray(PIECE_BYTES)), bytearray(LOOP_RAW_BYTES))

    async def get(self, url: str, target: Target, submitted_by: str, headers: Mapping[str, str]) -> "Answer":
        """Return the answer to a GET of *url*, which leads to *target*, as soon as its head is there.

        Raises:
            ForbiddenAddress, HostNotFound, ConnectFailed: there is no connection to be had.
            BadResponse, Truncated, OSError: the answer did not come, or is none.
        """
        while True:
            kept = self._kept.take(target)
            connection = kept or await self._connected(target, submitted_by)
            try:
                return await self._ask(connection, url, headers, again=kept is not None)
            except BaseException as error:
                connection.close()
                if kept is None or not isinstance(error, _GONE):
                    raise

    async def post(self, url: str, target: Target, headers: Mapping[str, str], body: bytes) -> int:
        """Return the status that a POST of *body* to *url*, which leads to *target*, is answered with, and no more.

        Raises:
            ForbiddenAddress, HostNotFound, ConnectFailed: there is no connection to be had.
            BadResponse, Truncated, OSError: the answer did not come, or is none.
        """
        with closing(await self._connected(target, NO_SUBMITTER)) as connection:
            resource, more = self._asked_for(url, connection)
            length = {"Content-Length": str(len(body)), "Connection": "close"}
            await connection.send("POST", resource, {**more, **length, "User-Agent": self.agent, **headers}, body)
            head, _rest = await connection.receive()
            return head.status

    def close(self) -> None:
        """Close the connections that are kept."""
        self._kept.close()

    async def _ask(self, connection: "_Connection", url: str, headers: Mapping[str, str], *, again: bool) -> "Answer":
        resource, more = self._asked_for(url, connection)
        await connection.send("GET", resource, {**more, **self._headers, **headers})
        if again:  # after it was asked: to send is what makes a connection wait with its acknowledgements
            connection.wire.acknowledge_at_once()
        head, rest = await connection.receive()
        return Answer(head, rest, connection, self._lanes, None if self._proxy else self._kept)

    def _asked_for(self, url: str, connection: "_Connection") -> tuple[str, dict[str, str]]:
        """Return what a request on *connection* names, and the headers that say where it is."""
        resource, more = _resource_of(url), {"Host": connection.authority}
        if self._proxy is not None:
            more["Connection"] = "close"
            if connection.target.scheme == "http":
                resource = f"http://{connection.authority}{resource}"
                more |= self._proxy.headers
        return resource, more

    async def _connected(self, target: Target, submitted_by: str) -> "_Connection":
        """Return a new connection to *target*, over which TLS has been agreed on if it is to be."""
        try:
            return await self._dialled(target, submitted_by, self._tls)
        except ssl.SSLCertVerificationError as error:
            unknown = error.verify_code == NO_ISSUER
            sent = await self._certificates_of(target, submitted_by) if unknown else (None, 0)
            raise no_trust(error, *sent) from error

    async def _dialled(self, target: Target, submitted_by: str, tls: ssl.SSLContext) -> "_Connection":
        first = self._proxy or target
        wire = await self._dial(first.host, first.port, submitted_by)
        connection = _Connection(target, wire, self._buffers, self._read_timeout_s)
        try:
            if target.scheme == "https":
                if self._proxy is not None:
                    await connection.tunnel(self._proxy.headers)
                await wire.begin_tls(tls, target.host, self._buffers.raw, self._connect_timeout_s)
        except ssl.SSLCertVerificationError:
            connection.close()
            raise
        except (OSError, BadResponse, Truncated) as error:
            connection.close()
            if is_ours(error):
                raise
            raise no_handshake(error) if isinstance(error, OSError) else ConnectFailed(NO_CONNECTION) from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def _certificates_of(self, target: Target, submitted_by: str) -> tuple[bytes | None, int]:
        """Return the certificate of *target*, and how many came with it.

        By a handshake that trusts anybody, and over which nothing is sent. It only explains why there is no trust;
        whatever goes wrong, there is none to look at.
        """
        try:
            with closing(await self._dialled(target, submitted_by, self._anybody)) as connection:
                return connection.wire.certificates
        except (OSError, RegistryError):
            return None, 0


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


@dataclass(frozen=True)
class _Buffers:
    """Where what is read lies, for a moment."""

    piece: memoryview
    raw: bytearray


class _Connection:
    """A connection to *target*, or to a proxy that leads there."""

    def __init__(self, target: Target, wire: Wire, buffers: _Buffers, timeout_s: float) -> None:
        self.target = target
        self.wire = wire
        self._buffers = buffers
        self._timeout_s = timeout_s
        self._host = f"[{target.host}]" if ":" in target.host else target.host
        usual_port = 443 if target.scheme == "https" else 80
        self.authority = self._host if target.port == usual_port else f"{self._host}:{target.port}"

    async def send(self, method: str, resource: str, headers: Mapping[str, str], body: bytes = b"") -> None:
        """Send a request; its length, where it has a *body*, is for *headers* to say."""
        lines = [f"{method} {resource} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        await self.wire.send("\r\n".join(lines).encode("latin-1") + body, self._timeout_s)

    async def receive(self) -> tuple[Head, bytes]:
        """Return the head of the answer, and what came with it of the body.

        Raises:
            BadResponse, Truncated, OSError: there is none.
        """
        reader = HeadReader()
        while True:
            piece = await self.read()
            if not piece:
                reader.end()
            if head := reader.feed(piece):
                return head, reader.rest
            await asyncio.sleep(0)  # where it comes in tiny pieces, others have their turn

    async def read(self, at_most: int | None = None) -> memoryview:
        """Return what arrives next, none at the end. It is good until somebody else reads."""
        into = self._buffers.piece[:at_most]
        return into[: await self.wire.receive(into, self._buffers.raw, self._timeout_s)]

    def is_silent(self) -> bool:
        """Return whether the other side is there and has said nothing that was not asked for."""
        return self.wire.is_silent(self._buffers.raw)

    async def tunnel(self, headers: Mapping[str, str]) -> None:
        """Have the proxy at the other end lead to the target (RFC 9110 section 9.3.6).

        Raises:
            BadResponse, Truncated, OSError: it does not.
        """
        there = f"{self._host}:{self.target.port}"
        await self.send("CONNECT", there, {"Host": there, **headers})
        head, rest = await self.receive()
        if head.status != 200 or rest:
            raise BadResponse("The proxy leads nowhere.")

    def close(self) -> None:
        """Close the connection."""
        self.wire.close()


class Answer:
    """An answer whose body is still to be read, and the connection it comes on."""

    def __init__(self, head: Head, rest: bytes, connection: _Connection, lanes: Lanes, kept: "_Kept | None") -> None:
        self.head = head
        self._rest = rest
        """What came of the body with the head."""
        self._connection = connection
        self._lanes = lanes
        self._kept = kept
        """Where the connection may go when the body was read."""
        self._handed_on = False

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

    async def read(self, intake: Intake) -> None:
        """Read the body into *intake* as it arrives, exactly as served, until its proper end.

        Raises:
            Truncated: it ended before that.
            BadResponse: its framing is malformed.
            ArtifactTooLarge: there is more than we take.
            OSError: nothing more arrives.
        """
        body = self._body
        _feed(body, self._rest, intake)
        begun, arrived = time.monotonic(), 0
        while not body.done:
            piece = await self._connection.read(CHUNKED_PIECE_BYTES if self.head.chunked else body.wanted)
            arrived += len(piece)
            if piece:
                _feed(body, piece, intake)
            else:
                body.end()
            if arrived >= WORTH_BYTES and not body.done:
                now = time.monotonic()
                if arrived >= FAST_BYTES_A_S * (now - begun) and self._lanes.free and _is_worth(body):
                    await self._lanes.read(self._connection.wire, body, intake)
                begun, arrived = time.monotonic(), 0
            elif not body.done:
                await asyncio.sleep(0)  # where much has arrived already, the others have their turn, too

    def keep(self) -> None:
        """Let the next request to the same target have the connection. The body was read to its proper end."""
        if self._kept is None or not self.head.may_be_kept or not self._body.ended_by_itself:
            return
        if not self._body.surplus and self._connection.is_silent():
            self._handed_on = True
            self._kept.put(self._connection)

    def close(self) -> None:
        """Close the connection, unless it is kept."""
        if not self._handed_on:
            self._connection.close()


def _feed(body: Body, piece: bytes | memoryview, intake: Intake) -> None:
    for content in body.feed(piece):
        intake.take(content)


def _is_worth(body: Body) -> bool:
    return body.wanted is None or body.wanted >= WORTH_BYTES


class _Kept:
    """Connections that nobody uses at the moment. Each was checked when it was dialled."""

    def __init__(self) -> None:
        self._idle: dict[Target, list[tuple[float, _Connection]]] = {}
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, connection: _Connection) -> None:
        """Keep *connection* for a while, unless many are kept already."""
        if self._count >= KEPT_AT_MOST:
            connection.close()
            return
        self._count += 1
        self._idle.setdefault(connection.target, []).append((time.monotonic() + KEPT_S, connection))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(KEPT_S, self._drop_old)

    def take(self, target: Target) -> _Connection | None:
        """Return a connection to *target* whose other side is still there, as far as can be seen from here."""
        while idle := self._idle.get(target):
            until, connection = idle.pop()
            self._count -= 1
            if not idle:
                del self._idle[target]
            if time.monotonic() < until and connection.is_silent():
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close all of them."""
        self._drop(lambda _until: True)
        if self._timer is not None:
            self._timer.cancel()

    def _drop_old(self) -> None:
        now = time.monotonic()
        self._drop(lambda until: until <= now)
        self._timer = asyncio.get_running_loop().call_later(KEPT_S / 4, self._drop_old) if self._idle else None

    def _drop(self, old: Callable[[float], bool]) -> None:
        for target, idle in list(self._idle.items()):
            for each in idle:
                if old(each[0]):
                    each[1].close()
                    self._count -= 1
            self._idle[target] = [each for each in idle if not old(each[0])]
            if not self._idle[target]:
                del self._idle[target]


def _resource_of(url: str) -> str:
    """Return the path and query of *url*, exactly as written."""
    found = _RESOURCE.fullmatch(url)
    assert found is not None  # noqa: S101  # egress has checked it
    return found[1] if found[1].startswith("/") else f"/{found[1]}"
