"""Stand-ins for the outside world, for tests of our own logic only. Each passes what the real one promises."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from shared.errors import RegistryError
from shared.registration import RegistrationId
from worker.artifact import Download, Piece, Seen
from worker.attempts import Attempt


class FakeFetch:
    """A `worker.artifact.Fetch` without a network: URL -> chunks, or the error that is met there."""

    def __init__(self, artifacts: dict[str, bytes | RegistryError] | None = None) -> None:
        self.artifacts = artifacts or {}
        self.fetched: list[str] = []
        self.while_streaming: Callable[[Attempt], None] = lambda _attempt: None

    @contextmanager
    def __call__(self, url: str, attempt: Attempt, /) -> Iterator[Download]:
        self.fetched.append(url)
        found = self.artifacts[url]
        if isinstance(found, RegistryError):
            raise found
        attempt.artifact_bytes = len(found)
        yield Download(self._pieces(found, attempt), Seen())

    def _pieces(self, content: bytes, attempt: Attempt) -> Iterator[Piece]:
        for start in range(0, len(content), 1024):
            chunk = content[start : start + 1024]
            attempt.bytes_downloaded += len(chunk)
            yield start, chunk
            self.while_streaming(attempt)
            attempt.check()


class FakeBell:
    """Notes what was rung for."""

    def __init__(self) -> None:
        self.rung: list[list[RegistrationId]] = []

    def __call__(self, registration_ids: Sequence[RegistrationId]) -> None:
        self.rung.append(list(registration_ids))
