"""Liveness: a worker whose interpreter is held up for longer than a lease is ended, and started again.

A loop that does not move is as bad: no deadline passes in it, and no lease is renewed. One call into C that does not
return holds the interpreter, and with it every thread that renews, watches or leaves:
leases run out, and the next worker takes the same artifact. So somebody outside the interpreter listens to us.

- A timer of `faulthandler`, which runs on a thread of C: it tells on stderr where every thread stood and ends this
  process, wherever it runs. Whoever keeps it (systemd, compose, Kubernetes, `plugin-registry up`) starts it again.
- `plugin-registry up`, which listens at a pipe: so it notices a worker that was stopped, too.
- A health check, which looks at a file that is touched as often (`shared/alive.py`).
"""

import contextlib
import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from shared.alive import touch

EVERY_S = 1.0
AT_LEAST_S = 10.0
"""A machine may be so busy that nothing of ours runs for some seconds, however short a lease is."""


def keep_telling(
    *,
    silent_s: float,
    supervisor_fd: int | None = None,
    alive_file: Path | None = None,
    lives: Callable[[], bool] = lambda: True,
) -> None:
    """Tell that we live, every second from now on, if *lives* says so; be ended after *silent_s* without that.

    *supervisor_fd* is the pipe at which a supervisor listens, *alive_file* what a health check looks at.
    """
    if supervisor_fd is not None:
        os.set_inheritable(supervisor_fd, False)  # or a child of ours would keep it open
        os.set_blocking(supervisor_fd, False)

    def tell() -> None:
        while True:
            if lives():
                faulthandler.dump_traceback_later(max(silent_s, AT_LEAST_S), exit=True, file=2)
                touch(alive_file)
                if supervisor_fd is not None:
                    with contextlib.suppress(OSError):  # it is full: nobody listens at the moment
                        os.write(supervisor_fd, b".")
            time.sleep(EVERY_S)

    threading.Thread(target=tell, name="liveness", daemon=True).start()
