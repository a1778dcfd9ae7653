"""The digest of a stream, hashed beside its arrival where it is fast."""

import hashlib
import threading
from collections.abc import Iterable
from contextlib import closing
from queue import Queue

from shared.errors import ArtifactTooLarge
from shared.registration import Digest

BESIDE_FROM_BYTES = 256 * 1024
"""Chunks are this large only when an artifact is large and fast; a thread hashes them while the next one arrives."""


def digest(pieces: Iterable[tuple[int, bytes | memoryview]], *, max_bytes: int) -> Digest:
    """Hash *pieces* as they pass, keeping none of them.

    A piece is an offset and the bytes there. It continues where the last one ended, or begins
    again at 0, with a fresh hash. The limit is tested before a chunk is hashed, so a server that
    lies about its length costs us one chunk, not one disk.

    Raises:
        ArtifactTooLarge: more than *max_bytes* arrived.
        ValueError: a piece fits neither way; then the fetcher is broken, and no digest may be told.
    """
    with closing(Sha256()) as sha256:
        size_bytes = 0
        for offset, chunk in pieces:
            if offset != size_bytes:
                if offset != 0:
                    raise ValueError(f"a piece begins at {offset}, after {size_bytes} bytes")
                sha256.begin_again()
                size_bytes = 0
            size_bytes += len(chunk)
            if size_bytes > max_bytes:
                raise ArtifactTooLarge.over(max_bytes)
            sha256.update(chunk)
        return Digest(sha256.hexdigest(), size_bytes)


class Sha256:
    """A SHA-256 that takes large chunks on a thread of its own, one ahead of the one it hashes.

    The thread is there from the first large chunk to `close`. Chunks must not change once they are given.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._ahead: Queue[bytes | memoryview | None] = Queue(1)
        self._thread: threading.Thread | None = None

    def update(self, chunk: bytes | memoryview) -> None:
        """Add *chunk*; return before it is hashed, if it is large."""
        if self._thread is None and len(chunk) < BESIDE_FROM_BYTES:
            self._sha256.update(chunk)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._hash, name="digest", daemon=True)
            self._thread.start()
        self._ahead.put(chunk)

    def hexdigest(self) -> str:
        """Return the digest of all that was given."""
        self._ahead.join()
        return self._sha256.hexdigest()

    def begin_again(self) -> None:
        """Forget all that was given."""
        self._ahead.join()
        self._sha256 = hashlib.sha256()

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self._ahead.put(None)
            self._thread.join()

    def _hash(self) -> None:
        while (chunk := self._ahead.get()) is not None:
            self._sha256.update(chunk)
            self._ahead.task_done()
