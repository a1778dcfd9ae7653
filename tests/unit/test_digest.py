"""The digest of a stream: what hashlib says, whatever the pieces, and never past the limit."""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ArtifactTooLarge
from shared.registration import Digest
from worker import digest as module
from worker.digest import digest


def pieces(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for chunk in chunks:
        yield offset, chunk
        offset += len(chunk)


@pytest.fixture(params=["inline", "beside"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Everything holds for both ways of hashing, and no thread is left behind."""
    if request.param == "beside":
        monkeypatch.setattr(module, "BESIDE_FROM_BYTES", 3)
    yield request.param
    assert not [each for each in threading.enumerate() if each.name == "digest"]


both_ways = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@both_ways
@given(st.lists(st.binary(max_size=100)))
def test_a_digest_does_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert digest(pieces(chunks), max_bytes=len(whole)) == Digest(hashlib.sha256(whole).hexdigest(), len(whole))


@both_ways
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.lists(st.binary(max_size=50), min_size=1))
def test_what_begins_again_is_hashed_afresh(first: list[bytes], second: list[bytes]) -> None:
    whole = b"".join(second)
    both = [*pieces(first), *pieces(second)]
    assert digest(both, max_bytes=10_000) == Digest(hashlib.sha256(whole).hexdigest(), len(whole))


@pytest.mark.parametrize("offset", [1, 2, 4, 5, 100])
def test_a_piece_that_leaves_a_gap_or_overlaps_is_never_hashed(offset: int) -> None:
    with pytest.raises(ValueError, match="after 3 bytes"):
        digest([(0, b"123"), (offset, b"456")], max_bytes=100)


def test_an_empty_artifact_has_the_digest_of_nothing() -> None:
    assert digest([], max_bytes=0).sha256 == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


@pytest.mark.parametrize("chunks", [[b"12345"], [b"1", b"2345"], [b"1234", b"", b"5"]])
def test_the_limit_is_the_last_size_that_passes(chunks: list[bytes]) -> None:
    assert digest(pieces(chunks), max_bytes=5).size_bytes == 5
    with pytest.raises(ArtifactTooLarge, match=r"\(4 bytes\)"):
        digest(pieces(chunks), max_bytes=4)


def test_nothing_is_taken_from_the_stream_after_the_chunk_that_is_too_much() -> None:
    chunks = iter([b"123", b"456", b"789"])
    with pytest.raises(ArtifactTooLarge):
        digest(pieces(chunks), max_bytes=5)
    assert list(chunks) == [b"789"]


def test_the_chunk_that_is_too_much_is_not_hashed() -> None:
    unhashable = cast("bytes", range(6))  # it has a length, and hashlib would refuse it, in either thread
    with pytest.raises(ArtifactTooLarge):
        digest([(0, unhashable)], max_bytes=5)


def test_large_chunks_are_hashed_while_the_next_one_arrives(way: str) -> None:
    seen: list[list[str]] = []

    def arriving() -> Iterator[tuple[int, bytes]]:
        for offset in range(0, 12, 4):
            yield offset, b"1234"
            seen.append([each.name for each in threading.enumerate()])

    assert digest(arriving(), max_bytes=100).sha256 == hashlib.sha256(b"1234" * 3).hexdigest()
    assert all(("digest" in names) is (way == "beside") for names in seen)


def test_a_stream_that_breaks_is_not_digested() -> None:
    def breaking() -> Iterator[tuple[int, bytes]]:
        yield 0, b"12345"
        raise ConnectionError("mine")

    with pytest.raises(ConnectionError, match="mine"):
        digest(breaking(), max_bytes=100)
