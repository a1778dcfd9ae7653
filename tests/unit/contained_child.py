"""What may go wrong in a contained child, by the question that it is asked."""

import os
import re
import sys
import time
from collections.abc import Callable

from worker.digest.contained import serve


def _spin() -> None:
    while True:
        pass


DEEDS: dict[bytes, Callable[[], object]] = {
    b"spin in C": lambda: re.match(b"(a+)+$", b"a" * 60 + b"b"),
    b"spin": _spin,
    b"sleep": lambda: time.sleep(600),
    b"grow": lambda: bytes(2**31),
    b"raise": lambda: int("surprise"),
    b"exit": lambda: os._exit(3),
    b"talk": lambda: os.write(1, b"\xff" * 16),
    b"print much": lambda: bytes(10 * 2**20),
    b"environment": lambda: ",".join(sorted(os.environ)).encode(),
    b"open files": lambda: b"%d" % len(os.listdir("/proc/self/fd")),  # noqa: PTH208
    b"modules": lambda: ",".join(sys.modules).encode(),
}


def answer(question: bytes) -> bytes:
    done = DEEDS[question]() if question in DEEDS else question[::-1]
    return done if isinstance(done, bytes) else b""


if __name__ == "__main__":
    serve(answer)
