"""Worker and beat by themselves, whose broker is not there: they live, say so, and end when they are told to."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.queues import celery_app, ring
from shared.registration import RegistrationId
from shared.settings import read_settings
from tests.faults.brokers import Valkey
from tests.faults.services import COMMANDS, service
from tests.running import PATIENCE_S, PROJECT, until
from tests.stores import sqlite_store
from worker.liveness import AT_LEAST_S

HELD = PROJECT / "tests" / "faults" / "held"


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port at which nobody listens."""
    with socket.socket() as kept:
        kept.bind(("127.0.0.1", 0))
        yield kept.getsockname()[1]


@pytest.fixture
def alone(tmp_path: Path, nobody: int) -> dict[str, str]:
    """The settings of a service that has a store and no broker."""
    return {
        "REGISTRY_DATABASE_URL": sqlite_store(tmp_path / "registry.db"),
        "REGISTRY_BROKER_URL": f"redis://127.0.0.1:{nobody}/0",
        "REGISTRY_ALIVE_FILE": str(tmp_path / "alive"),
    }


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    """One that runs."""
    (tmp_path / "valkey").mkdir()
    broker = Valkey(tmp_path / "valkey")
    with subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL) as process:
        until(broker.answers, what="Valkey")
        yield broker
        broker.close()
        process.kill()


def touched(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0


@pytest.mark.parametrize("name", [name for name in COMMANDS if name == "worker" or "beat" in name])
def test_a_sign_of_life_is_given_while_the_broker_is_away(name: str, tmp_path: Path, alone: dict[str, str]) -> None:
    file = tmp_path / "alive"
    with service(name, tmp_path, alone) as running:
        running.says("Connection refused")
        signs: set[float] = set()

        def four() -> bool:
            signs.add(touched(file))
            return len(signs) == 4

        until(four, what="a sign again and again")
        assert running.runs


@pytest.mark.faults_long
def test_a_worker_whose_loop_does_not_go_on_gives_no_sign(
    tmp_path: Path, alone: dict[str, str], valkey: Valkey
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    holding = {"PYTHONPATH": os.pathsep.join([str(HELD), str(PROJECT)]), "FAULTS_HOLD": str(marks)}
    environment = {**alone, **holding, "REGISTRY_BROKER_URL": valkey.url, "REGISTRY_LEASE_S": "3"}
    with service("worker", tmp_path, environment) as running:
        ring(celery_app(read_settings(broker_url=valkey.url)), [RegistrationId("no id at all")])
        until(lambda: not valkey.bells_waiting() and not valkey.messages_with_workers(), what="an engine")
        (marks / f"{running.process.pid}-loop").touch()
        running.says("loop does not move")
        running.process.wait(PATIENCE_S)
        assert time.time() - touched(tmp_path / "alive") > AT_LEAST_S / 2, "the last sign was long before its end"


@pytest.mark.parametrize("name", ["worker", "beat"])
def test_a_sign_that_cannot_be_given_is_refused_at_the_start(
    name: str, tmp_path: Path, alone: dict[str, str]
) -> None:
    with service(name, tmp_path, {**alone, "REGISTRY_ALIVE_FILE": str(tmp_path / "gone" / "alive")}) as running:
        assert running.process.wait(60) == 1
    assert running.said.startswith("REGISTRY_ALIVE_FILE: "), running.said
    assert running.said.count("\n") == 1
