"""Where a process of ours spends its time, so that a missed goal is shown with what limits it."""

import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import psutil

from bench.stand import PEERS_PYTHON

OURS = ("api/", "shared/", "worker/")
SHOWN = 6


def profile(process: psutil.Process, *, seconds: int) -> str:
    """Return where the threads of *process* are, waiting included, whenever they are in code of ours.

    Each place is the innermost line of ours and, where that is another, the line it is at by that.
    """
    with tempfile.TemporaryDirectory() as folder:
        stacks = Path(folder) / "stacks"
        command = (str(PEERS_PYTHON.parent / "py-spy"), "record", "--idle", "--format", "raw", "--rate", "100")
        options = ("--duration", str(seconds), "--pid", str(process.pid), "--output", str(stacks))
        done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
        if not stacks.exists():
            return f"no profile: {(done.stderr.strip().splitlines() or ['py-spy said nothing'])[-1]}"
        places = _places(stacks.read_text())
    total = sum(places.values())
    return "; ".join(f"{count / total:.0%} {place}" for place, count in places.most_common(SHOWN))


def _places(stacks: str) -> Counter[str]:
    places: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        ours = [frame for frame in frames if any(f"({folder}" in frame for folder in OURS)]
        if not ours or "repeat (" in ours[-1] or "Bell._run" in ours[-1]:
            continue  # a thread of the pool without work, or one that waits for its second to pass
        at = "" if frames[-1] == ours[-1] else f", in `{frames[-1]}`"
        places[f"`{ours[-1]}`{at}"] += int(count)
    return places
