"""``python -m tests.fuzz``: what strangers might send, for a bounded time. What breaks is kept, to be had again."""

import argparse
import hashlib
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import Finding, Made, Sum, trial

FOUND = Path(__file__).parent.parent.parent / ".fuzz"
"""Where findings are written; git ignores it. Those that were mended become rows of `tests/fuzz/found.py`."""
MOST_FINDINGS = 10
"""Of one target in one run: whoever has so many has enough to mend."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together (600)")
    parser.add_argument("--target", choices=TARGETS, action="append", metavar="NAME", help=", ".join(TARGETS))
    parser.add_argument("--seed", type=int, help="an earlier run's, to have its inputs again")
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="run one target on this input alone")
    asked = parser.parse_args(arguments)
    names = asked.target or [*TARGETS]
    if asked.repeat is not None:
        if len(names) != 1:
            parser.error("--repeat needs --target")
        summed = trial(TARGETS[names[0]], [asked.repeat.read_bytes()], time.monotonic() + 3600)
        print("\n".join(each.story for each in summed.findings))
        return 1 if _told(names[0], summed, "") else 0
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    print(f"seed {seed}; {asked.seconds / len(names):.0f} s for each of {len(names)} targets", flush=True)
    found = 0
    for name in names:
        summed = _fuzzed(name, seed, asked.seconds / len(names))
        found += _told(name, summed, f"--seed {seed}")
    return 1 if found else 0


def _fuzzed(name: str, seed: int, seconds: float) -> Sum:
    """Run one target for *seconds*, going on behind each finding."""
    whole, until, wheres = Sum(), time.monotonic() + seconds, set[str]()
    inputs = Made(TARGETS[name], seed)
    while time.monotonic() < until and len(wheres) < MOST_FINDINGS:
        more = trial(
            inputs.target, inputs, until, first=whole.inputs, progress=lambda sofar: _progress(name, whole, sofar)
        )
        whole.inputs += more.inputs
        whole.slowest_ms = max(whole.slowest_ms, more.slowest_ms)
        whole.growth_bytes = max(whole.growth_bytes, more.growth_bytes)
        for each in more.findings:
            if f"{each.kind} {each.where}" not in wheres:
                wheres.add(f"{each.kind} {each.where}")
                whole.findings.append(each)
                _keep(name, each, inputs[each.number])
    return whole


def _keep(name: str, finding: Finding, data: bytes) -> None:
    """Write the input and the story of *finding* down, and say how to have it again."""
    FOUND.mkdir(exist_ok=True)
    file = FOUND / f"{name}-{finding.kind}-{hashlib.sha256(data).hexdigest()[:8]}"
    file.write_bytes(data)
    file.with_suffix(".txt").write_text(f"input {finding.number} {finding.kind} {finding.where}\n\n{finding.story}\n")
    _line()
    where = finding.where or finding.story
    print(f"FOUND {name} {finding.kind} {where}: input {finding.number}, {len(data)} bytes")
    print(f"      python -m tests.fuzz --target {name} --repeat {file}", flush=True)


def _told(name: str, summed: Sum, how: str) -> int:
    """Print what a target's inputs took; return how many findings there were."""
    _line()
    print(
        f"{name:12} {summed.inputs:9,} inputs, slowest {summed.slowest_ms:4.0f} ms, "
        f"grew by {summed.growth_bytes / 2**20:4.1f} MiB, {len(summed.findings)} findings {how}",
        flush=True,
    )
    return len(summed.findings)


_last = [0.0]


def _progress(name: str, whole: Sum, sofar: Sum) -> None:
    line = f"{name}: {whole.inputs + sofar.inputs:,} inputs, {len(whole.findings)} findings"
    if sys.stderr.isatty():
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)
    elif time.monotonic() - _last[0] > 10:
        print(line, file=sys.stderr, flush=True)
        _last[0] = time.monotonic()


def _line() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
