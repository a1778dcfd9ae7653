"""An artifact host that keeps no promise: raw sockets on loopback, one function for each way to misbehave.

A behaviour is given one accepted connection and does to it what its name says. Whatever that is, it
ends: when the client leaves, when the server is closed, and after `LIFETIME_S` in any case.
"""

import gzip
import random
import socket
import ssl
import struct
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Self

import trustme

LIFETIME_S = 60.0
"""How long a connection lasts at most: longer than any attempt of a test may take."""
TRICKLE_EVERY_S = 0.1
FLOOD_EVERY_S = 0.001
FLOOD_BYTES = 64 * 1024
"""A flood is some 50 MB a second: enough to see it kept in memory, not enough to fill a machine."""

BODY = b"artifact" * 100
OK = "HTTP/1.1 200 OK"
LENGTH = f"Content-Length: {len(BODY)}"
ETAG = 'ETag: "the-artifact"'
CHUNKED = "Transfer-Encoding: chunked"
CHUNK = b"%x\r\n%s\r\n" % (len(BODY), BODY)
LAST_CHUNK = b"0\r\n\r\n"


class Over(Exception):
    """The connection has lasted long enough, or its server is being closed."""


@dataclass(frozen=True)
class Request:
    """What a client asked: *headers* keep their order, with names in lower case."""

    line: str
    headers: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Return every value of the header *name*."""
        return [value for each, value in self.headers if each == name.lower()]


def encoded(*lines: str) -> bytes:
    """Return the bytes of a head of these *lines*, with the blank one that ends it."""
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


class Wire:
    """One accepted connection, in the hands of a behaviour."""

    def __init__(self, server: "HostileServer", connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._ends = time.monotonic() + LIFETIME_S
        self.request: Request | None = None

    def await_request(self) -> Request:
        """Read a request's head. It has no body: we are only ever asked with GET."""
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            received = self._connection.recv(1)
            if not received:
                raise Over
            head += received
        line, *fields = head.decode("latin-1").split("\r\n")[:-2]
        headers = tuple(
            (name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields)
        )
        self.request = Request(line, headers)
        self._server.requests.append(self.request)
        return self.request

    def asked(self) -> Request:
        """Return the request that has come, having read it if nobody has."""
        return self.request or self.await_request()

    def head(self, *lines: str) -> None:
        """Send a response's head, once the request has come."""
        self.raw_head(encoded(*lines))

    def raw_head(self, head: bytes) -> None:
        """Send a head that is encoded already, once the request has come."""
        if self.request is None:
            self.await_request()
        self.send(head)

    def send(self, content: bytes) -> None:
        self.pause(0)
        self._connection.sendall(content)

    def trickle(self, content: bytes) -> None:
        """Send *content* a byte at a time, slowly."""
        for byte in content:
            self.send(bytes([byte]))
            self.pause(TRICKLE_EVERY_S)

    def flood(self, piece: bytes) -> None:
        """Send *piece* over and over, until the end."""
        block = piece * max(1, FLOOD_BYTES // len(piece))
        while True:
            self.send(block)
            self.pause(FLOOD_EVERY_S)

    def hold(self) -> None:
        """Keep the connection open and say nothing, until the end."""
        self.pause(LIFETIME_S)

    def pause(self, seconds: float) -> None:
        left_s = self._ends - time.monotonic()
        if self._server.closing.wait(max(0, min(seconds, left_s))) or left_s <= seconds:
            raise Over

    def reset(self) -> None:
        """Break the connection with an RST, what was sent before having arrived."""
        self.pause(0.05)
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()


Behaviour = Callable[[Wire], None]


def _listener(address: str, port: int) -> socket.socket:
    """Return a listening socket; where *port* is 0, on a port that no system hands out by itself.

    Some tests want the same port of another address, too, which may be anybody's among those that are handed out.
    """
    for _try in range(50):
        with suppress(OSError):
            return socket.create_server((address, port or random.randrange(15_000, 30_000)), backlog=64)
    return socket.create_server((address, port), backlog=64)


class HostileServer:
    """A server on loopback all of whose connections are treated by *behave*, each in a thread.

    *scheme* is what its URL says. It speaks TLS if *tls* is given; without, an ``https`` URL leads
    to a host that does not.
    """

    def __init__(
        self,
        behave: Behaviour,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        scheme: str | None = None,
    ) -> None:
        self._behave = behave
        self._tls = tls
        self._scheme = scheme or ("https" if tls else "http")
        self.closing = threading.Event()
        self.connections = 0
        self.requests: list[Request] = []
        self.server_names: list[str | None] = []
        if tls is not None:
            tls.sni_callback = lambda _connection, name, _context: self.server_names.append(name)
        self._listener = _listener(address, port)
        self._listener.settimeout(0.02)
        self.address, self.port = self._listener.getsockname()
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return self.url_of(self.address)

    def url_of(self, host: str, path: str = "/artifact.tar.gz") -> str:
        return f"{self._scheme}://{host}:{self.port}{path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End every connection. After this `connections` counts all that ever came, the last one too."""
        self.closing.set()
        self._threads[0].join()  # it takes what has come before it looks whether to end
        self._listener.close()
        for connection in list(self._open):
            with suppress(OSError):
                socket.socket.shutdown(
                    connection, socket.SHUT_RDWR
                )  # past TLS: its thread may be in the middle of it
        for thread in self._threads[1:]:
            thread.join(LIFETIME_S)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if self.closing.is_set():
                    return
                continue
            self.connections += 1
            thread = threading.Thread(target=self._treat, args=[connection], daemon=True)
            self._threads.append(thread)
            thread.start()

    def _treat(self, connection: socket.socket) -> None:
        connection.settimeout(LIFETIME_S)
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        with suppress(Over, OSError):  # ssl.SSLError is one of them: a client that leaves is no news
            if isinstance(connection, ssl.SSLSocket):
                _shake_hands(connection)
            self._behave(Wire(self, connection))
        self._open.discard(connection)
        connection.close()


def _shake_hands(connection: ssl.SSLSocket) -> None:
    try:
        connection.do_handshake()
    except ssl.SSLError:
        with suppress(OSError, ValueError):  # what is unread when it is closed would take the alert along
            connection.settimeout(0.5)
            socket.socket.shutdown(connection, socket.SHUT_WR)
            while socket.socket.recv(connection, 65536):
                pass
        raise


# Answering as one should


def answering(*lines: str, body: bytes = BODY) -> Behaviour:
    """Answer with exactly these head *lines* and then *body*, and close."""
    head = encoded(*lines)  # once: a test that counts memory shares it with its host

    def answer(wire: Wire) -> None:
        wire.raw_head(head)
        wire.send(body)

    return answer


def serving(wire: Wire) -> None:
    answering(OK, LENGTH)(wire)


def serving_chunked(wire: Wire) -> None:
    answering(OK, CHUNKED, body=CHUNK + LAST_CHUNK)(wire)


def by_path(first: Behaviour, then: Behaviour = serving) -> Behaviour:
    """Treat the artifact's own path by *first*, and every other, a redirect's aim, by *then*."""

    def choose(wire: Wire) -> None:
        (first if wire.asked().path == "/artifact.tar.gz" else then)(wire)

    return choose


# Slowly


def never_answering(wire: Wire) -> None:
    wire.await_request()
    wire.hold()


def trickled_body(wire: Wire) -> None:
    wire.head(OK, LENGTH)
    wire.trickle(BODY)


def trickled_chunks(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.trickle(b"1\r\nx\r\n" * 1000)


def trickled_body_without_length(wire: Wire) -> None:
    wire.head(OK)
    wire.trickle(BODY)


def trickled_headers(wire: Wire) -> None:
    wire.await_request()
    wire.trickle(f"{OK}\r\n{LENGTH}\r\nX-Padding: {'x' * 1000}".encode())


def trickled_trailers(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.send(CHUNK + b"0\r\n")
    wire.trickle(b"X: y\r\n" * 1000)


def trickled_interim_responses(wire: Wire) -> None:
    wire.await_request()
    while True:
        wire.head("HTTP/1.1 100 Continue")
        wire.pause(TRICKLE_EVERY_S)


def mute(wire: Wire) -> None:
    """Accept, and never speak: under an https URL, a handshake that does not begin."""
    wire.hold()


def trickled_handshake(wire: Wire) -> None:
    """Send a TLS record with a ServerHello of 16 KiB, a byte at a time."""
    wire.trickle(b"\x16\x03\x03\x40\x00" + b"\x02\x00\x3f\xfc\x03\x03" + bytes(0x3FFA))


# Endlessly


def endless_continue(wire: Wire) -> None:
    wire.await_request()
    wire.flood(b"HTTP/1.1 100 Continue\r\n\r\n")


def endless_early_hints(wire: Wire) -> None:
    wire.await_request()
    wire.flood(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n")


def endless_status_line(wire: Wire) -> None:
    wire.await_request()
    wire.send(b"HTTP/1.1 200 ")
    wire.flood(b"OK")


def endless_header_lines(wire: Wire) -> None:
    wire.await_request()
    wire.send(OK.encode() + b"\r\n")
    wire.flood(b"X-Padding: x\r\n")


def endless_header_line(wire: Wire) -> None:
    wire.await_request()
    wire.send(OK.encode() + b"\r\nX-Padding: ")
    wire.flood(b"x")


def endless_body(wire: Wire) -> None:
    wire.head(OK)
    wire.flood(b"x" * FLOOD_BYTES)


def endless_chunks(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.flood(b"%x\r\n%s\r\n" % (FLOOD_BYTES, b"x" * FLOOD_BYTES))


def endless_chunk(wire: Wire) -> None:
    """Send a chunk of 8 EiB."""
    wire.head(OK, CHUNKED)
    wire.send(b"7fffffffffffffff\r\n")
    wire.flood(b"x" * FLOOD_BYTES)


def endless_chunk_of_negative_size(wire: Wire) -> None:
    """Send a chunk of -1 bytes, which to a careless reader means all there is."""
    wire.head(OK, CHUNKED)
    wire.send(b"-1\r\n")
    wire.flood(b"x" * FLOOD_BYTES)


def endless_chunk_extension(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.send(b"5;extension=")
    wire.flood(b"x")


def endless_chunk_size(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.flood(b"0")


def endless_trailers(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.send(CHUNK + b"0\r\n")
    wire.flood(b"X-Trailer: x\r\n")


def endless_trailer(wire: Wire) -> None:
    wire.head(OK, CHUNKED)
    wire.send(CHUNK + b"0\r\nX-Trailer: ")
    wire.flood(b"x")


def announcing_far_too_much(wire: Wire) -> None:
    """Announce 10 GB, send one chunk of it and no more."""
    wire.head(OK, "Content-Length: 10000000000")
    wire.send(b"x" * FLOOD_BYTES)
    wire.hold()


# Cut short


def closing_at_once(wire: Wire) -> None:
    wire.await_request()


def closing_in_the_status_line(wire: Wire) -> None:
    wire.await_request()
    wire.send(b"HTTP/1.1 20")


def closing_in_the_head(wire: Wire) -> None:
    wire.await_request()
    wire.send(f"{OK}\r\nContent-Le".encode())


def closing_in_the_body(wire: Wire) -> None:
    answering(OK, f"Content-Length: {len(BODY) * 2}")(wire)


def closing_in_a_chunk(wire: Wire) -> None:
    answering(OK, CHUNKED, body=b"%x\r\n%s" % (len(BODY) * 2, BODY))(wire)


def closing_before_the_last_chunk(wire: Wire) -> None:
    answering(OK, CHUNKED, body=CHUNK)(wire)


def resetting_in_the_body(wire: Wire) -> None:
    closing_in_the_body(wire)
    wire.reset()


def resetting_in_a_chunk(wire: Wire) -> None:
    closing_in_a_chunk(wire)
    wire.reset()


def resetting_a_body_without_length(wire: Wire) -> None:
    answering(OK, body=BODY[:400])(wire)
    wire.reset()


def breaking_after_each_byte(wire: Wire) -> None:
    """Serve what can be resumed, if at the price of a connection for each byte."""
    (asked,) = wire.await_request().all("Range") or ["bytes=0-"]
    start = int(asked.removeprefix("bytes=").removesuffix("-"))
    rest = f"Content-Length: {len(BODY) - start}"
    if start:
        wire.head("HTTP/1.1 206 Partial", rest, ETAG, f"Content-Range: bytes {start}-{len(BODY) - 1}/{len(BODY)}")
    else:
        wire.head(OK, rest, ETAG)
    wire.send(BODY[start : start + 1])


def resetting_at_once(wire: Wire) -> None:
    wire.await_request()
    wire.reset()


# Contradictions and nonsense


def with_length(*values: str) -> Behaviour:
    """Send the body under one Content-Length for each of *values*, and close."""
    return answering(OK, *(f"Content-Length: {value}" for value in values))


def with_transfer_encoding(value: str) -> Behaviour:
    """Send the body, chunked, under a Transfer-Encoding of *value*, and close."""
    return answering(OK, f"Transfer-Encoding: {value}", body=CHUNK + LAST_CHUNK)


def with_chunk_size(size: bytes) -> Behaviour:
    """Send the body as one chunk that says it is *size* long."""
    return answering(OK, CHUNKED, body=size + b"\r\n" + BODY + b"\r\n" + LAST_CHUNK)


def without_status_line(wire: Wire) -> None:
    """Answer as HTTP/0.9 did: with the body."""
    wire.await_request()
    wire.send(BODY)


def serving_whatever_is_asked(*head: str, body: bytes = BODY) -> Behaviour:
    """Serve the artifact as often as it is asked for, all on one connection."""

    def behave(wire: Wire) -> None:
        while wire.await_request():
            wire.head(*(head or (OK, LENGTH)))
            wire.send(body)

    return behave


def serving_once(then: Behaviour, *, and_more: bytes = b"") -> Behaviour:
    """Serve the artifact *and more*, without a word about the connection; treat that by *then* afterwards."""

    def behave(wire: Wire) -> None:
        wire.head(OK, LENGTH)
        wire.send(BODY + and_more)
        then(wire)

    return behave


def keeping_the_connection(wire: Wire) -> None:
    """Serve the artifact, keep the connection open, and trickle what is asked for next."""
    wire.head(OK, LENGTH, "Connection: keep-alive")
    wire.send(BODY)
    wire.await_request()
    trickled_body(wire)


def closing_when_asked_again(wire: Wire) -> None:
    wire.await_request()


def resetting_when_asked_again(wire: Wire) -> None:
    wire.await_request()
    wire.reset()


def answering_before_it_is_asked(wire: Wire) -> None:
    """Send an answer that nobody asked for, and be ready for a question."""
    wire.pause(0.05)
    wire.head("HTTP/1.1 404 Not Found", "Content-Length: 0")
    serving_whatever_is_asked()(wire)


# Redirects


def redirecting(location: str, *headers: str) -> Behaviour:
    """Redirect the artifact's own path to *location*; serve the artifact at every other."""
    return by_path(answering("HTTP/1.1 302 Found", f"Location: {location}", "Content-Length: 0", *headers, body=b""))


def redirecting_nowhere(wire: Wire) -> None:
    answering("HTTP/1.1 302 Found", "Content-Length: 0", body=b"")(wire)


def redirecting_for_ever(wire: Wire) -> None:
    wire.head("HTTP/1.1 302 Found", "Location: /artifact.tar.gz", "Content-Length: 0")


def redirecting_times(hops: int) -> Behaviour:
    """Redirect *hops* times, and then serve the artifact."""

    def redirect(wire: Wire) -> None:
        done = int("0" + wire.asked().path.partition("/hop/")[2])
        if done == hops:
            serving(wire)
        else:
            wire.head("HTTP/1.1 302 Found", f"Location: /hop/{done + 1}", "Content-Length: 0")

    return redirect


def redirecting_with_an_endless_body(wire: Wire) -> None:
    def redirect(wire: Wire) -> None:
        wire.head("HTTP/1.1 302 Found", "Location: /elsewhere.tar.gz")
        wire.flood(b"x" * FLOOD_BYTES)

    by_path(redirect)(wire)


# What they serve, and as whom


@cache
def gzip_bomb() -> bytes:
    """Return some 200 KB that are 200 MB once unpacked."""
    packer = zlib.compressobj(level=9, wbits=31)
    packed = [packer.compress(bytes(2**20)) for _ in range(200)]
    return b"".join(packed) + packer.flush()


def nested_gzip_bomb() -> bytes:
    return gzip.compress(gzip_bomb())


def tls_with(certificate: trustme.LeafCert, *, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Return the server's side of TLS under *certificate*, of *version* only if one is given."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    certificate.configure_cert(context)
    return context


def self_signed() -> trustme.LeafCert:
    """Return a certificate that vouches for itself."""
    issuer = trustme.CA()
    return trustme.LeafCert(issuer.private_key_pem.bytes(), issuer.cert_pem.bytes(), [])
