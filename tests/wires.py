"""Bare connections to a server of HTTP: what is sent is chosen byte by byte, and what comes is read whole."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace

PATIENCE_S = 60
"""How long a test waits for what must come. Nothing is measured by it."""


@dataclass(frozen=True)
class Answer:
    """One answer: status, fields by lower-case name, body."""

    status: int
    fields: dict[str, str]
    body: bytes


class Wire:
    """One connection."""

    def __init__(self, port: int, *, source: str = "127.0.0.1", receives: int | None = None) -> None:
        self.socket = socket.socket()
        if receives is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        self.socket.settimeout(PATIENCE_S)
        self.socket.bind((source, 0))
        self.socket.connect(("127.0.0.1", port))
        self._seen = bytearray()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def trickle(self, data: bytes, *, pause_s: float) -> None:
        """Send a byte at a time, until something comes or *data* is sent."""
        for at in range(len(data)):
            with suppress(OSError):
                self.socket.sendall(data[at : at + 1])
            if select.select([self.socket], [], [], pause_s)[0]:
                return

    def head(self) -> Answer:
        """Return the next answer without its body."""
        while b"\r\n\r\n" not in self._seen:
            self._more()
        head, _, self._seen = self._seen.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        return Answer(int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), b"")

    def answer(self) -> Answer:
        """Return the next answer."""
        head = self.head()
        if head.status < 200:
            return head
        length = int(head.fields["content-length"])
        while len(self._seen) < length:
            self._more()
        body, self._seen = bytes(self._seen[:length]), self._seen[length:]
        return replace(head, body=body)

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to *mark*, which is the last of it."""
        while mark not in self._seen:
            self._more()
        seen, _, self._seen = self._seen.partition(mark)
        return bytes(seen) + mark

    def _more(self) -> None:
        came = self.socket.recv(65536)
        if not came:
            raise ConnectionError(f"it ended with {bytes(self._seen[:200])!r}")
        self._seen += came

    def rest(self) -> bytes:
        """Return everything until the end."""
        with suppress(ConnectionResetError):
            while came := self.socket.recv(2**20):
                self._seen += came
        rest, self._seen = bytes(self._seen), bytearray()
        return rest

    def ended(self) -> bool:
        """Whether the connection ends; waits for that."""
        return self.rest() == b""

    def close(self) -> None:
        self.socket.close()


@contextmanager
def wires(port: int, number: int, *, source: str = "127.0.0.1", receives: int | None = None) -> Iterator[list[Wire]]:
    """Open *number* connections for the length of the block."""
    with ExitStack() as opened:
        yield [opened.enter_context(wire(port, source=source, receives=receives)) for _ in range(number)]


@contextmanager
def wire(port: int, *, source: str = "127.0.0.1", receives: int | None = None) -> Iterator[Wire]:
    """Open a connection for the length of the block."""
    opened = Wire(port, source=source, receives=receives)
    try:
        yield opened
    finally:
        opened.close()
