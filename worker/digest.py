"""The digest of a stream."""

import hashlib
from collections.abc import Iterable

from shared.errors import ArtifactTooLarge
from shared.registration import Digest


def digest(chunks: Iterable[bytes], *, max_bytes: int) -> Digest:
    """Hash *chunks* as they pass, keeping none of them.

    The limit is tested before a chunk is hashed, so a server that lies about its length costs us
    one chunk, not one disk.

    Raises:
        ArtifactTooLarge: more than *max_bytes* arrived.
    """
    sha256, size_bytes = hashlib.sha256(), 0
    for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise ArtifactTooLarge.over(max_bytes)
        sha256.update(chunk)
    return Digest(sha256.hexdigest(), size_bytes)
