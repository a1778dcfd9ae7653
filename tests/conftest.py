"""What tests of every kind share: a store, an artifact host, a running registry."""

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from shared.registration import Submission
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from tests.engines import postgresql
from tests.origin import Origin, Served
from tests.running import Registry, running_registry
from tests.scopes import ByScope, rank_of
from tests.stores import sqlite_store

RING_AGAIN_AFTER_S = 60.0
_numbers = count(1)


def amqp_url() -> str:
    """Return where a RabbitMQ is to be had: TEST_AMQP_URL, or the standard port of this machine."""
    return os.environ.get("TEST_AMQP_URL", "amqp://guest:guest@127.0.0.1:5672//")


def pytest_configure() -> None:
    """Find servers where Debian has them, though not everybody's PATH leads there: what is installed is required."""
    os.environ["PATH"] = os.pathsep.join((os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs what this machine has not; with TEST_AMQP_URL set a RabbitMQ is required."""
    there = {
        "rabbitmq": "TEST_AMQP_URL" in os.environ or _listening("127.0.0.1", 5672),
        "promtool": bool(shutil.which("promtool")),
        "browser": bool(shutil.which("chromium") and shutil.which("chromedriver")),
    }
    missing = [marker for marker, found in there.items() if not found]
    left_out = [
        item
        for item in items
        if any(item.get_closest_marker(marker) for marker in missing)
        or not all(shutil.which(marker.args[0]) for marker in item.iter_markers("program"))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = sorted((item for item in items if item not in left_out), key=lambda item: rank_of(item.nodeid))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByScope:
    """Have what is started once be started in one process."""
    return ByScope(config, log)


def _listening(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=10).close()
    except OSError:
        return False
    return True


def open_loopback(port: int) -> dict[str, str]:
    """Return the settings under which a worker may fetch from a test's own host."""
    return {
        "REGISTRY_EGRESS_SCHEMES": "http,https",
        "REGISTRY_EGRESS_PORTS": f"443,{port}",
        "REGISTRY_EGRESS_ALLOW_NETWORKS": "127.0.0.1/32",
    }


def a_submission(**changes: str) -> dict[str, str]:
    """Return a submission as a client sends it, with a name that no other has."""
    return {
        "name": f"plugin {next(_numbers)}",
        "version": "1.0.0",
        "pluginType": "log",
        "artifactUrl": "https://artifacts.example.com/plugin.tar.gz",
        "checksum": "sha256:" + "ab" * 32,
    } | changes


def a_parsed_submission(**changes: str) -> Submission:
    return Submission.model_validate(a_submission(**changes))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(sqlite_store(tmp_path / "registry.db"))
    yield database
    database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database, ring_again_after_s=RING_AGAIN_AFTER_S)


@pytest.fixture(scope="session")
def origin() -> Iterator[Origin]:
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="session")
def registry(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """The running command, quick to try again and with small limits, but patient: the machine may be busy."""
    env = {
        **open_loopback(origin.port),
        "REGISTRY_MAX_ATTEMPTS": "2",
        "REGISTRY_RETRY_BASE_S": "0.2",
        "REGISTRY_SWEEP_INTERVAL_S": "0.3",
        "REGISTRY_MAX_ARTIFACT_BYTES": str(2**20),
        "REGISTRY_BAD_TOKENS_A_MINUTE": "0",
        "REGISTRY_SYNC_WAIT_S": "60",
        "REGISTRY_READ_TIMEOUT_S": "120",
    }
    with running_registry(tmp_path_factory.mktemp("registry") / "state", env=env) as running:
        yield running


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds artifacts back; open it to let them go. It opens by itself when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def artifact(origin: Origin) -> Callable[..., tuple[dict[str, str], Served]]:
    """Serve an artifact of its own, and return the submission that declares it truly."""

    def make(body: bytes | None = None, **served: Any) -> tuple[dict[str, str], Served]:
        artifact = Served(body=f"artifact {next(_numbers)}".encode() * 100 if body is None else body, **served)
        return a_submission(artifactUrl=origin.serve(artifact), checksum=artifact.checksum), artifact

    return make


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The maintenance database of a PostgreSQL of the suite's own, or of TEST_DATABASE_URL's."""
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield given
        return
    with postgresql(durable=False) as url:
        yield url
