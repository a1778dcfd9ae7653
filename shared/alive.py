"""A sign of life: a file that a process touches on purpose, from the thread that must live.

`python3 -m shared.alive FILE [SECONDS]` ends with 0 if that was done lately, else with 1 and a sentence. It reads
nothing else and needs no broker, and it loads next to nothing: a health check asks it often.
"""

import os
import sys
import time
from contextlib import suppress

LATELY_S = 15.0
File = os.PathLike[str] | None
"""None where nobody asks for a sign."""


def first_touch(file: File) -> None:
    """Touch *file*; end this process, which has just begun, with a sentence where that cannot be."""
    try:
        _touch(file)
    except OSError as error:
        sys.exit(f"REGISTRY_ALIVE_FILE: {file} cannot be touched: {error.strerror}. Name one in a folder of ours.")


def touch(file: File) -> None:
    """Touch *file*; a disk that is full, or a folder that is gone, ends nothing."""
    with suppress(OSError):
        _touch(file)


def _touch(file: File) -> None:
    if file is not None:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))
        os.utime(file)


def main(arguments: list[str]) -> str | None:
    """Return what is wrong, if anything is."""
    file, lately_s = arguments[0], float(arguments[1]) if arguments[1:] else LATELY_S
    try:
        touched_s_ago = time.time() - os.stat(file).st_mtime  # noqa: PTH116  # pathlib takes as long to load as all else
    except OSError as error:
        return f"{file}: {error.strerror}. Nothing touches it."
    if abs(touched_s_ago) > lately_s:  # one from the future is no sign either: a clock was set back
        return f"{file} was touched {touched_s_ago:.0f} s ago, not within {lately_s:g} s."
    return None


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (IndexError, ValueError):
        sys.exit("Usage: python3 -m shared.alive FILE [SECONDS]")
