"""What the units of `deploy/systemd` run is run as they say, with their environment and secrets as files, and works.

Not by systemd: that its walls let through what the services need was tried on a real one (docs/operations.md).
"""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from tests.conftest import a_submission, open_loopback
from tests.engines import fresh_database
from tests.faults.brokers import Valkey, free_port
from tests.integration.test_systemd import command, environment
from tests.origin import Origin, Served
from tests.running import PATIENCE_S, clean_environment, until

CLEAN = (0, -signal.SIGTERM)
"""What systemd takes for an end that was asked for."""


class Machine:
    """Runs what units say, as the service manager of a plain machine would, but for its walls."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.settings = folder, settings
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, service: str, instance: str = "", **instead: str) -> "subprocess.Popen[str]":
        """Start *service*, with some words *instead* of those of its command."""
        said = {"%%": "%", "%d": str(self.folder), "%i": instance, "%S": str(self.folder)}

        def resolved(text: str) -> str:
            return re.sub("%.", lambda found: said[found[0]], text)

        program, *arguments = (instead.get(word, resolved(word)) for word in command(service))
        env = {key: resolved(value) for key, value in environment(service).items()}
        with (self.folder / f"{service}.log").open("w") as log:
            process = subprocess.Popen(
                [f"{sys.prefix}/bin/{program}", *arguments],
                env=_nearly_nothing() | self.settings | env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
            )
        self.running[service] = process
        return process

    def told(self, service: str) -> str:
        return (self.folder / f"{service}.log").read_text()

    def close(self) -> None:
        for process in self.running.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def _nearly_nothing() -> dict[str, str]:
    """Return what a service finds in its environment that no unit gives it."""
    kept = clean_environment()
    return {key: kept[key] for key in ("PYTHONPATH", "LANG") if key in kept} | {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def machine(tmp_path: Path, postgresql_url: str, origin: Origin) -> Iterator[Machine]:
    """Yield a machine with an empty store and a broker, whose secrets are files."""
    with ExitStack() as stack:
        database = stack.enter_context(fresh_database(postgresql_url))
        with psycopg.connect(postgresql_url, autocommit=True) as connection:
            connection.execute(
                "DO $$ BEGIN CREATE ROLE registry_serve; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
            )
        broker = Valkey(tmp_path)
        server = subprocess.Popen(broker.command(), stdout=subprocess.DEVNULL)
        stack.callback(server.wait)
        stack.callback(server.kill)
        until(broker.answers, what="the broker")
        for secret, value in (
            ("owner-database-url", database),
            ("database-url", database),
            ("broker-url", broker.url),
        ):
            (tmp_path / secret).write_text(f"{value}\n")
        machine = Machine(tmp_path, **open_loopback(origin.port), REGISTRY_SWEEP_INTERVAL_S="0.3")
        stack.callback(machine.close)
        yield machine


@pytest.mark.faults_long
def test_what_the_units_run_verifies_and_ends_when_it_is_told_to(machine: Machine, origin: Origin) -> None:
    assert machine.start("migrate").wait(PATIENCE_S) == 0, machine.told("migrate")
    port = str(free_port())
    machine.start("api", **{"8080": port})
    machine.start("worker@", "1")
    machine.start("beat")
    address = f"http://127.0.0.1:{port}"
    until(lambda: _status(f"{address}/readyz") == 200, what="the api")
    artifact = Served(body=b"what is verified by units")
    submission = a_submission(artifactUrl=origin.serve(artifact), checksum=artifact.checksum)
    auth = {"Authorization": f"Bearer {_token(machine)}"}
    answer = requests.post(
        f"{address}/api/v1/plugins", json=submission, headers=auth | {"Prefer": "wait=60"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 200, answer.text

    def swept() -> Any:
        return (
            requests.get(f"{address}/api/v1/snapshot", headers=auth, timeout=PATIENCE_S).json()["sweptSAgo"]
            is not None
        )

    until(swept, what="what beat sends")
    for service in ("beat", "worker@", "api"):
        machine.running[service].send_signal(signal.SIGTERM)
        assert machine.running[service].wait(PATIENCE_S) in CLEAN, machine.told(service)


def _status(url: str) -> int | None:
    try:
        return requests.get(url, timeout=5).status_code
    except requests.RequestException:
        return None


def _token(machine: Machine) -> str:
    done = subprocess.run(
        [f"{sys.prefix}/bin/plugin-registry", "token", "create", "--scope", "register", "--scope", "read"],
        env=_nearly_nothing() | {"REGISTRY_DATABASE_URL": (machine.folder / "database-url").read_text().strip()},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    return str(done.stdout.strip())
