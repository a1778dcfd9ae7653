"""A worker that cannot go on is ended and started again, whatever holds it up, and what it held is verified."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import a_submission, open_loopback
from tests.origin import Origin, Served
from tests.running import PROJECT, Registry, running_registry, until

HELD = PROJECT / "tests" / "faults" / "held"


@pytest.fixture
def marks(tmp_path: Path) -> Path:
    """Where a worker finds that it is to be held up."""
    marks = tmp_path / "marks"
    marks.mkdir()
    return marks


def holding(origin: Origin, marks: Path) -> dict[str, str]:
    return {
        **open_loopback(origin.port),
        "REGISTRY_LEASE_S": "3",
        "REGISTRY_SWEEP_INTERVAL_S": "0.5",
        "PYTHONPATH": os.pathsep.join([str(HELD), str(PROJECT)]),
        "FAULTS_HOLD": str(marks),
    }


def events(registry: Registry, *words: str) -> Callable[[], list[str]]:
    return lambda: [line for line in registry.output.read_text().splitlines() if all(each in line for each in words)]


def test_a_worker_that_is_held_up_or_stopped_is_ended_and_its_work_is_done(
    origin: Origin, tmp_path: Path, marks: Path, gate: threading.Event
) -> None:
    with running_registry(tmp_path / "state", "--workers", "2", env=holding(origin, marks)) as registry:
        artifacts = [Served(body=f"held {n}".encode() * 100, gate=gate) for n in range(6)]
        ids = [
            registry.register(
                a_submission(artifactUrl=origin.serve(each), checksum=each.checksum), prefer="respond-async"
            ).json()["id"]
            for each in artifacts
        ]
        until(lambda: all(each.requests for each in artifacts), what="every download being under way")
        held, stopped = registry.child("worker-1"), registry.child("worker-2")
        (marks / str(held.pid)).touch()
        stopped.suspend()
        gate.set()
        until(lambda: not held.is_running() and not stopped.is_running(), what="the end of both")
        assert until(events(registry, "Timeout (", "!"), what="where the held one stood")
        assert until(events(registry, "child ended", "worker-2", "it said nothing"), what="word of the stopped one")
        assert [registry.final(each)["status"] for each in ids] == ["registered"] * len(ids)
        assert {registry.child(name).pid for name in ("worker-1", "worker-2")}.isdisjoint({held.pid, stopped.pid})
        lost = until(
            lambda: [
                line
                for line in registry.get("/metrics").text.splitlines()
                if line.startswith("plugin_registry_workers_lost_total") and float(line.split()[1]) >= 2
            ],
            what="the count of workers that were lost",
        )
        assert lost


def test_a_worker_whose_loop_does_not_go_on_is_ended_and_its_work_is_done(
    origin: Origin, tmp_path: Path, marks: Path, gate: threading.Event
) -> None:
    """Its other threads live, and could say so for ever; no lease is renewed and no deadline passes meanwhile."""
    with running_registry(tmp_path / "state", "--workers", "1", env=holding(origin, marks)) as registry:
        artifact = Served(body=b"held " * 100, gate=gate)
        submission = a_submission(artifactUrl=origin.serve(artifact), checksum=artifact.checksum)
        registration_id = registry.register(submission, prefer="respond-async").json()["id"]
        until(lambda: artifact.requests, what="the download")
        held = registry.child("worker-1")
        (marks / f"{held.pid}-loop").touch()
        gate.set()
        assert until(events(registry, "loop does not move"), what="word of what holds it up")
        until(lambda: not held.is_running(), what="its end")
        assert until(events(registry, "Timeout (", "!"), what="where it stood")
        assert registry.final(registration_id)["status"] == "registered"
