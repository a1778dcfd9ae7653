"""The artifact host, a process of its own: ``python -m bench.origin``.

Small artifacts and slow ones come from one event loop, large ones from a thread for each connection, so that
none of them is what limits a measurement. It prints the ports it took as one JSON line.

    /small/N   4 KiB that only N has
    /apart/N   the same, its head and its body sent apart under Nagle's algorithm, as old hosts do
    /slow/N    announces 64 MiB, and sends 16 KiB a second
    /slow      how many slow downloads are under way
    /large     so many MiB, as fast as the socket takes them
"""

import argparse
import asyncio
import hashlib
import json
import re
import socket
import ssl
import threading
from contextlib import suppress
from itertools import count
from typing import cast

import uvloop

SMALL_BYTES = 4096
SLOW_BYTES = 64 * 2**20
SLOW_PIECE = bytes(16 * 1024)
BLOCK = bytes(range(256)) * 1024
"""What large artifacts are made of: 256 KiB."""


def small_body(number: int) -> bytes:
    """Return the small artifact of a number."""
    return b"%016d" % number * (SMALL_BYTES // 16)


def small_checksum(number: int) -> str:
    """Return what a client declares for the small artifact of a number."""
    return f"sha256:{hashlib.sha256(small_body(number)).hexdigest()}"


def large_checksum(mib: int) -> str:
    """Return what a client declares for a large artifact."""
    sha256 = hashlib.sha256()
    for _ in range(mib * 4):
        sha256.update(BLOCK)
    return f"sha256:{sha256.hexdigest()}"


def _head(size_bytes: int) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {size_bytes}\r\nContent-Type: application/gzip\r\n\r\n".encode()


class Small(asyncio.Protocol):
    """One connection to the host of small and slow artifacts."""

    slow: set[asyncio.Transport] = set()  # noqa: RUF012  # shared on purpose
    small_head = _head(SMALL_BYTES)
    slow_head = _head(SLOW_BYTES)

    def __init__(self) -> None:
        self._seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = cast("asyncio.Transport", transport)  # uvloop's is one, but does not say so

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self.slow.discard(self._wire)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        while b"\r\n\r\n" in self._seen:
            request, _, self._seen = self._seen.partition(b"\r\n\r\n")
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        path = request.split(b" ", 2)[1]
        if path.startswith(b"/small/"):
            self._wire.write(self.small_head + small_body(int(path[7:])))
        elif path.startswith(b"/apart/"):
            self._wire.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 0)
            self._wire.write(self.small_head)
            self._wire.write(small_body(int(path[7:])))
        elif path == b"/slow":
            body = b"%d" % len(self.slow)
            self._wire.write(_head(len(body)) + body)
        elif path.startswith(b"/slow/"):
            self._wire.write(self.slow_head + SLOW_PIECE)
            self.slow.add(self._wire)
        else:
            self._wire.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
        if re.search(rb"(?i)connection: *close", request) and self._wire not in self.slow:
            self._wire.close()


async def serve_small(listener: socket.socket) -> None:
    """Serve small and slow artifacts for ever. The slow ones are spread over each second."""
    await asyncio.get_running_loop().create_server(Small, sock=listener)
    for tick in count():
        await asyncio.sleep(0.05)
        for wire in [each for number, each in enumerate(Small.slow) if number % 20 == tick % 20]:
            wire.write(SLOW_PIECE)


class Large:
    """Serves one large artifact to whoever connects, with or without TLS."""

    def __init__(self, mib: int, context: ssl.SSLContext | None) -> None:
        self._mib = mib
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            wire, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(wire,), daemon=True).start()

    def _answer(self, plain: socket.socket) -> None:
        with suppress(OSError), plain:
            wire = self._context.wrap_socket(plain, server_side=True) if self._context else plain
            while request := wire.recv(65536):
                wire.sendall(_head(self._mib * 2**20))
                for _ in range(self._mib * 4):
                    wire.sendall(BLOCK)
                if re.search(rb"(?i)connection: *close", request):
                    break
            if isinstance(wire, ssl.SSLSocket):
                wire.unwrap()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--large-mib", type=int, required=True)
    parser.add_argument("--certificate", required=True, help="a PEM file with a key and its chain")
    asked = parser.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(asked.certificate)
    small = socket.create_server(("127.0.0.1", 0), backlog=2048)
    http, https = Large(asked.large_mib, None), Large(asked.large_mib, context)
    print(json.dumps({"small": small.getsockname()[1], "http": http.port, "https": https.port}), flush=True)
    uvloop.run(serve_small(small))


if __name__ == "__main__":
    main()
