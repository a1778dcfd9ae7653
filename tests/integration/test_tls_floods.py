"""TLS that says much and holds nothing: the loop is everybody's all along, and such a host is refused by name."""

import asyncio
import hashlib
import hmac
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import BadResponse
from tests.running import PATIENCE_S
from worker.fetch.client import CIPHERS
from worker.fetch.wire import LOOP_RAW_BYTES, MAX_EXCESS_BYTES, Wire

HOST = "evil.example"
SENT_BYTES = 8 * MAX_EXCESS_BYTES
Flood = Callable[[socket.socket], None]


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def host() -> Iterator[Callable[[Flood], int]]:
    """Starts a host that treats its one connection as it is told; returns its port."""
    listeners: list[socket.socket] = []

    def start(flood: Flood) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    flood(connection)

        threading.Thread(target=serve, daemon=True).start()
        port: int = listener.getsockname()[1]
        return port

    yield start
    for each in listeners:
        each.close()


def hello_requests(connection: socket.socket) -> None:
    """Before any handshake: messages of four bytes that mean nothing, in records as large as they may be."""
    connection.recv(65536)
    record = b"\x16\x03\x03\x40\x00" + b"\0\0\0\0" * 4096
    for _ in range(SENT_BYTES // len(record)):
        connection.sendall(record)
    connection.recv(1)


def tickets_of(authority: trustme.CA, folder: Path) -> Flood:
    """After a handshake that is in order: session tickets, 888 to a record, with the keys of the connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(HOST).configure_cert(context)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    context.keylog_filename = str(folder / "keys")

    def flood(connection: socket.socket) -> None:
        arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(arrived, leaving, server_side=True)
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(leaving.read())
                arrived.write(connection.recv(65536))
        connection.sendall(leaving.read())
        cipher = tls.cipher()
        assert cipher is not None
        lines = (folder / "keys").read_text().splitlines()
        (secret,) = (bytes.fromhex(each.split()[2]) for each in lines if each.startswith("SERVER_TRAFFIC_SECRET_0"))
        key = _expanded(secret, "key", 32 if "256_GCM" in cipher[0] else 16, cipher[0])
        iv = _expanded(secret, "iv", 12, cipher[0])
        body = b"\0\1\x51\x80" + b"\0\0\0\0" + b"\0" + b"\0\1" + b"x" + b"\0\0"
        ticket = b"\x04" + len(body).to_bytes(3, "big") + body
        inner = ticket * (16_000 // len(ticket)) + b"\x16"
        for number in range(SENT_BYTES // len(inner)):
            head = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
            nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
            connection.sendall(head + AESGCM(key).encrypt(nonce, inner, head))
        connection.recv(1)

    return flood


def _expanded(secret: bytes, label: str, size: int, cipher: str) -> bytes:
    """RFC 8446 section 7.1, HKDF-Expand-Label."""
    name = f"tls13 {label}".encode()
    info = struct.pack(">HB", size, len(name)) + name + b"\0"
    return hmac.new(secret, info + b"\x01", hashlib.sha384 if "384" in cipher else hashlib.sha256).digest()[:size]


async def asked(port: int, authority: trustme.CA, steps: list[int]) -> None:
    """Connect, shake hands, and read, beside a task that notes each of its turns in which something has happened."""

    async def others() -> None:
        seen = 0
        while True:
            await asyncio.sleep(0)
            if wire._raw_bytes != seen:
                seen = wire._raw_bytes
                steps.append(seen)

    context = ssl.create_default_context()
    authority.configure_trust(context)
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    wire, raw, beside = Wire(sock), bytearray(LOOP_RAW_BYTES), asyncio.create_task(others())
    try:
        await wire.begin_tls(context, HOST, raw, PATIENCE_S)
        await wire.receive(memoryview(bytearray(65536)), raw, PATIENCE_S)
    finally:
        beside.cancel()
        wire.close()


@pytest.mark.parametrize("kind", ["before the handshake", "after it"])
def test_a_flood_of_tls_without_content_is_refused_and_holds_nobody_up(
    host: Callable[[Flood], int], authority: trustme.CA, tmp_path: Path, kind: str
) -> None:
    flood = hello_requests if kind == "before the handshake" else tickets_of(authority, tmp_path)
    steps: list[int] = []
    with pytest.raises(BadResponse) as refused:
        asyncio.run(asked(host(flood), authority, steps))
    assert refused.value.cause == "tiny-records"
    assert len(steps) > MAX_EXCESS_BYTES // LOOP_RAW_BYTES // 2, "others had their turn all along"


def test_a_host_cannot_choose_a_key_exchange_that_takes_us_a_second() -> None:
    """Finite-field Diffie-Hellman, whose prime the server sends: 10,000 bits of it are a second of CPU time."""
    context = ssl.create_default_context()
    context.set_ciphers(CIPHERS)
    ours = {each["name"] for each in context.get_ciphers()}
    assert not [each for each in ours if each.startswith(("DHE-", "DH-", "ADH-"))]
    assert {"ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "TLS_AES_128_GCM_SHA256"} <= ours
