"""A disk that is small: a file system in memory where we may mount one, else a limit on the size of files."""

import os
import resource
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SIZE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class SmallDisk:
    """*folder* lies on a disk of its own if it is *mounted*."""

    folder: Path
    mounted: bool

    @contextmanager
    def full_for(self, pids: Sequence[int]) -> Iterator[None]:
        """Leave no room on the disk, for *pids* at least, for the length of the block."""
        if self.mounted:
            filler = self.folder / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"\0" * 65536):
                        pass
                except OSError:
                    pass
            try:
                yield
            finally:
                filler.unlink()
            return
        grown = max((each.stat().st_size for each in self.folder.iterdir()), default=0)
        before = [resource.prlimit(pid, resource.RLIMIT_FSIZE, (grown, resource.RLIM_INFINITY)) for pid in pids]
        try:
            yield
        finally:
            for pid, limits in zip(pids, before, strict=True):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Yield a small disk at *folder*."""
    mounted = os.getuid() == 0 and _run("mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(folder))
    try:
        yield SmallDisk(folder, mounted)
    finally:
        if mounted:
            _run("umount", "--lazy", str(folder))


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
