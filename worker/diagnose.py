"""Why two digests differ, as far as the stream showed it. Pure; never tells a byte of the body."""

import hashlib
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass

from shared.errors import DigestMismatch
from shared.registration import Digest
from worker.artifact import SMALL_BYTES, Seen

MAX_DECODED_BYTES = 16 * 2**20
_HTML = re.compile(rb"\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_ERROR_DOCUMENT = re.compile(rb"\s*(?:<\?xml[^>]*>\s*)?<Error>|\s*\{\s*\"(?:error|message|errors)\"", re.IGNORECASE)
_CHECKSUM_LINE = re.compile(rb"\s*(?:sha256:)?[0-9a-f]{64}(?:\s+[* ]?[^\r\n]{1,255})?\s*", re.IGNORECASE)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class _Cause:
    word: str
    sentence: str


_UNKNOWN = _Cause(
    "different-content",
    "Compare both digests: either the artifact changed or the checksum is of another file.",
)


def explained(declared: str, computed: Digest, seen: Seen, versions: Mapping[str, str]) -> DigestMismatch:
    """Return the mismatch of *declared* and *computed*, with what probably happened.

    *versions* are the checksums of this plugin's registered versions, each with its version.
    """
    cause = _cause(declared, computed, seen, versions)
    return DigestMismatch(
        f"The bytes at artifactUrl do not hash to the declared checksum. {cause.sentence}",
        cause=cause.word,
        declared=declared,
        computed=computed.checksum,
    )


def _cause(declared: str, computed: Digest, seen: Seen, versions: Mapping[str, str]) -> _Cause:
    """Return the first of what may have happened that fits, the surest first."""
    head = bytes(seen.head)
    served_version, declared_version = versions.get(computed.checksum), versions.get(declared)
    suspicions = (
        (computed.size_bytes == 0, _EMPTY),
        (head.startswith(_LFS_POINTER), _POINTER),
        (served_version is not None, _served_version(served_version)),
        (declared_version is not None, _declared_version(declared_version)),
        (_decoded_checksum(head, computed) == declared, _DECOMPRESSED),
        (_HTML.match(head) is not None, _PAGE),
        (bool(seen.content_encoding), _ENCODED),
        (computed.size_bytes <= SMALL_BYTES and _CHECKSUM_LINE.fullmatch(head) is not None, _CHECKSUM_FILE),
        (_ERROR_DOCUMENT.match(head) is not None, _ERROR),
    )
    return next((cause for fits, cause in suspicions if fits), _UNKNOWN)


_EMPTY = _Cause("empty-body", "The artifact's host sent nothing: a complete answer of 0 bytes.")
_POINTER = _Cause(
    "git-lfs-pointer",
    "The URL serves a Git LFS pointer, the small text file that stands for the artifact in a repository: "
    "use the URL of the content itself.",
)
_PAGE = _Cause(
    "html-page",
    "The URL serves an HTML page, such as a log-in or a download page: use the URL of the file itself, "
    "and make sure that it needs no log-in.",
)
_DECOMPRESSED = _Cause(
    "decompressed-content",
    "The checksum is that of the decompressed content: declare the one of the file as it is served.",
)
_ENCODED = _Cause(
    "content-encoding",
    "The artifact's host sent a compressed form though it was asked not to: "
    "let it serve the file as it is, or declare the digest of what it serves.",
)
_CHECKSUM_FILE = _Cause("checksum-file", "The URL serves a checksum file: use the URL of the artifact beside it.")
_ERROR = _Cause("error-document", "The URL serves an error message, with a status that says all is well.")


def _served_version(version: str | None) -> _Cause:
    return _Cause(
        "other-version-served",
        f"The URL serves the artifact of version {version} of this plugin: "
        "correct the URL or publish the new artifact first.",
    )


def _declared_version(version: str | None) -> _Cause:
    return _Cause(
        "other-version-declared",
        f"The checksum is that of version {version} of this plugin: take the new artifact's.",
    )


def _decoded_checksum(head: bytes, computed: Digest) -> str | None:
    """Return the checksum of what a small gzip holds; larger ones were not kept, and are not asked."""
    if computed.size_bytes != len(head) or not head.startswith(b"\x1f\x8b"):
        return None
    decoder, sha256, size = zlib.decompressobj(wbits=31), hashlib.sha256(), 0
    try:
        while head and size <= MAX_DECODED_BYTES:
            decoded = decoder.decompress(head, 64 * 1024)
            size += len(decoded)
            sha256.update(decoded)
            head = decoder.unconsumed_tail
            if decoder.eof and decoder.unused_data:  # members may follow each other, RFC 1952 section 2.2
                head, decoder = decoder.unused_data, zlib.decompressobj(wbits=31)
    except zlib.error:
        return None
    return f"sha256:{sha256.hexdigest()}" if size <= MAX_DECODED_BYTES else None
