"""``python -m tests.soak [--seconds 3600]``: mixed traffic against one worker, for long.

Small, large, slow, broken and hostile artifacts, at a steady rate, over the registry as `plugin-registry up` runs it.
It fails if the worker's memory or descriptors grow by more than a tenth from the second quarter to the last, if
anything never ends or ends as it should not, or if the worker has ended meanwhile.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import requests

from tests.conftest import a_submission, open_loopback
from tests.hostile_server import (
    BODY,
    CHUNKED,
    LENGTH,
    OK,
    Behaviour,
    HostileServer,
    Wire,
    answering,
    endless_continue,
    redirecting_for_ever,
    resetting_at_once,
    serving,
    serving_whatever_is_asked,
)
from tests.running import Registry, running_registry
from tests.workbench import checksum_of

DEADLINE_S = 20
LARGE = b"large artifact. " * (2**20 // 2)
EVERY_S = 5.0
RATE = 40
"""Submissions a second."""


def slow(wire: Wire) -> None:
    wire.head(OK, LENGTH)
    for start in range(0, len(BODY), 100):
        wire.send(BODY[start : start + 100])
        wire.pause(0.5)


def too_slow(wire: Wire) -> None:
    wire.head(OK, LENGTH)
    wire.hold()


KINDS: dict[str, tuple[int, Behaviour, bytes, set[str]]] = {
    # kind: weight, behaviour, what is declared, the codes it may end with ("" is registered)
    "small": (60, serving_whatever_is_asked(), BODY, {""}),
    "new connection": (10, serving, BODY, {""}),
    "large": (2, answering(OK, f"Content-Length: {len(LARGE)}", body=LARGE), LARGE, {""}),
    "slow": (10, slow, BODY, {""}),
    "mismatch": (6, serving, b"something else", {"digest-mismatch"}),
    "broken": (4, resetting_at_once, BODY, {"truncated", "connect-failed"}),
    "past its deadline": (1, too_slow, BODY, {"deadline-passed"}),
    "redirects for ever": (3, redirecting_for_ever, BODY, {"bad-redirect"}),
    "tiny chunks": (2, answering(OK, CHUNKED, body=b"1\r\nx\r\n" * 20_000), BODY, {"bad-response"}),
    "interim answers": (2, endless_continue, BODY, {"bad-response"}),
}


@dataclass
class Soak:
    """One run, and what it has seen."""

    registry: Registry
    worker: psutil.Process
    hosts: dict[str, HostileServer]
    open: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Registrations that were not final when last looked at, their kinds, and when they were submitted."""
    ended: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    mib: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    session: requests.Session = field(default_factory=requests.Session)

    def submit(self) -> None:
        """Submit one artifact of some kind."""
        (kind,) = random.choices(list(KINDS), [each[0] for each in KINDS.values()])
        body = a_submission(artifactUrl=self.hosts[kind].url, checksum=checksum_of(KINDS[kind][2]))
        answer = self.session.post(
            f"{self.registry.address}/api/v1/plugins",
            json=body,
            headers={"Authorization": f"Bearer {self.registry.token}", "Prefer": "respond-async"},
            timeout=60,
        )
        answer.raise_for_status()
        self.open[answer.json()["id"]] = kind, time.monotonic()

    def look(self) -> None:
        """See what has ended, how the worker is, and whether a download is older than it may be."""
        for id_, (kind, begun) in list(self.open.items())[:400]:
            found = self.session.get(
                f"{self.registry.address}/api/v1/registrations/{id_}",
                headers={"Authorization": f"Bearer {self.registry.token}"},
                timeout=60,
            ).json()
            if found["status"] in {"queued", "verifying"}:
                if time.monotonic() - begun > 2 * DEADLINE_S:
                    self.wrong.append(f"{kind}: {id_} is {found['status']}, long after its deadline")
                continue
            del self.open[id_]
            self.ended[kind] += 1
            code = (found.get("problem") or {}).get("code", "")
            if code not in KINDS[kind][3]:
                self.wrong.append(f"{kind}: {id_} ended {code or 'registered'}")
        self.mib.append(self.worker.memory_info().rss / 2**20)
        self.files.append(self.worker.num_fds())

    def said_at_the_end(self) -> list[str]:
        """Return what is wrong."""
        wrong = self.wrong[:20]
        if not self.worker.is_running():
            wrong.append("the worker has ended")
        for what, seen in (("MiB of memory", self.mib), ("descriptors", self.files)):
            quarter = len(seen) // 4
            early, late = statistics.median(seen[quarter : 2 * quarter]), statistics.median(seen[-quarter:])
            print(f"{what}: {early:.1f} in the second quarter, {late:.1f} in the last, {max(seen):.1f} at most")
            if late > 1.1 * early:
                wrong.append(f"{what} grew from {early:.1f} to {late:.1f}")
        if self.open:
            wrong.append(f"{len(self.open)} never ended: {Counter(kind for kind, _ in self.open.values())}")
        return wrong


def drive(soak: Soak, seconds: float) -> None:
    """Submit and look, for so many seconds; then wait until all has ended."""
    over = time.monotonic() + seconds
    next_look = time.monotonic()
    while (now := time.monotonic()) < over:
        soak.submit()
        if now >= next_look:
            soak.look()
            next_look = now + EVERY_S
            told = f"{over - now:5.0f} s left, {sum(soak.ended.values())} ended, {len(soak.open)} open"
            print(f"\r{told}, {soak.mib[-1]:.0f} MiB, {soak.files[-1]} files ", end="", file=sys.stderr, flush=True)
        time.sleep(max(0, 1 / RATE - (time.monotonic() - now)))
    patience = time.monotonic() + 10 * DEADLINE_S
    while soak.open and time.monotonic() < patience:
        soak.look()
        time.sleep(1)
    print(file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        hosts = {kind: running.enter_context(HostileServer(each[1])) for kind, each in KINDS.items()}
        env = {
            **open_loopback(1),
            "REGISTRY_EGRESS_PORTS": "1024-65535",
            "REGISTRY_FETCH_DEADLINE_S": str(DEADLINE_S),
            "REGISTRY_MAX_ATTEMPTS": "1",
            "REGISTRY_MAX_DOWNLOADS_PER_HOST": "256",
        }
        registry = running.enter_context(running_registry(Path(folder) / "state", "--workers", "1", env=env))
        soak = Soak(registry, registry.child("worker-1"), hosts)
        drive(soak, asked.seconds)
        wrong = soak.said_at_the_end()
        print(f"ended: {dict(soak.ended)}")
        held_up = [line for line in Path(registry.output).read_text().splitlines() if "loop held up" in line]
        print(f"the loop was held up {len(held_up)} times", *held_up[:10], sep="\n")
    if wrong:
        sys.exit("\n".join(wrong))
    print("all of it held")


if __name__ == "__main__":
    main()
