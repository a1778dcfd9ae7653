"""Why two digests differ, as far as the stream showed it. Pure; never tells a byte of the body.

What it looks at is a stranger's, so it runs in a process of its own (`contained.py`) and imports the standard
library only. Each expression has one way to match, by possessive quantifiers and atomic groups: its time grows with
what it is given and no faster (invariant 14).
"""

import hashlib
import json
import re
import zlib
from dataclasses import dataclass

from worker.digest.contained import serve

SMALL_BYTES = 256 * 1024
"""An artifact of up to so many bytes is shown whole."""
MAX_DECODED_BYTES = 16 * 2**20
MAX_MEMBERS = 100
"""Of a gzip; the rest of it is copied for each."""

_HTML = re.compile(rb"\s*+(?:<!--(?>.*?-->)\s*+)*+<(?:!doctype\s++html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_ERROR_DOCUMENT = re.compile(
    rb"\s*+(?:(?:<\?xml[^>]*+>\s*+)?+<Error>|\{\s*+\"(?:error|message|errors)\")", re.IGNORECASE
)
_CHECKSUM_FILE = re.compile(
    rb"\s*+(?:sha256:)?+[0-9a-f]{64}(?:[ \t]++\*?+[^\s*][^\r\n]{0,254}+)?+\s*+", re.IGNORECASE
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Evidence:
    """What is known of a mismatch. *head* is the whole artifact if it is small, else its beginning.

    *declared* and *computed* are the checksums, *served_version* and *declared_version* the version of the plugin
    that is registered with the one or the other; *encoded* tells that the host named a Content-Encoding.
    """

    declared: str
    computed: str
    size_bytes: int
    encoded: bool
    served_version: str | None
    declared_version: str | None
    head: bytes

    def pack(self) -> bytes:
        """Return this as bytes: a line of JSON, then the head."""
        known = {name: value for name, value in vars(self).items() if name != "head"}
        return json.dumps(known).encode() + b"\n" + self.head

    @classmethod
    def unpack(cls, packed: bytes) -> "Evidence":
        """Return what `pack` made *packed* of."""
        known, _, head = packed.partition(b"\n")
        return cls(**json.loads(known), head=head)


@dataclass(frozen=True)
class Cause:
    """One stable word for what probably happened, and a sentence for a person."""

    word: str
    sentence: str


UNKNOWN = Cause(
    "different-content",
    "Compare both digests: either the artifact changed or the checksum is of another file.",
)


def cause_of(it: Evidence) -> Cause:
    """Return the first of what may have happened that fits, the surest first."""
    suspicions = (
        (it.size_bytes == 0, _EMPTY),
        (it.head.startswith(_LFS_POINTER), _POINTER),
        (it.served_version is not None, _served_version(it.served_version)),
        (it.declared_version is not None, _declared_version(it.declared_version)),
        (_decoded_checksum(it) == it.declared, _DECOMPRESSED),
        (_HTML.match(it.head) is not None, _PAGE),
        (it.encoded, _ENCODED),
        (it.size_bytes == len(it.head) and _CHECKSUM_FILE.fullmatch(it.head) is not None, _SUMS),
        (_ERROR_DOCUMENT.match(it.head) is not None, _ERROR),
    )
    return next((cause for fits, cause in suspicions if fits), UNKNOWN)


_EMPTY = Cause("empty-body", "The artifact's host sent nothing: a complete answer of 0 bytes.")
_POINTER = Cause(
    "git-lfs-pointer",
    "The URL serves a Git LFS pointer, the small text file that stands for the artifact in a repository: "
    "use the URL of the content itself.",
)
_PAGE = Cause(
    "html-page",
    "The URL serves an HTML page, such as a log-in or a download page: use the URL of the file itself, "
    "and make sure that it needs no log-in.",
)
_DECOMPRESSED = Cause(
    "decompressed-content",
    "The checksum is that of the decompressed content: declare the one of the file as it is served.",
)
_ENCODED = Cause(
    "content-encoding",
    "The artifact's host sent a compressed form though it was asked not to: "
    "let it serve the file as it is, or declare the digest of what it serves.",
)
_SUMS = Cause("checksum-file", "The URL serves a checksum file: use the URL of the artifact beside it.")
_ERROR = Cause("error-document", "The URL serves an error message, with a status that says all is well.")


def _served_version(version: str | None) -> Cause:
    return Cause(
        "other-version-served",
        f"The URL serves the artifact of version {version} of this plugin: "
        "correct the URL or publish the new artifact first.",
    )


def _declared_version(version: str | None) -> Cause:
    return Cause(
        "other-version-declared",
        f"The checksum is that of version {version} of this plugin: take the new artifact's.",
    )


def _decoded_checksum(it: Evidence) -> str | None:
    """Return the checksum of what a small gzip holds; larger ones were not kept, and are not asked."""
    rest = it.head
    if it.size_bytes != len(rest) or not rest.startswith(b"\x1f\x8b"):
        return None
    sha256, size = hashlib.sha256(), 0
    try:
        for _member in range(MAX_MEMBERS):  # they may follow each other, RFC 1952 section 2.2
            decoder = zlib.decompressobj(wbits=31)
            while not decoder.eof:
                decoded = decoder.decompress(rest, 64 * 1024)
                size += len(decoded)
                if size > MAX_DECODED_BYTES or not (decoded or decoder.eof):
                    return None
                sha256.update(decoded)
                rest = decoder.unconsumed_tail
            rest = decoder.unused_data
            if not rest:
                return f"sha256:{sha256.hexdigest()}"
    except zlib.error:
        pass
    return None


def _answer(question: bytes) -> bytes:
    return json.dumps(vars(cause_of(Evidence.unpack(question)))).encode()


if __name__ == "__main__":
    serve(_answer)
