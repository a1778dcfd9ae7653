"""Loaded by Python at its start where this folder is on PYTHONPATH: holds the interpreter once it is told to.

A process in whose environment FAULTS_HOLD names a folder waits there for a file named like its process id, and then
makes one call into C that does not end. With ``-loop`` after the id, its event loop alone is what does not go on.
"""

import ctypes
import gc
import os
import threading
import time
from pathlib import Path


def _hold(mark: Path) -> None:
    mark_of_loop = mark.with_name(f"{mark.name}-loop")
    while not mark.exists():
        if mark_of_loop.exists():
            for each in gc.get_objects():
                if type(each).__name__ == "LoopThread":
                    each.loop.call_soon_threadsafe(time.sleep, 3600)
            return
        time.sleep(0.05)
    ctypes.PyDLL(None).sleep(3600)  # which lets nobody else in


if folder := os.environ.get("FAULTS_HOLD"):
    threading.Thread(target=_hold, args=(Path(folder) / str(os.getpid()),), daemon=True).start()
