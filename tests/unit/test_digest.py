"""The digest of a stream: what hashlib says, whatever the pieces, and never past the limit."""

import hashlib
from collections.abc import Iterable, Iterator
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import ArtifactTooLarge
from shared.registration import Digest
from worker.digest import digest


def pieces(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    offset = 0
    for chunk in chunks:
        yield offset, chunk
        offset += len(chunk)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=100)))
def test_a_digest_does_not_depend_on_the_chunks(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    assert digest(pieces(chunks), max_bytes=len(whole)) == Digest(hashlib.sha256(whole).hexdigest(), len(whole))


@settings(deadline=None)
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
    unhashable = cast("bytes", range(6))  # it has a length, and hashlib would refuse it
    with pytest.raises(ArtifactTooLarge):
        digest([(0, unhashable)], max_bytes=5)
