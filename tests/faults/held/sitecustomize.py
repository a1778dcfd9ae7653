"""Loaded by Python at its start where this folder is on PYTHONPATH: holds the interpreter once it is told to.

A process in whose environment FAULTS_HOLD names a folder waits there for a file named like its process id, and then
makes one call into C that does not end.
"""

import os
import re
import threading
import time
from pathlib import Path


def _hold(mark: Path) -> None:
    while not mark.exists():
        time.sleep(0.05)
    re.match("(a+)+$", "a" * 60 + "b")


if folder := os.environ.get("FAULTS_HOLD"):
    threading.Thread(target=_hold, args=(Path(folder) / str(os.getpid()),), daemon=True).start()
