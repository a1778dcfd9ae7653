"""A real HTTP server on loopback whose answers a test decides."""

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

from tests.running import PATIENCE_S


@dataclass
class Served:
    """What one path answers, and what was asked of it."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event | None = None
    """Half of the body is held back until this is set."""
    handle: Callable[[BaseHTTPRequestHandler], None] | None = None
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def checksum(self) -> str:
        return f"sha256:{hashlib.sha256(self.body).hexdigest()}"


class Origin:
    """An artifact host: `serve` returns a URL of its own for each artifact."""

    def __init__(self) -> None:
        self.paths: dict[str, Served] = {}
        self.posted: list[tuple[str, dict[str, str], bytes]] = []
        """What was sent here by POST, which is answered 204: where, with which headers, what."""
        posted = self.posted
        self._numbers = count(1)
        paths = self.paths

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                served = paths.get(self.path.partition("?")[0], Served(status=404))
                served.requests.append(dict(self.headers.items()))
                if served.handle is not None:
                    served.handle(self)
                    return
                self.send_response(served.status)
                self.send_header("Content-Length", str(len(served.body)))
                for name, value in served.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                half = len(served.body) // 2 if served.gate else 0
                self.wfile.write(served.body[:half])
                self.wfile.flush()
                if served.gate:
                    served.gate.wait(PATIENCE_S)
                self.wfile.write(served.body[half:])

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                posted.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_args: object) -> None:
                """A client that leaves is no news."""

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serve(self, served: Served) -> str:
        """Serve *served* and return its URL."""
        path = f"/artifact-{next(self._numbers)}.tar.gz"
        self.paths[path] = served
        return self.url + path

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
