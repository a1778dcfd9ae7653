"""The digest of a stream."""

import hashlib
from collections.abc import Iterable

from shared.errors import ArtifactTooLarge
from shared.registration import Digest


def digest(pieces: Iterable[tuple[int, bytes]], *, max_bytes: int) -> Digest:
    """Hash *pieces* as they pass, keeping none of them.

    A piece is an offset and the bytes there. It continues where the last one ended, or begins
    again at 0, with a fresh hash. The limit is tested before a chunk is hashed, so a server that
    lies about its length costs us one chunk, not one disk.

    Raises:
        ArtifactTooLarge: more than *max_bytes* arrived.
        ValueError: a piece fits neither way; then the fetcher is broken, and no digest may be told.
    """
    sha256, size_bytes = hashlib.sha256(), 0
    for offset, chunk in pieces:
        if offset != size_bytes:
            if offset != 0:
                raise ValueError(f"a piece begins at {offset}, after {size_bytes} bytes")
            sha256, size_bytes = hashlib.sha256(), 0
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise ArtifactTooLarge.over(max_bytes)
        sha256.update(chunk)
    return Digest(sha256.hexdigest(), size_bytes)
