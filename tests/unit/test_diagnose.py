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
    body: bytes,
    *,
    declared: str = DECLARED,
    versions: dict[str, str] | None = None,
    encoding: str = "",
    media_type: str = "",
    announced_bytes: int | None = None,
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
        media_type,
        "plugin-1.0.tar.gz",
        announced_bytes,
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
        (b"ab" * 32 + b"  secret-1.0.zip\n" + b"cd" * 32 + b"  more", "checksum-file"),
        (b"SHA256 (secret-1.0.zip) = " + b"ab" * 32 + b"\n", "checksum-file"),
        (b"# sums\r\nSHA512 (a) = " + b"ab" * 64 + b"\r\n\r\nMD5 (b) = " + b"ab" * 16, "checksum-file"),
        (b"# secret\n", "different-content"),
        (b"ab" * 32 + b"  a\nsecret\n", "different-content"),
        (b"\xef\xbb\xbf<meta charset=utf-8>secret", "html-page"),
        (b"<meta charset=utf-8>secret", "html-page"),
        (b"<?xml version='1.0'?>\n<!-- x --><!DOCTYPE html PUBLIC '-//W3C//DTD XHTML'>", "html-page"),
        (b"\xef\xbb\xbf<?xml version='1.0'?><error>secret</error>", "error-document"),
        (b"<s:Fault>secret", "error-document"),
        (b'{"errors": [{"secret": 1}], "data": null}', "error-document"),
        (b'{"data": null, "Message": "secret"}', "error-document"),
        (b'{"title": "secret", "status": 404}', "error-document"),
        (b'{"detail": "secret"}', "error-document"),
        (b'[{"error": "secret"}]', "error-document"),
        (b"SHA2-256(secret)= " + b"ab" * 32, "checksum-file"),
        (b"SHA3-256 (secret) = " + b"ab" * 32, "checksum-file"),
        (b'{"name": "secret", "status": 404}', "different-content"),
        (b"404 page not found: secret", "error-document"),
        (b"Access Denied", "error-document"),
        (b"error" + b"s" * 300, "different-content"),
        (b"{" * 9000, "different-content"),
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


DIGITS = hashlib.sha256(INNER).hexdigest()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize(
    "line",
    [
        DIGITS,
        DIGITS.upper(),
        f"sha256:{DIGITS}",
        f"{DIGITS}  plugin-1.0.tar.gz",
        f"{DIGITS} *plugin-1.0.tar.gz",
        f"{DIGITS}  ./plugin-1.0.tar.gz",
        f"{DIGITS}  -",
        f"SHA256 (plugin-1.0.tar.gz) = {DIGITS}",
    ],
)
def test_who_hashed_the_checksum_is_told(line: str, end: str) -> None:
    assert cause(INNER, declared=checksum((line + end).encode())) == "hashed-checksum-file"


def test_it_is_told_of_large_artifacts_too() -> None:
    large = INNER * 1000
    digits = hashlib.sha256(large).hexdigest()
    assert cause(large, declared=checksum(f"{digits}\n".encode())) == "hashed-checksum-file"


TEXT = b"a: 1\nb: 2\n"


@pytest.mark.parametrize(
    ("served", "hashed"),
    [
        (TEXT, TEXT.replace(b"\n", b"\r\n")),
        (TEXT.replace(b"\n", b"\r\n"), TEXT),
        (TEXT.rstrip(), TEXT),
        (TEXT, TEXT.rstrip()),
    ],
)
def test_other_ends_of_lines_are_told(served: bytes, hashed: bytes) -> None:
    assert cause(served, declared=checksum(hashed)) == "line-endings"
    assert cause(served, declared=checksum(hashed + b"x")) == "different-content"


def test_a_beginning_of_the_length_that_was_announced_first_is_told() -> None:
    assert cause(INNER, declared=checksum(INNER[:100]), announced_bytes=100) == "shorter-content"
    assert cause(INNER, declared=checksum(INNER[:99]), announced_bytes=100) == "different-content"


def test_what_calls_itself_html_is_a_page_if_it_looks_like_one() -> None:
    assert cause(b" <center>secret", media_type="text/html; charset=utf-8") == "html-page"
    assert cause(b"secret", media_type="text/html") == "different-content"
    assert cause(b"secret", media_type="application/problem+json") == "error-document"


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
