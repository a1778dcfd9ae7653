"""What each field of a submission may be: patterns, limits, and parsers that say what is wrong to its writer."""

import re

# The pattern semver.org gives for SemVer 2.0.0, with \d spelled out because ours is Unicode-aware.
SEMVER = (
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)"
    r"(?:-((?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9][0-9]*|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?$"
)
NAME = r"^[A-Za-z0-9](?:[A-Za-z0-9 ._-]*[A-Za-z0-9])?$"
MAX_NAME_CHARACTERS = 100
HEX_DIGITS = 64  # of a SHA-256
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")
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
    """Return *checksum* in lower case; say what is wrong with it in the words of its writer."""
    algorithm, colon, digits = checksum.partition(":")
    if not colon:
        hint = f": write 'sha256:{checksum.lower()}'" if _SHA256.fullmatch(checksum) else ""
        raise ValueError(f"must begin with 'sha256:'{hint}")
    if algorithm.lower() != "sha256":
        raise ValueError("only sha256 is supported: 'sha256:' and 64 hex digits")
    if _HEX.fullmatch(digits) is None:
        raise ValueError(
            "must hold hex digits only after 'sha256:' (a line of sha256sum also names the file: leave that out)"
        )
    if len(digits) != HEX_DIGITS:
        raise ValueError(
            f"has {len(digits)} hex digits and a SHA-256 has {HEX_DIGITS}: "
            "give the whole digest, a shortened one verifies nothing"
        )
    return f"sha256:{digits.lower()}"


def parse_schema_text(text: str) -> str:
    """Refuse what cannot be kept; a schema is a document, with descriptions in any language and of many lines."""
    if _NOT_IN_A_SCHEMA.search(text):
        raise ValueError("must not hold NUL or lone surrogates")
    return text


def normalised(name: str) -> str:
    """Return *name* in lower case with each run of separators as one ``-``."""
    return _SEPARATORS.sub("-", name.lower())
