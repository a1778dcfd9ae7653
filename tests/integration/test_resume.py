"""A broken download is resumed where the server allows it, and begun again where anything does not fit."""

import hashlib
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from shared.registration import Registration, Status
from shared.settings import read_settings
from shared.store.database import Database
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import now, submit
from tests.origin import Origin, Served
from tests.verifying import Verifying

CONTENT = bytes(range(256)) * 4096  # 1 MiB, in which no two offsets' rests are alike to a hash
PART = len(CONTENT) // 4


@dataclass
class Breaking:
    """A server whose answers break off after *part* bytes; what it says of itself can be made wrong."""

    content: bytes = CONTENT
    part: int = PART
    breaks: int = 3
    etag: str | None = '"v1"'
    ranges: bool = True
    content_range: Callable[[int, int], str] = lambda first, total: f"bytes {first}-{total - 1}/{total}"
    etag_of_rest: str | None = '"v1"'
    status_of_rest: int = 206
    shift: int = 0
    length_of_rest: bool = True
    reset: bool = False
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.asked.append((wanted, condition))
        found = re.fullmatch(r"bytes=([0-9]+)-", wanted or "")
        first = int(found[1]) if found and self.ranges and condition == self.etag else 0
        total = len(self.content)
        handler.send_response(self.status_of_rest if first else 200)
        first += self.shift if first else 0
        if self.length_of_rest or not first:
            handler.send_header("Content-Length", str(total - first))
        etag = self.etag_of_rest if first else self.etag
        if etag is not None:
            handler.send_header("ETag", etag)
        if first:
            handler.send_header("Content-Range", self.content_range(first, total))
        handler.send_header("Connection", "close")
        handler.end_headers()
        breaking = len(self.asked) <= self.breaks
        handler.wfile.write(memoryview(self.content)[first : first + self.part if breaking else total])
        handler.close_connection = True
        if breaking and self.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            handler.connection.close()


@pytest.fixture
def verifier(database: Database, origin: Origin, tmp_path: Path) -> Iterator[Verifying]:
    settings = read_settings(
        database_url=f"sqlite:///{tmp_path / 'registry.db'}",
        egress_schemes="http",
        egress_ports=str(origin.port),
        egress_allow_networks="127.0.0.1/32",
        max_attempts=1,
        fetch_deadline_s=600,
        read_timeout_s=60,
    )
    with closing(Verifying(settings, database)) as verifier:
        yield verifier


def verified(
    verifier: Verifying,
    store: Store,
    origin: Origin,
    server: Callable[[BaseHTTPRequestHandler], None],
    content: bytes = CONTENT,
) -> Registration:
    """Return how the registration of *content*, served by *server*, ended."""
    checksum = f"sha256:{hashlib.sha256(content).hexdigest()}"
    url = origin.serve(Served(handle=server))
    registration = submit(store, a_parsed_submission(artifactUrl=url, checksum=checksum))
    verifier.verify(registration.id)
    return now(store, registration.id)


@pytest.mark.parametrize("reset", [False, True])
def test_a_download_goes_on_where_it_broke(verifier: Verifying, store: Store, origin: Origin, reset: bool) -> None:
    server = Breaking(reset=reset)
    ended = verified(verifier, store, origin, server)
    assert (ended.status, ended.attempts) == (Status.REGISTERED, 1)
    assert ended.bytes_downloaded == len(CONTENT)
    assert server.asked[0] == (None, None)
    offsets = [int(str(wanted)[6:-1]) for wanted, _ in server.asked[1:]]
    assert len(offsets) == 3
    assert offsets == sorted(set(offsets))
    assert all(condition == '"v1"' for _, condition in server.asked[1:])
    if not reset:  # a reset throws away what was sent and not yet read
        assert offsets == [PART, 2 * PART, 3 * PART]


