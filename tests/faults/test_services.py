"""Worker and beat by themselves, whose broker is not there: they live, say so, and end when they are told to."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from shared.queues import celery_app, ring
from shared.registration import RegistrationId
from shared.settings import read_settings
from tests.faults.brokers import Valkey
from tests.faults.services import COMMANDS, Service, service
from tests.running import PATIENCE_S, PROJECT, until
from tests.stores import sqlite_store
from worker.liveness import AT_LEAST_S


def quickly(first: str, *others: str) -> list[Any]:
    """Return a case for each service; all but the *first* are for those who have time."""
    return [
        first,
        *(pytest.param(each, marks=pytest.mark.faults_long) for each in dict.fromkeys(others) if each != first),
    ]


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
def silent() -> Iterator[list[socket.socket]]:
    """Servers that take connections and say nothing."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
    for each in servers:
        each.settimeout(PATIENCE_S)
    yield servers
    for each in servers:
        each.close()


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


@pytest.fixture
def truly_read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder in which not even root can write, where we may make one; else one in which we may not."""
    folder = tmp_path / "read-only"
    folder.mkdir(0o500)
    folder.chmod(0o555)
    mount = ("mount", "-t", "tmpfs", "-o", "ro", "none", str(folder))
    mounted = os.getuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0
    yield folder
    if mounted:
        subprocess.run(("umount", "--lazy", str(folder)), check=True)


def ready(port: int) -> bool:
    return requests.get(f"http://127.0.0.1:{port}/readyz", timeout=PATIENCE_S).status_code == 200


WORKS: dict[str, Callable[[Service, Valkey], object]] = {
    "worker": lambda _running, valkey: valkey.consumers(),
    "beat": lambda _running, valkey: valkey.ticks_waiting(),
    "beat of the worker's app": lambda _running, valkey: valkey.ticks_waiting(),
    "api": lambda running, _valkey: [port for port in running.ports if ready(port)],
}


def touched(file: Path) -> float:
    return file.stat().st_mtime if file.exists() else 0


@pytest.mark.parametrize("name", quickly("beat", "worker", "beat of the worker's app"))
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


@pytest.mark.parametrize("name", quickly("beat", *COMMANDS))
def test_nothing_has_a_use_for_a_home_or_for_the_folder_it_runs_in(
    name: str, tmp_path: Path, valkey: Valkey, truly_read_only: Path
) -> None:
    """O10."""
    alone = {"REGISTRY_DATABASE_URL": sqlite_store(tmp_path / "registry.db"), "REGISTRY_BROKER_URL": valkey.url}
    with service(name, tmp_path, alone, cwd=truly_read_only) as running:
        if name == "migrate":
            assert running.process.wait(PATIENCE_S) == 0, running.said
        else:
            until(lambda: WORKS[name](running, valkey), what=f"{name} at work: {running.said}")
            assert running.end() in {0, -signal.SIGTERM}, running.said
        assert "Traceback" not in running.said
    assert not list(truly_read_only.iterdir())


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("worker", signal.SIGTERM),
        *(
            pytest.param(*each, marks=pytest.mark.faults_long)
            for each in (("worker", signal.SIGINT), ("beat", signal.SIGTERM), ("beat", signal.SIGINT))
        ),
    ],
)
def test_who_is_connecting_stops_when_told_to_and_waits_for_nothing(
    name: str, number: signal.Signals, tmp_path: Path, alone: dict[str, str], silent: list[socket.socket]
) -> None:
    """Each of the sentinels is asked in turn, and given five seconds."""
    url = ";".join(f"sentinel://127.0.0.1:{each.getsockname()[1]}" for each in silent)
    with service(name, tmp_path, {**alone, "REGISTRY_BROKER_URL": url}) as running:
        asked, _ = silent[0].accept()
        with asked:
            told_at = time.monotonic()
            assert running.end(number) == 0, running.said
            took_s = time.monotonic() - told_at
    assert took_s < 5 * len(silent), "what one try takes"
    assert "Traceback" not in running.said


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


@pytest.mark.parametrize("name", quickly("beat", "worker"))
def test_a_sign_that_cannot_be_given_is_refused_at_the_start(
    name: str, tmp_path: Path, alone: dict[str, str]
) -> None:
    with service(name, tmp_path, {**alone, "REGISTRY_ALIVE_FILE": str(tmp_path / "gone" / "alive")}) as running:
        assert running.process.wait(60) == 1
    assert running.said.startswith("REGISTRY_ALIVE_FILE: "), running.said
    assert running.said.count("\n") == 1
