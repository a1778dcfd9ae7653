"""What comes in: the digest is what hashlib says, whatever the pieces, and nothing is taken past the limit."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.errors import ArtifactTooLarge
from shared.registration import Digest
from worker.digest.diagnose import SMALL_BYTES
from worker.digest.intake import HEAD_BYTES, Intake


@pytest.fixture(params=["inline", "beside"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything holds for both ways of hashing, and no thread is left behind."""
    yield request.param
    assert not [each for each in threading.enumerate() if each.name == "digest"]


both_ways = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def hashing(intake: Intake, way: str) -> AbstractContextManager[None]:
    return intake.hashing_beside() if way == "beside" else nullcontext()


def taken(way: str, *pieces: bytes, max_bytes: int = 2**30) -> Intake:
    intake = Intake(max_bytes=max_bytes)
    with hashing(intake, way):
        for piece in pieces:
            intake.take(piece)
    return intake


@both_ways
@given(st.lists(st.binary(max_size=100)))
def test_a_digest_does_not_depend_on_the_pieces(way: str, pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    assert taken(way, *pieces).digest() == Digest(hashlib.sha256(whole).hexdigest(), len(whole))


@both_ways
@given(before=st.lists(st.binary(max_size=50)), after=st.lists(st.binary(max_size=50)))
def test_what_begins_again_is_hashed_from_its_beginning(way: str, before: list[bytes], after: list[bytes]) -> None:
    intake = taken(way, *before)
    intake.begin_again()
    with hashing(intake, way):
        for piece in after:
            intake.take(piece)
    assert intake.digest() == taken("inline", *after).digest()
    assert intake.head == b"".join(after)


@both_ways
@given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.booleans())
def test_one_goes_on_where_the_other_was(way: str, pieces: list[bytes], first_beside: bool) -> None:
    """As a body does that goes to a lane and comes back."""
    intake, half = Intake(max_bytes=2**30), len(pieces) // 2
    for part, beside in ((pieces[:half], first_beside), (pieces[half:], not first_beside)):
        with hashing(intake, "beside" if beside else "inline"):
            for piece in part:
                intake.take(piece)
    assert intake.digest().sha256 == hashlib.sha256(b"".join(pieces)).hexdigest()


def test_one_byte_too_many_is_refused_and_not_hashed(way: str) -> None:
    assert taken(way, b"1234", b"5678", max_bytes=8).size_bytes == 8
    intake = taken(way, b"1234", b"5678", max_bytes=8)
    before = intake._sha256.hexdigest()
    with pytest.raises(ArtifactTooLarge), hashing(intake, way):
        intake.take(b"9")
    assert intake._sha256.hexdigest() == before


@pytest.mark.parametrize("piece_bytes", [1000, SMALL_BYTES // 2, 3 * SMALL_BYTES])
@pytest.mark.parametrize("announced", [False, True])
def test_of_a_large_artifact_little_is_remembered(way: str, piece_bytes: int, announced: bool) -> None:
    whole = bytes(range(256)) * (4 * SMALL_BYTES // 256)
    intake = Intake(max_bytes=2**30)
    intake.total_bytes = len(whole) if announced else None
    most = 0
    with hashing(intake, way):
        for start in range(0, len(whole), piece_bytes):
            intake.take(whole[start : start + piece_bytes])
            most = max(most, len(intake.head))
    assert intake.head == whole[:HEAD_BYTES]
    assert most <= (HEAD_BYTES if announced else SMALL_BYTES)


def test_a_small_artifact_is_remembered_whole(way: str) -> None:
    whole = b"x" * SMALL_BYTES
    intake = taken(way, whole[:100], whole[100:])
    assert intake.head == whole
