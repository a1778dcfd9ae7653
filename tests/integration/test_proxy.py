"""With an egress proxy set, every connection goes to it and to nothing else."""

import asyncio
import base64
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import trustme

from shared.registration import Registration, Status
from shared.settings import Settings, read_settings
from shared.store.database import Database
from tests.conftest import a_parsed_submission
from tests.contracts import now, submit
from tests.verifying import Verifying
from worker.fetch import dial as connect
from worker.fetch import resolver as lookups

BODY = b"through the proxy" * 100
CHECKSUM = f"sha256:{hashlib.sha256(BODY).hexdigest()}"
HOST = "artifacts.example.com"


class Proxy:
    """A forward proxy that answers for every host by itself: plainly, and through CONNECT as that host."""

    def __init__(self, authority: trustme.CA) -> None:
        self.asked: list[list[str]] = []
        self.connections = 0
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(HOST).configure_cert(self._context)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._answer, args=(wire,), daemon=True).start()

    def _answer(self, wire: socket.socket) -> None:
        with suppress(OSError), wire:
            while lines := self._head(wire):
                self.asked.append(lines)
                if lines[0].startswith("CONNECT "):
                    wire.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    with self._context.wrap_socket(wire, server_side=True) as inner:
                        self._answer(inner)
                    return
                wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)

    @staticmethod
    def _head(wire: socket.socket) -> list[str]:
        received = b""
        while b"\r\n\r\n" not in received:
            more = wire.recv(4096)
            if not more:
                return []
            received += more
        return received.decode().split("\r\n")

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def proxy(authority: trustme.CA) -> Iterator[Proxy]:
    proxy = Proxy(authority)
    yield proxy
    proxy.close()


@pytest.fixture
def looked_up(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note every name that is resolved."""
    names: list[str] = []
    system = lookups._system_look_up

    def look_up(host: str, port: int) -> Iterator[str]:
        names.append(host)
        return system(host, port)

    monkeypatch.setattr(lookups, "_system_look_up", look_up)
    return names


def settings_for(proxy_url: str, tmp_path: Path, authority: trustme.CA, **more: object) -> Settings:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return read_settings(
        database_url=f"sqlite:///{tmp_path / 'registry.db'}",
        egress_schemes="http,https",
        egress_ports="80,443",
        egress_ca_file=tmp_path / "ca.pem",
        egress_proxy=proxy_url,
        max_attempts=1,
        **more,
    )


def ended(settings: Settings, database: Database, url: str) -> Registration:
    with closing(Verifying(settings, database)) as verifier:
        return ended_by(verifier, url)


def ended_by(verifier: Verifying, url: str) -> Registration:
    registration = submit(verifier.store, a_parsed_submission(artifactUrl=url, checksum=CHECKSUM))
    verifier.verify(registration.id)
    return now(verifier.store, registration.id)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_every_connection_goes_to_the_proxy_and_no_name_is_resolved_but_its_own(
    scheme: str,
    proxy: Proxy,
    authority: trustme.CA,
    database: Database,
    tmp_path: Path,
    looked_up: list[str],
) -> None:
    settings = settings_for(f"http://me:secret@127.0.0.1:{proxy.port}", tmp_path, authority)
    registration = ended(settings, database, f"{scheme}://{HOST}/plugin.tar.gz")
    assert registration.status is Status.REGISTERED, registration.failure
    assert looked_up == []
    first = proxy.asked[0]
    asked = {"http": f"GET http://{HOST}/plugin.tar.gz", "https": f"CONNECT {HOST}:443"}
    assert first[0].rpartition(" ")[0] == asked[scheme]
    assert f"Proxy-Authorization: Basic {base64.b64encode(b'me:secret').decode()}" in first
    if scheme == "https":
        assert proxy.asked[1][0] == "GET /plugin.tar.gz HTTP/1.1"
        assert not any("Proxy-Authorization" in line for line in proxy.asked[1]), "that is not for the origin"


@pytest.mark.parametrize(
    ("url", "lines"),
    [
        ("HTTP://Artifacts.example.com/a?b", ["GET http://artifacts.example.com/a?b", "Host: artifacts.example.com"]),
        ("http://artifacts.example.com?b", ["GET http://artifacts.example.com/?b", "Host: artifacts.example.com"]),
        ("https://[2606:4700::1]/a", ["CONNECT [2606:4700::1]:443", "Host: [2606:4700::1]:443"]),
    ],
)
def test_the_proxy_is_told_one_name_in_one_way(
    url: str,
    lines: list[str],
    proxy: Proxy,
    authority: trustme.CA,
    database: Database,
    tmp_path: Path,
) -> None:
    ended(settings_for(f"http://127.0.0.1:{proxy.port}", tmp_path, authority), database, url)
    asked = proxy.asked[0]
    assert asked[0].rpartition(" ")[0] == lines[0]
    assert [each for each in asked if each.startswith("Host:")] == lines[1:]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_to_a_proxy_is_used_for_a_second_download(
    scheme: str, proxy: Proxy, authority: trustme.CA, database: Database, tmp_path: Path
) -> None:
    settings = settings_for(f"http://127.0.0.1:{proxy.port}", tmp_path, authority)
    with closing(Verifying(settings, database)) as verifier:
        for _ in range(2):
            assert ended_by(verifier, f"{scheme}://{HOST}/plugin.tar.gz").status is Status.REGISTERED
    assert proxy.connections == 2
    assert "Connection: close" in proxy.asked[-1]


def test_a_connection_to_anything_but_the_proxy_is_never_made(looked_up: list[str]) -> None:
    dial = connect.ProxyDialer("http://127.0.0.1:3128", connect_timeout_s=1, resolve=lookups.Resolver())
    for host, port in (("127.0.0.1", 3129), (HOST, 3128)):
        with pytest.raises(RuntimeError, match="nothing else"):
            asyncio.run(dial(host, port, ""))
    assert looked_up == []


def test_the_url_policy_holds_with_a_proxy_too(
    proxy: Proxy, authority: trustme.CA, database: Database, tmp_path: Path
) -> None:
    settings = settings_for(f"http://127.0.0.1:{proxy.port}", tmp_path, authority)
    for url in ("http://10.0.0.1/a", "http://localhost/a", f"http://{HOST}:22/a"):
        registration = ended(settings, database, url)
        assert registration.status is Status.REJECTED
    assert proxy.asked == []


def test_a_proxy_that_is_away_is_not_the_submitters_fault_to_mend(
    authority: trustme.CA, database: Database, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    registration = ended(settings_for(f"http://127.0.0.1:{port}", tmp_path, authority), database, f"http://{HOST}/a")
    assert registration.status is Status.FAILED
    assert registration.failure is not None
    assert registration.failure.cause == "proxy-away"
    assert str(port) not in registration.failure.detail
