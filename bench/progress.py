"""One line on stderr that tells what is being measured."""

import sys
import time

_started = time.monotonic()
_last = [0.0]
"""When a line was written that no later one takes the place of."""


def doing(what: str) -> None:
    """Show *what* is being done, in place of what was."""
    seconds = int(time.monotonic() - _started)
    line = f"{seconds // 60}:{seconds % 60:02} {what}"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - _last[0] >= 1:
        print(line, file=sys.stderr, flush=True)
        _last[0] = time.monotonic()


def done() -> None:
    """Leave the line."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
