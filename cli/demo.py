"""`demo`: a real artifact registered and a tampered one refused, through every real part."""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO

import click
from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.command.terminal import say
from plugin_registry_client.errors import REFUSED

from cli.embedded import embedded_registry, end_on_sigterm

ARTIFACT_BYTES = 64 * 2**20
SERVED_BYTES_PER_S = 24 * 2**20
"""Slower than loopback, so that there is progress to see."""


@click.command()
def demo() -> None:
    """Show a real artifact registered and a tampered one refused."""
    end_on_sigterm()
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        del os.environ[name]  # a demonstration has settings, a store and a token of its own
    with tempfile.TemporaryDirectory(prefix="plugin-registry-demo-") as name:
        folder = Path(name)
        say("Building a plugin archive of 64 MiB and a tampered copy of it ...")
        good, tampered = _build_archives(folder)
        say("Starting a registry of its own: Valkey, api, a worker and beat ...")
        with _served(folder) as origin, _registry(folder / "state", origin) as environment:
            say("", "1. The real one. The registry downloads it and hashes it as it streams.", "")
            first = _register(environment, "nginx-log-collector", f"{origin}/{good.name}", good)
            say("", "2. The tampered copy, under the digest of the real one.", "")
            second = _register(environment, "nginx-log-collector-2", f"{origin}/{tampered.name}", good)
            say("", "Stopping everything ...")
    if (first, second) != (0, REFUSED):
        raise Refusal(f"The demo should end with 0 and {REFUSED}, but ended with {first} and {second}.")
    say("Both ended as they should: what matches is listed, what does not is not.")


def _build_archives(folder: Path) -> tuple[Path, Path]:
    content = folder / "content"
    content.mkdir()
    (content / "plugin.json").write_text('{"name": "nginx-log-collector", "runtime": "go"}\n')
    (content / "collector").write_bytes(os.urandom(ARTIFACT_BYTES))
    good, tampered = folder / "nginx-log-collector-2.1.0.tar.gz", folder / "tampered-2.1.0.tar.gz"
    with tarfile.open(good, "w:gz", compresslevel=0) as archive:
        archive.add(content, arcname="nginx-log-collector-2.1.0")
    changed = bytearray(good.read_bytes())
    changed[len(changed) // 2] ^= 1  # one bit
    tampered.write_bytes(changed)
    return good, tampered


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *args: object, **options: object) -> None:
            super().__init__(*args, directory=str(folder), **options)  # type: ignore[arg-type]

        def copyfile(self, source: BinaryIO, outputfile: BinaryIO) -> None:  # type: ignore[override]
            while chunk := source.read(SERVED_BYTES_PER_S // 20):
                outputfile.write(chunk)
                time.sleep(1 / 20)

        def log_message(self, *_args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _registry(state: Path, origin: str) -> Iterator[dict[str, str]]:
    """Start a registry that may fetch from *origin*, which by default none may; yield a client's environment."""
    egress = {
        "REGISTRY_EGRESS_SCHEMES": "http",
        "REGISTRY_EGRESS_PORTS": origin.rpartition(":")[2],
        "REGISTRY_EGRESS_ALLOW_NETWORKS": "127.0.0.1/32",
    }
    with embedded_registry(state, host="127.0.0.1", port=0, workers=1, extra_environment=egress, quiet=True) as (
        address,
        folder,
        _supervisor,
    ):
        yield {**os.environ, "REGISTRY_URL": address, "REGISTRY_TOKEN": folder.token() or ""}


def _register(environment: dict[str, str], name: str, url: str, declared: Path) -> int:
    with declared.open("rb") as file:
        checksum = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    fields = ["--name", name, "--version", "2.1.0", "--type", "log", "--runtime", "go", "--url", url]
    command = [sys.executable, "-m", "plugin_registry_client", "register", *fields, "--checksum", checksum]
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603  # our own command
