"""What each field of a submission may be: patterns, limits, and parsers that say what is wrong to its writer."""

import re
from base64 import urlsafe_b64decode

# The pattern semver.org gives for SemVer 2.0.0, with \d spelled out because ours is Unicode-aware.
SEMVER = (
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?$"
MAX_NAME_CHARACTERS = 100
CHECKSUM = "^[sS][hH][aA]256:[0-9A-Fa-f]{64}$"
HEX_DIGITS = 64  # of a SHA-256
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
_HEX_RUN = re.compile(r"[0-9A-Fa-f]++")
_SPACED = re.compile(r"[0-9A-Fa-f]{2}(?:[: -][0-9A-Fa-f]{2}){31}")
# As Subresource Integrity, RFC 3230 and RFC 9530 have it; or by itself.
_BASE64 = re.compile(r"(?i:sha-?256)[-:=]{1,2}([A-Za-z0-9+/_-]{43})(?:=|(?![A-Za-z0-9+/_-]))")
_BASE64_ALONE = re.compile(r"([A-Za-z0-9+/_-]{43})=?")
_OTHER_NAMES = re.compile(
    r"(?i)\b(?:md5|sha-?(?P<bits>1|224|384|512)|(?P<other>sha-?512/256|sha3-?[0-9]{3}|blake[0-9][a-z]?|sm3|ripemd-?160))"
    r"(?![0-9a-z])"
)
_OTHER_LENGTHS = {128: "a SHA-512", 96: "a SHA-384", 56: "a SHA-224", 40: "a SHA-1", 32: "an MD5"}
_OF_NOTHING = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
_READ_NOTHING = (
    "is the SHA-256 of nothing, of 0 bytes: the command that made it read no file. "
    "Was the file there, and its name right?"
)
_HEX = re.compile(r"[0-9A-Fa-f]*")
_NOT_IN_A_SCHEMA = re.compile(r"[\x00\ud800-\udfff]")
_SEPARATORS = re.compile(r"[ ._-]+")


def parse_name(name: str) -> str:
    """Return *name*, or raise ValueError."""
    if re.fullmatch(NAME, name) is None:
        raise ValueError(
            "use ASCII letters, digits, space, '.', '_' and '-', beginning and ending with a letter or digit"
        )
    return name


def parse_version(version: str) -> str:
    """Return *version*, or raise ValueError."""
    if re.fullmatch(SEMVER, version) is None:
        raise ValueError("is not a SemVer 2.0.0 version such as 2.1.0 or 2.1.0-rc.1 (no leading 'v')")
    return version


def parse_checksum(checksum: str) -> str:
    """Return *checksum* in lower case; say what is wrong with it in the words of its writer.

    Wherever one SHA-256 can be recognised in what was pasted, the exact text to send is told.
    """
    algorithm, _colon, digits = checksum.partition(":")
    if algorithm.lower() == "sha256" and _SHA256.fullmatch(digits):
        if digits.lower() == _OF_NOTHING:
            raise ValueError(_READ_NOTHING)
        return f"sha256:{digits.lower()}"
    raise ValueError(_what_is_wrong_with(checksum))


def _what_is_wrong_with(checksum: str) -> str:  # noqa: PLR0911  # one for each mistake
    algorithm, colon, digits = checksum.partition(":")
    found = set() if _OTHER_NAMES.match(checksum) else _sha256s_in(checksum)
    if _OF_NOTHING in found:
        return _READ_NOTHING
    if len(found) == 1:
        return f"must be 'sha256:' and 64 hex digits, nothing else: write 'sha256:{found.pop()}'"
    if found:
        return "holds several SHA-256: send the one of this artifact, as 'sha256:' and its 64 hex digits"
    if other := _other_algorithm_of(checksum):
        return f"is {other}, and only sha256 is supported: take the file's `sha256sum`"
    if not colon:
        return "must begin with 'sha256:'"
    if algorithm.lower() != "sha256":
        return "only sha256 is supported: 'sha256:' and 64 hex digits"
    if _HEX.fullmatch(digits) is None:
        return "must hold hex digits only after 'sha256:'"
    return (
        f"has {len(digits)} hex digits and a SHA-256 has {HEX_DIGITS}: "
        "give the whole digest, a shortened one verifies nothing"
    )


def _sha256s_in(text: str) -> set[str]:
    """Return every SHA-256 in *text*, in lower case, however it is written: hex, spaced hex, base64."""
    found = {run.lower() for run in _HEX_RUN.findall(text) if len(run) == HEX_DIGITS}
    if not found and _SPACED.fullmatch(text.strip()):
        found = {"".join(_HEX_RUN.findall(text.lower()))}
    if not found and (base64 := _BASE64.search(text) or _BASE64_ALONE.fullmatch(text.strip())):
        found = {urlsafe_b64decode(base64[1].replace("+", "-").replace("/", "_") + "=").hex()}
    return found


def _other_algorithm_of(text: str) -> str | None:
    """Return which other algorithm *text* is of, as far as its name or its length tells."""
    if name := _OTHER_NAMES.search(text):
        if name["other"]:
            return f"a {name['other'].upper()}"
        return _OTHER_LENGTHS[{"1": 40, "224": 56, "384": 96, "512": 128}.get(name["bits"] or "", 32)]
    lengths = {len(run) for run in _HEX_RUN.findall(text)}
    return next((other for length, other in _OTHER_LENGTHS.items() if length in lengths), None)


def parse_schema_text(text: str) -> str:
    """Refuse what cannot be kept; a schema is a document, with descriptions in any language and of many lines."""
    if _NOT_IN_A_SCHEMA.search(text):
        raise ValueError("must not hold NUL or lone surrogates")
    return text


def normalised(name: str) -> str:
    """Return *name* in lower case with each run of separators as one ``-``."""
    return _SEPARATORS.sub("-", name.lower())
