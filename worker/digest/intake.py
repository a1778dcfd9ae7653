"""What comes in: the bytes of one artifact, counted, limited, remembered a little, and hashed as they pass."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

from shared.errors import ArtifactTooLarge
from shared.registration import Digest
from worker.attempt import Attempt
from worker.digest.diagnose import SMALL_BYTES

HEAD_BYTES = 4 * 1024
"""How much is remembered of an artifact that is not small."""


class Intake:
    """Takes an artifact in, piece by piece, and keeps none of it but the beginning.

    The limit is tested before a piece is hashed, so a server that lies about its length costs us one piece, not one
    disk.
    """

    def __init__(self, *, max_bytes: int, attempt: Attempt | None = None) -> None:
        self._max_bytes = max_bytes
        self._attempt = attempt
        self._sha256 = hashlib.sha256()
        self._beside: _Beside | None = None
        self.size_bytes = 0
        self.total_bytes: int | None = None
        """How many there will be, where that is known."""
        self.announced_bytes: int | None = None
        """What the first answer announced, if it did."""
        self.pieced = False
        """Whether the rest of it was asked for: then its host may have given what does not belong together."""
        self.open_ended = False
        """Whether its end is that of the connection, which says nothing of whether it is the artifact's."""
        self.media_type = ""
        self.content_encoding = ""
        self.head = bytearray()
        """A small artifact, or the first bytes of a large one. It is used to explain a mismatch, and never shown."""

    def begin_again(self) -> None:
        """Forget all that was taken."""
        self._sha256 = hashlib.sha256()
        self.size_bytes = 0
        self.head.clear()
        self._tell()

    def take(self, piece: bytes | memoryview) -> None:
        """Take what comes next. A piece that is hashed beside must not change afterwards.

        Raises:
            ArtifactTooLarge: more than *max_bytes* arrived.
        """
        self.size_bytes += len(piece)
        if self.size_bytes > self._max_bytes:
            raise ArtifactTooLarge.over(self._max_bytes)
        if max(self.total_bytes or 0, self.size_bytes) <= SMALL_BYTES:
            self.head += piece
        elif len(self.head) != HEAD_BYTES:
            self.head += piece[:HEAD_BYTES]
            del self.head[HEAD_BYTES:]
        if self._beside is not None:
            self._beside.update(piece)
        else:
            self._sha256.update(piece)
        self._tell()

    def _tell(self) -> None:
        if self._attempt is not None:
            self._attempt.bytes_downloaded = self.size_bytes

    @contextmanager
    def hashing_beside(self) -> Iterator[None]:
        """Hash on a thread of its own for the length of the block, one piece while the next arrives."""
        self._beside = _Beside(self._sha256.update)
        try:
            yield
        finally:
            self._beside.close()
            self._beside = None

    def digest(self) -> Digest:
        """Return the digest of all that was taken."""
        return Digest(self._sha256.hexdigest(), self.size_bytes)


class _Beside:
    """A thread that hashes, one piece behind."""

    def __init__(self, update: Callable[[bytes | memoryview], object]) -> None:
        self._hash = update
        self._ahead: Queue[bytes | memoryview | None] = Queue(1)
        self._thread = threading.Thread(target=self._run, name="digest", daemon=True)
        self._thread.start()

    def update(self, piece: bytes | memoryview) -> None:
        self._ahead.put(piece)

    def close(self) -> None:
        self._ahead.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._ahead.get()) is not None:
            self._hash(piece)
