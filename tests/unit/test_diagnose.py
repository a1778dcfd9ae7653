"""Why digests differ: each cause is told, nothing of the body is, and honest content is not accused."""

import gzip
import hashlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bounded import within_cpu_s
from worker.digest.diagnose import SMALL_BYTES, Evidence, cause_of
from worker.digest.intake import Intake

DECLARED = "sha256:" + "ab" * 32
INNER = b"the content of the archive " * 100
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def checksum(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def evidence(
    body: bytes, *, declared: str = DECLARED, versions: dict[str, str] | None = None, encoding: str = ""
) -> Evidence:
    seen, versions = Intake(max_bytes=2**30), versions or {}
    for start in range(0, len(body), 1000):
        seen.take(body[start : start + 1000])
    computed = checksum(body)
    return Evidence(
        declared,
        computed,
        len(body),
        bool(encoding),
        versions.get(computed),
        versions.get(declared),
        bytes(seen.head),
    )


def cause(body: bytes, **known: Any) -> str:
    found = cause_of(evidence(body, **known))
    assert "secret" not in found.sentence
    return found.word


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "empty-body"),
        (b"<!DOCTYPE html><html>secret", "html-page"),
        (b"\r\n  <!-- secret -->\n<HTML lang=en>", "html-page"),
        (b"<html>" + b"x" * (2 * SMALL_BYTES), "html-page"),
        (POINTER, "git-lfs-pointer"),
        (b"ab" * 32 + b"  secret-1.0.tar.gz\n", "checksum-file"),
        (b"ab" * 32, "checksum-file"),
        (b"sha256:" + b"AB" * 32 + b" \r\n", "checksum-file"),
        (b"ab" * 32 + b" *secret-1.0.zip", "checksum-file"),
        (b"ab" * 32 + b"  secret-1.0.zip\n" + b"cd" * 32 + b"  more", "different-content"),
        (b"<!-- secret --><!-- and --> <body>", "html-page"),
        (b"<!-- <html> secret", "different-content"),
        (b"<htmlx>", "different-content"),
        (b"<?xml version='1.0'?><Error><Code>secret</Code></Error>", "error-document"),
        (b'{"message": "secret"}', "error-document"),
        (b"\x7fELF secret", "different-content"),
        (b"\x1f\x8bno gzip, secret", "different-content"),
    ],
)
def test_what_the_stream_showed_is_told(body: bytes, expected: str) -> None:
    assert cause(body) == expected


def test_the_digest_of_the_decompressed_content_is_recognised() -> None:
    assert cause(gzip.compress(INNER, mtime=0), declared=checksum(INNER)) == "decompressed-content"
    two_members = gzip.compress(INNER, mtime=0) + gzip.compress(b"more", mtime=0)
    assert cause(two_members, declared=checksum(INNER + b"more")) == "decompressed-content"


def test_a_gzip_that_expands_without_end_is_given_up() -> None:
    endless = bytes(40 * 2**20)
    assert cause(gzip.compress(endless, mtime=0), declared=checksum(endless)) == "different-content"


@pytest.mark.parametrize("lost_bytes", [1, 8, 10, 20])
def test_a_truncated_gzip_is_no_cause(lost_bytes: int) -> None:
    whole = gzip.compress(INNER, mtime=0)
    assert cause(whole[:-lost_bytes], declared=checksum(INNER)) == "different-content"


def test_a_gzip_of_many_members_is_given_up() -> None:
    members = gzip.compress(b"", mtime=0) * 99 + gzip.compress(INNER, mtime=0)
    assert cause(members, declared=checksum(INNER)) == "decompressed-content"
    assert cause(gzip.compress(b"", mtime=0) + members, declared=checksum(INNER)) == "different-content"


@pytest.mark.parametrize(
    "body",
    [
        b"<!---->" * 48 + b"x",
        b"<!---->" * 37_000 + b"x",
        b"<!--" * 65_000,
        b" " * SMALL_BYTES,
        b"<?xml" + b" " * 250_000,
        b"<?xml ?>" * 32_000,
        b"ab" * 32 + b" " * 800 + b"\nX\nY",
        b"ab" * 32 + b" " * 250_000 + b"\nX\nY",
        b"ab" * 32 + b" *" * 120_000,
        b"{" + b" " * 250_000,
        gzip.compress(b"", mtime=0) * 13_000,
        gzip.compress(bytes(200 * 2**20), mtime=0),
    ],
    ids=lambda body: f"{body[:12]!r} {len(body)}",
)
def test_no_body_takes_longer_than_its_length_asks_for(body: bytes) -> None:
    within_cpu_s(1, cause_of, evidence(body))


@given(st.binary(), st.text(), st.booleans())
def test_evidence_travels_as_it_is(head: bytes, declared: str, encoded: bool) -> None:
    known = Evidence(declared, "", len(head), encoded, None, "1.0", head)
    assert Evidence.unpack(known.pack()) == known


def test_a_compressed_form_that_was_not_asked_for_is_told() -> None:
    assert cause(gzip.compress(INNER, mtime=0), encoding="gzip") == "content-encoding"


def test_another_version_of_the_plugin_is_recognised_on_either_side() -> None:
    assert cause(INNER, versions={checksum(INNER): "1.9.0"}) == "other-version-served"
    assert cause(INNER, versions={DECLARED: "1.9.0"}) == "other-version-declared"