def test_two_gibibytes_on_a_link_that_breaks_ten_times_verify(
    verifier: Verifying, store: Store, origin: Origin
) -> None:
    content = CONTENT * 2048
    server = Breaking(content=content, part=len(content) // 11 + 1, breaks=10)
    ended = verified(verifier, store, origin, server, content)
    assert (ended.status, ended.attempts) == (Status.REGISTERED, 1)
    assert len(server.asked) == 11


@pytest.mark.parametrize("etag", [None, 'W/"v1"', "v1", '"a"b"'])
def test_without_a_strong_validator_nothing_is_resumed(
    verifier: Verifying, store: Store, origin: Origin, etag: str | None
) -> None:
    server = Breaking(etag=etag, etag_of_rest=etag, breaks=1)
    ended = verified(verifier, store, origin, server)
    assert ended.status is Status.FAILED
    assert ended.failure is not None
    assert ended.failure.code == "truncated"
    assert server.asked == [(None, None)]


def test_a_whole_answer_to_a_range_begins_from_byte_0(verifier: Verifying, store: Store, origin: Origin) -> None:
    ended = verified(verifier, store, origin, Breaking(ranges=False, breaks=1))
    assert ended.status is Status.REGISTERED
    assert ended.bytes_downloaded == len(CONTENT)


def test_a_changed_artifact_begins_from_byte_0(verifier: Verifying, store: Store, origin: Origin) -> None:
    new = b"new" * 1000
    old = Breaking(breaks=1)

    def changing(handler: BaseHTTPRequestHandler) -> None:
        if old.asked:
            served = replace(old, content=new, etag='"v2"', breaks=0, asked=[])
            served(handler)
        else:
            old(handler)

    checksum = f"sha256:{hashlib.sha256(new).hexdigest()}"
    url = origin.serve(Served(handle=changing))
    registration = submit(store, a_parsed_submission(artifactUrl=url, checksum=checksum))
    verifier.verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED


@pytest.mark.parametrize(
    "server",
    [
        Breaking(breaks=1, content_range=lambda first, total: f"bytes {first + 1}-{total - 1}/{total}"),
        Breaking(breaks=1, content_range=lambda first, total: f"bytes {first}-{total - 2}/{total}"),
        Breaking(breaks=1, content_range=lambda first, total: f"bytes {first}-{total}/{total + 1}"),
        Breaking(breaks=1, content_range=lambda first, total: f"bytes {first}-{total - 1}/*"),
        Breaking(breaks=1, content_range=lambda first, total: "nonsense"),
        Breaking(breaks=1, etag_of_rest='"v2"'),
        Breaking(
            breaks=1, length_of_rest=False, content_range=lambda first, total: f"bytes {first}-{total}/{total + 1}"
        ),
        Breaking(breaks=1, shift=1),
        Breaking(breaks=1, shift=-1),
    ],
    ids=[
        "wrong-first",
        "wrong-last",
        "wrong-total",
        "no-total",
        "nonsense",
        "changed-validator",
        "wrong-total-no-length",
        "too-far",
        "too-near",
    ],
)
def test_a_rest_that_does_not_fit_is_never_hashed_onto_what_we_have(
    verifier: Verifying, store: Store, origin: Origin, server: Breaking
) -> None:
    server.asked.clear()
    ended = verified(verifier, store, origin, server)
    assert ended.status is Status.REGISTERED, ended.failure
    assert server.asked[-1] == (None, None), "begun again from byte 0"


def test_a_rest_that_calls_itself_the_whole_is_asked_for_again(
    verifier: Verifying, store: Store, origin: Origin
) -> None:
    ended = verified(verifier, store, origin, Breaking(breaks=1, status_of_rest=200))
    assert ended.status is Status.REGISTERED


@pytest.mark.parametrize("total", [2**20 * 8 + 1, 10**18 - 1, 10**19 - 1])
def test_a_rest_that_makes_the_artifact_too_large_is_refused(
    database: Database, store: Store, origin: Origin, tmp_path: Path, total: int
) -> None:
    """And what no store can hold is never noted: it would be in one statement with everybody's leases."""
    settings = read_settings(
        database_url=f"sqlite:///{tmp_path / 'registry.db'}",
        egress_schemes="http",
        egress_ports=str(origin.port),
        egress_allow_networks="127.0.0.1/32",
        max_attempts=1,
        max_artifact_bytes=8 * 2**20,
    )
    asked: list[str | None] = []

    def server(handler: BaseHTTPRequestHandler) -> None:
        wanted = handler.headers.get("Range")
        asked.append(wanted)
        handler.send_response(206 if wanted else 200)
        handler.send_header("ETag", '"v1"')
        if wanted:
            handler.send_header("Content-Range", f"bytes {wanted[6:-1]}-{total - 1}/{total}")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT))
        if len(asked) > 2:
            handler.wfile.write(b"0\r\n\r\n")
        handler.close_connection = True

    with closing(Verifying(settings, database)) as verifier:
        ended = verified(verifier, store, origin, server)
    if total < 10**18:
        assert ended.failure is not None
        assert ended.failure.code == "artifact-too-large"
        assert len(asked) == 2, "as soon as it says so"
    else:
        assert ended.status is Status.REGISTERED, "that is no Content-Range, and so the whole was asked for again"


def test_a_server_that_always_breaks_is_given_up(verifier: Verifying, store: Store, origin: Origin) -> None:
    for server in (Breaking(breaks=10**6, ranges=False), Breaking(breaks=10**6, part=0)):
        ended = verified(verifier, store, origin, server)
        assert ended.status is Status.FAILED
        assert ended.failure is not None
        assert ended.failure.code == "truncated", "before its deadline"
        assert len(server.asked) < 10
