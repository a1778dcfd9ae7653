"""Is an honest server's artifact verified as fast as before? This checkout against another revision, in turn.

    python bench/honest.py REVISION [--rounds 7] [--large-mib 256] [--small 300]

Each round starts a fresh process of either revision on the same loopback server, and times the worker's
whole path for one artifact after the other: claim, fetch, hash, settle on SQLite. Medians and ratios are
printed; what is above 1.0 is slower than REVISION.
"""

import argparse
import hashlib
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


class Server:
    """Serves one small and one large body from memory, as fast as a socket takes them."""

    def __init__(self, large_bytes: int) -> None:
        self.bodies = {"/small": os.urandom(4096), "/large": os.urandom(2**20) * (large_bytes // 2**20)}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            wire, _ = self._listener.accept()
            threading.Thread(target=self._answer, args=(wire,), daemon=True).start()

    def _answer(self, wire: socket.socket) -> None:
        with wire:
            request = wire.recv(65536).decode()
            body = self.bodies[request.split(" ")[1]]
            wire.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
            wire.sendall(body)


def measure(url: str, checksum: str, count: int) -> float:
    """Return the seconds that *count* verifications take, in this process and with the code on its path."""
    from shared.registration import Accepted, Submission  # noqa: PLC0415
    from shared.settings import read_settings  # noqa: PLC0415
    from shared.store.database import open_database  # noqa: PLC0415  # of the revision that is measured
    from shared.store.schema import migrate  # noqa: PLC0415
    from worker.running import Running  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        settings = read_settings(
            database_url=f"sqlite:///{folder}/registry.db",
            egress_schemes="http",
            egress_ports=url.split(":")[2].split("/", maxsplit=1)[0],
            egress_allow_networks="127.0.0.1/32",
        )
        database = open_database(settings.database_url)
        migrate(database)
        running = Running(settings, database)
        ids = []
        for number in range(count + 1):
            fields = {"name": f"p{number}", "version": "1.0.0", "pluginType": "log"}
            submission = Submission.model_validate({**fields, "artifactUrl": url, "checksum": checksum})
            (accepted,) = running.store.submit([(submission, "bench")])
            assert isinstance(accepted, Accepted)
            ids.append(accepted.registration.id)
        running.offer(ids[:1])
        running.wait_for(ids[:1])
        started = time.perf_counter()
        for registration_id in ids[1:]:
            running.offer([registration_id])
            running.wait_for([registration_id])
        seconds = time.perf_counter() - started
        assert len(running.store.plugins(limit=200)) == min(count + 1, 200)
        return seconds


def run(tree: Path, url: str, checksum: str, count: int) -> float:
    """Return what `measure` returns in a fresh process with *tree*'s code."""
    done = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps([url, checksum, count])],
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
        cwd=tree,
    )
    return float(done.stdout.decode().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("revision", nargs="?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--large-mib", type=int, default=256)
    parser.add_argument("--small", type=int, default=300)
    parser.add_argument("--measure")
    asked = parser.parse_args()
    if asked.measure:
        sys.path.insert(0, os.environ["PYTHONPATH"])
        print(measure(*json.loads(asked.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        before = Path(folder) / "before"
        subprocess.run(["git", "clone", "-q", str(HERE), str(before)], check=True)
        subprocess.run(["git", "-C", str(before), "checkout", "-q", asked.revision], check=True)
        server = Server(asked.large_mib * 2**20)
        for path, count in (("/small", asked.small), ("/large", 4)):
            url = f"http://127.0.0.1:{server.port}{path}"
            checksum = f"sha256:{hashlib.sha256(server.bodies[path]).hexdigest()}"
            pairs = []
            for number in range(asked.rounds):
                print(f"\r{path[1:]}: round {number + 1} of {asked.rounds}", end="", file=sys.stderr, flush=True)
                pairs.append((run(HERE, url, checksum, count) / count, run(before, url, checksum, count) / count))
            ours, theirs = ([pair[side] * 1000 for pair in pairs] for side in (0, 1))
            ratio = statistics.median(a / b for a, b in pairs)
            print(
                f"\r{path[1:]:<6} now {statistics.median(ours):9.2f} ms ({min(ours):.2f} to {max(ours):.2f})   "
                f"{asked.revision} {statistics.median(theirs):9.2f} ms ({min(theirs):.2f} to {max(theirs):.2f})   "
                f"ratio {ratio:.3f}"
            )


if __name__ == "__main__":
    main()
