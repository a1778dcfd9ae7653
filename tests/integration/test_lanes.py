"""What is large and fast goes to a lane, comes back when it turns slow, and can be cut off there."""

import hashlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trustme

from shared.registration import Registration, Status
from shared.settings import read_settings
from shared.store.database import Database
from tests.conftest import a_parsed_submission
from tests.contracts import now, submit
from tests.hostile_server import ETAG, OK, Behaviour, HostileServer, Wire, tls_with
from tests.running import PATIENCE_S, until
from tests.verifying import Verifying
from worker.attempt import LeaseLost
from worker.digest import lanes

MIB = 2**20
CONTENT = hashlib.shake_128(b"artifact").digest(24 * MIB)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Watched(lanes.Lanes):
    """Lanes that note who came and went."""

    def __init__(self) -> None:
        super().__init__(2)
        self.came = self.went = 0

    async def read(self, *it: object) -> None:
        self.came += 1
        try:
            await super().read(*it)  # type: ignore[arg-type]
        finally:
            self.went += 1


@pytest.fixture(params=["http", "https"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> ssl.SSLContext | None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tls_with(authority.issue_cert("127.0.0.1")) if request.param == "https" else None


@pytest.fixture
def verifier(database: Database, tmp_path: Path, tls: ssl.SSLContext | None) -> Iterator[Verifying]:
    settings = read_settings(
        database_url=f"sqlite:///{tmp_path / 'registry.db'}",
        egress_schemes="http,https",
        egress_ports="1024-65535",
        egress_allow_networks="127.0.0.1/32",
        egress_ca_file=tmp_path / "ca.pem" if tls else None,
        max_attempts=1,
        read_timeout_s=PATIENCE_S,
    )
    with closing(Verifying(settings, database)) as verifier:
        verifier._client._lanes = Watched()
        yield verifier
        verifier._client._lanes.close()


def watched(verifier: Verifying) -> Watched:
    found = verifier._client._lanes
    assert isinstance(found, Watched)
    return found


def chunked(content: bytes, size: int) -> bytes:
    pieces = (content[start : start + size] for start in range(0, len(content), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"


def sized(wire: Wire) -> None:
    wire.head(OK, f"Content-Length: {len(CONTENT)}")
    wire.send(CONTENT)


def in_chunks(wire: Wire) -> None:
    wire.head(OK, "Transfer-Encoding: chunked")
    wire.send(chunked(CONTENT, 50_000))


def to_the_end(wire: Wire) -> None:
    wire.head(OK)
    wire.send(CONTENT)


def with_pauses(wire: Wire) -> None:
    """Be fast, be slow, be fast again: it goes to a lane, comes back, and goes again."""
    wire.head(OK, f"Content-Length: {len(CONTENT)}")
    third = len(CONTENT) // 3
    for start in range(0, len(CONTENT), third):
        wire.send(CONTENT[start : start + third])
        wire.pause(3 * lanes.PATIENCE_S)


def verified(verifier: Verifying, server: HostileServer) -> Registration:
    registration = submit(verifier.store, a_parsed_submission(artifactUrl=server.url, checksum=CHECKSUM))
    verifier.verify(registration.id)
    return now(verifier.store, registration.id)


def to_a_proper_end(wire: Wire) -> None:
    to_the_end(wire)
    if isinstance(wire._connection, ssl.SSLSocket):
        wire._connection.unwrap()


@pytest.mark.parametrize("behave", [sized, in_chunks, to_a_proper_end, with_pauses])
def test_what_is_large_and_fast_is_read_in_a_lane_whatever_its_framing(
    verifier: Verifying, tls: ssl.SSLContext | None, behave: Behaviour
) -> None:
    with HostileServer(behave, tls=tls) as server:
        ended = verified(verifier, server)
    assert ended.status is Status.REGISTERED, ended.failure
    assert ended.bytes_downloaded == len(CONTENT)
    came = watched(verifier).came
    assert came >= (2 if behave is with_pauses else 1)
    assert watched(verifier)._free == 2


def test_that_a_connection_breaks_is_no_end_in_a_lane_either(verifier: Verifying, tls: ssl.SSLContext | None) -> None:
    def reset(wire: Wire) -> None:
        to_the_end(wire)
        wire.reset()

    for behave in (reset, to_the_end) if tls else (reset,):
        with HostileServer(behave, tls=tls) as server:
            ended = verified(verifier, server)
        assert ended.failure is not None
        assert ended.failure.code == "truncated"


def test_one_that_breaks_in_a_lane_is_resumed(verifier: Verifying, tls: ssl.SSLContext | None) -> None:
    half = len(CONTENT) // 2

    def break_once(wire: Wire) -> None:
        asked = wire.await_request()
        if not asked.all("range"):
            wire.head(OK, ETAG, f"Content-Length: {len(CONTENT)}")
            wire.send(CONTENT[:half])
            return
        first = int(asked.all("range")[0].removeprefix("bytes=").removesuffix("-"))
        rest = f"Content-Range: bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
        wire.head("HTTP/1.1 206 Partial Content", ETAG, rest, f"Content-Length: {len(CONTENT) - first}")
        wire.send(CONTENT[first:])

    with HostileServer(break_once, tls=tls) as server:
        ended = verified(verifier, server)
    assert (ended.status, ended.attempts) == (Status.REGISTERED, 1), ended.failure
    assert watched(verifier).came >= 2


def test_one_is_cut_off_in_the_middle_of_a_lane(verifier: Verifying, tls: ssl.SSLContext | None) -> None:
    sent = threading.Event()

    def never_end(wire: Wire) -> None:
        wire.head(OK)
        while True:
            wire.send(CONTENT)
            sent.set()

    with HostileServer(never_end, tls=tls) as server:
        registration = submit(verifier.store, a_parsed_submission(artifactUrl=server.url, checksum=CHECKSUM))
        attempt = verifier.claimed(registration)
        caught: list[BaseException] = []

        def fetch() -> None:
            try:
                verifier.fetch(attempt, max_bytes=2**40)
            except LeaseLost as lost:
                caught.append(lost)

        fetching = threading.Thread(target=fetch)
        fetching.start()
        until(lambda: watched(verifier).came > watched(verifier).went, what="it in a lane")
        verifier.cut_off(attempt, LeaseLost("in the middle"))
        fetching.join(PATIENCE_S)
    assert len(caught) == 1
    assert watched(verifier)._free == 2, "the lane is free again"
    assert not [each for each in threading.enumerate() if each.name == "digest"]


def test_a_steady_stream_that_is_not_fast_leaves_its_lane(verifier: Verifying, tls: ssl.SSLContext | None) -> None:
    """It never pauses for long, and yet it does not keep a lane that a fast one could have."""

    def steady(wire: Wire) -> None:
        wire.head(OK, f"Content-Length: {len(CONTENT)}")
        wire.send(CONTENT[: 16 * MIB])
        for start in range(16 * MIB, len(CONTENT), 64 * 1024):
            wire.send(CONTENT[start : start + 64 * 1024])
            wire.pause(0.04)

    with HostileServer(steady, tls=tls) as server:
        registration = submit(verifier.store, a_parsed_submission(artifactUrl=server.url, checksum=CHECKSUM))
        verifier.offer([registration.id])
        until(lambda: watched(verifier).went == 1, what="its leaving the lane")
        assert now(verifier.store, registration.id).status is Status.VERIFYING
        verifier.verify(registration.id)
    assert now(verifier.store, registration.id).status is Status.REGISTERED
