"""A link between two processes that can be held up, go dead in silence, or lose one reply."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import make_url


@dataclass(eq=False)
class Wire:
    """One connection through the proxy."""

    client: socket.socket
    server: socket.socket
    dead: bool = False
    """Nothing passes any more, and nobody is told."""
    losing: bool = False
    """The next thing the server says is lost, and the connection with it."""
    said: bytes = b""
    """What the client has said last."""

    def close(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class Proxy:
    """Passes connections on to where *connect* leads."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.wires: list[Wire] = []
        self.held: set[Wire] = set()
        """Connections whose client said something that was not passed on."""
        self.replies_lost = 0
        self.lose_reply_to: Callable[[Wire, bytes], bool] = lambda _wire, _said: False
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def hold(self) -> None:
        """Pass on nothing that clients say, until `release`, but what opens a connection: that would not wait."""
        self._flowing.clear()

    def release(self) -> None:
        """Pass on what was held, and all that follows."""
        self._flowing.set()

    def sever(self) -> None:
        """Let every present connection go dead in silence: it stays open, and nothing passes. New ones work."""
        for wire in self.wires:
            wire.dead = True
        self._flowing.set()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self.sever()
        for wire in self.wires:
            wire.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _address = self._listener.accept()
                try:
                    wire = Wire(client, self._connect())
                except OSError:
                    client.close()
                    continue
                self.wires.append(wire)
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(wire,), daemon=True).start()

    def _to_server(self, wire: Wire) -> None:
        with suppress(OSError):
            while said := wire.client.recv(65536):
                if wire.said and not self._flowing.is_set():
                    self.held.add(wire)
                    self._flowing.wait()
                if wire.dead:
                    continue
                wire.losing = self.lose_reply_to(wire, said)
                wire.said = (wire.said + said)[-65536:]
                wire.server.sendall(said)
        if not wire.dead:
            wire.close()

    def _to_client(self, wire: Wire) -> None:
        with suppress(OSError):
            while said := wire.server.recv(65536):
                if wire.dead:
                    continue
                if wire.losing:
                    self.replies_lost += 1
                    break
                wire.client.sendall(said)
        if not wire.dead:
            wire.close()


def proxy_to_port(port: int) -> Proxy:
    """Return a proxy to a port of this machine."""
    return Proxy(lambda: socket.create_connection(("127.0.0.1", port)))


def proxy_to_database(url: str) -> tuple[Proxy, str]:
    """Return a proxy to the PostgreSQL of *url*, and the URL that leads through it."""
    parts = make_url(url)
    folder = parts.query.get("host")

    def connect() -> socket.socket:
        if not isinstance(folder, str):
            return socket.create_connection((parts.host or "127.0.0.1", parts.port or 5432))
        wire = socket.socket(socket.AF_UNIX)
        wire.connect(f"{folder}/.s.PGSQL.{parts.port or 5432}")
        return wire

    proxy = Proxy(connect)
    through = parts.set(host="127.0.0.1", port=proxy.port, query={"sslmode": "disable"})
    return proxy, through.render_as_string(hide_password=False)
