"""Why two digests differ, as far as the stream showed it. Pure; never tells a byte of the body.

What it looks at is a stranger's, so it runs in a process of its own (`contained.py`) and imports the standard
library only. Each expression has one way to match, by possessive quantifiers and atomic groups: its time grows with
what it is given and no faster (invariant 14).
"""

import hashlib
import json
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from worker.digest.contained import serve

SMALL_BYTES = 256 * 1024
"""An artifact of up to so many bytes is shown whole."""
MAX_DECODED_BYTES = 16 * 2**20
MAX_MEMBERS = 100
"""Of a gzip; the rest of it is copied for each."""

MAX_JSON_BYTES = 16 * 1024
"""An error in JSON is small; what is larger is not parsed."""
MAX_SENTENCE_BYTES = 256

# What may stand before the first element of a page: a byte order mark, an XML declaration, comments.
_PROLOGUE = rb"(?:\xef\xbb\xbf)?+\s*+(?:<\?xml[^>]*+>\s*+)?+(?:<!--(?>.*?-->)\s*+)*+"
_HTML = re.compile(
    _PROLOGUE + rb"<(?:!doctype\s++html|html|head|body|meta|title|script|style|link)\b", re.IGNORECASE | re.DOTALL
)
_MARKUP = re.compile(_PROLOGUE + rb"<", re.DOTALL)
_XML_ERROR = re.compile(_PROLOGUE + rb"<(?:[a-z]++:)?(?:error|errors|fault|exception)\b", re.IGNORECASE | re.DOTALL)
_ERROR_SENTENCE = re.compile(
    rb"\s*+(?:error|(?:http\s*+)?+[45][0-9]{2}|(?:file |page |object )?not found|no such|access denied|forbidden|"
    rb"unauthori[sz]ed|bad request|internal server error|service unavailable|too many requests)\b",
    re.IGNORECASE,
)
_ERROR_KEYS = frozenset(
    {"error", "errors", "message", "error_description", "errorcode", "fault", "exception", "detail"}
)
_PROBLEM_KEYS = frozenset({"title", "status"})  # of RFC 9457
_CHECKSUM_LINE = re.compile(
    rb"(?:#[^\r\n]*+|\\?+(?:sha256:)?+[0-9a-f]{32,128}(?:[ \t]++\*?+[^\s*][^\r\n]{0,1024}+)?+\s*+"
    rb"|(?:md5|sha[0-9]?-?[0-9/]{1,7}) ?\([^\r\n]{1,1024}\) ?= ?[0-9a-f]{32,128}\s*+)",
    re.IGNORECASE,
)
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class Evidence:
    """What is known of a mismatch. *head* is the whole artifact if it is small, else its beginning.

    *declared* and *computed* are the checksums, *served_version* and *declared_version* the version of the plugin
    that is registered with the one or the other; *encoded* tells that the host named a Content-Encoding. *file_name*
    is the last segment of the URL, and *announced_bytes* the first length that was announced for the artifact.
    """

    declared: str
    computed: str
    size_bytes: int
    encoded: bool
    served_version: str | None
    declared_version: str | None
    head: bytes
    media_type: str = ""
    file_name: str = ""
    announced_bytes: int | None = None

    @property
    def whole(self) -> bool:
        """Whether *head* is all there is."""
        return self.size_bytes == len(self.head)

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
    suspicions: tuple[tuple[Callable[[], bool], Cause], ...] = (
        (lambda: it.size_bytes == 0, _EMPTY),
        (lambda: it.head.startswith(_LFS_POINTER), _POINTER),
        (lambda: it.served_version is not None, _served_version(it.served_version)),
        (lambda: it.declared_version is not None, _declared_version(it.declared_version)),
        (lambda: _hashed_checksum(it), _HASHED_SUMS),
        (lambda: it.whole and it.declared in map(_checksum_of, _other_endings(it.head)), _LINE_ENDINGS),
        (lambda: _cut_short(it), _CUT_SHORT),
        (lambda: _decoded_checksum(it) == it.declared, _DECOMPRESSED),
        (lambda: is_page(it.head, it.media_type), _PAGE),
        (lambda: it.encoded, _ENCODED),
        (lambda: it.whole and _is_checksum_file(it.head), _SUMS),
        (lambda: _is_error(it), _ERROR),
    )
    return next((cause for fits, cause in suspicions if fits()), UNKNOWN)


def _checksum_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _hashed_checksum(it: Evidence) -> bool:
    """Whether what was declared is the checksum of the checksum, as a file or a line of one."""
    digits = it.computed.removeprefix("sha256:")
    names = {it.file_name, f"./{it.file_name}", "-"}
    for written in (digits, digits.upper()):
        lines = {written, f"sha256:{written}", *(f"{written} {mode}{name}" for name in names for mode in " *")}
        lines |= {f"SHA256 ({name}) = {written}" for name in names}
        texts = (line + end for line in lines for end in ("", "\n", "\r\n"))
        if it.declared in (_checksum_of(text.encode("utf-8", "replace")) for text in texts):
            return True
    return False


def _other_endings(content: bytes) -> tuple[bytes, ...]:
    """Return *content* with the ends of its lines as other systems, and commands, have them."""
    plain = content.replace(b"\r\n", b"\n")
    return plain, plain.replace(b"\n", b"\r\n"), content + b"\n", content + b"\r\n", content.rstrip(b"\r\n")


def _cut_short(it: Evidence) -> bool:
    first = it.announced_bytes
    return it.whole and first is not None and first < it.size_bytes and _checksum_of(it.head[:first]) == it.declared


def is_page(beginning: bytes, media_type: str = "") -> bool:
    """Whether what begins with *beginning* is an HTML page."""
    if _HTML.match(beginning):
        return True
    return media_type.startswith(("text/html", "application/xhtml")) and _MARKUP.match(beginning) is not None


def _is_checksum_file(content: bytes) -> bool:
    """Whether every line of *content* is one of a checksum file, as GNU's, BSD's and others' commands write them."""
    lines = [line for line in content.splitlines() if line.strip()]
    return any(not line.startswith(b"#") for line in lines) and all(
        _CHECKSUM_LINE.fullmatch(line.strip()) for line in lines
    )


def _is_error(it: Evidence) -> bool:
    if _XML_ERROR.match(it.head) or "problem+" in it.media_type:
        return True
    if not it.whole or it.size_bytes > MAX_JSON_BYTES:
        return False
    try:
        document = json.loads(it.head)
    except (ValueError, RecursionError):
        return it.size_bytes <= MAX_SENTENCE_BYTES and _ERROR_SENTENCE.match(it.head) is not None
    if isinstance(document, list) and document:
        document = document[0]
    keys = {str(key).lower() for key in document} if isinstance(document, dict) else set()
    return bool(keys & _ERROR_KEYS) or keys >= _PROBLEM_KEYS


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
_HASHED_SUMS = Cause(
    "hashed-checksum-file",
    "The checksum is that of the artifact's checksum, so the checksum file was hashed instead of the artifact: "
    "declare what stands in that file.",
)
_LINE_ENDINGS = Cause(
    "line-endings",
    "The checksum is that of the same text with other line ends, such as a checkout on Windows makes: "
    "hash the file as it is served.",
)
_CUT_SHORT = Cause(
    "shorter-content",
    "The checksum is that of the artifact's beginning, of as many bytes as were announced at first: "
    "hash the file once it is whole.",
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
    if not it.whole or not rest.startswith(b"\x1f\x8b"):
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
