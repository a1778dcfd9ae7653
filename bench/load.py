"""The load generator, a process of its own: ``python -m bench.load``.

So many connections, each of which sends its next request when the last was answered, over plain sockets and one
selector, because whatever it spends is missing to whom it measures. It prints one line of JSON.
"""

import argparse
import json
import os
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator

from bench.origin import small_checksum

ANY_CHECKSUM = f"sha256:{'0' * 64}"


def requests(
    host: str, artifacts: str, first: int, count: int, *, declare: bool, token: str | None = None
) -> Iterator[bytes]:
    """Yield registrations of *count* plugins; without *declare* the digests are not those of the artifacts."""
    token = token or os.environ.get("BENCH_TOKEN", "none")
    head = (
        f"POST /api/v1/plugins HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n"
        "Content-Type: application/json\r\nPrefer: respond-async\r\nContent-Length: "
    )
    for number in range(first, first + count):
        checksum = small_checksum(number) if declare else ANY_CHECKSUM
        body = json.dumps(
            {
                "name": f"plugin {number}",
                "version": "1.0.0",
                "pluginType": "log",
                "artifactUrl": f"{artifacts}/small/{number}",
                "checksum": checksum,
                "configSchema": "{}",
                "pluginRuntime": "go",
            }
        )
        yield f"{head}{len(body)}\r\n\r\n{body}".encode()


class Connection:
    """One client."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.wire = socket.create_connection(address)
        self.wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.asked_at = 0.0
        self._seen = b""

    def ask(self, request: bytes) -> None:
        self.asked_at = time.monotonic()
        self.wire.sendall(request)

    def answered(self) -> int:
        """Read what has come; return the status of the answer once it is there as a whole, else 0."""
        came = self.wire.recv(65536)
        if not came:
            raise ConnectionError("the server closed a connection")
        self._seen += came
        head, end, body = self._seen.partition(b"\r\n\r\n")
        if not end:
            return 0
        lower = head.lower()
        at = lower.index(b"content-length:")
        if len(body) < int(lower[at + 15 :].split(b"\r\n", 1)[0]):
            return 0
        self._seen = b""
        return int(head[9:12])


def drive(address: tuple[str, int], asking: Iterator[bytes], connections: int, seconds: float) -> dict[str, object]:
    """Send *asking* over *connections*, for *seconds* or until there is no more."""
    selector = selectors.DefaultSelector()
    statuses: Counter[int] = Counter()
    took: list[float] = []
    started = time.monotonic()
    end = started + seconds
    busy = 0
    for request in (next(asking, None) for _ in range(connections)):
        if request is not None:
            connection = Connection(address)
            selector.register(connection.wire, selectors.EVENT_READ, connection)
            connection.ask(request)
            busy += 1
    while busy:
        for key, _ in selector.select(60):
            connection = key.data
            status = connection.answered()
            if not status:
                continue
            now = time.monotonic()
            statuses[status] += 1
            took.append(now - connection.asked_at)
            following = next(asking, None) if now < end else None
            if following is None:
                busy -= 1
            else:
                connection.ask(following)
    ended = time.monotonic()
    took.sort()
    return {
        "started": started,
        "seconds": ended - started,
        "a_second": len(took) / (ended - started),
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
        "statuses": dict(statuses),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--artifacts", required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--connections", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--declare", action="store_true", help="declare the true digests")
    asked = parser.parse_args()
    address = ("127.0.0.1", asked.port)
    host = f"127.0.0.1:{asked.port}"
    asking = list(requests(host, asked.artifacts, asked.first, asked.count, declare=asked.declare))
    print(json.dumps(drive(address, iter(asking), asked.connections, asked.seconds)))


if __name__ == "__main__":
    main()
