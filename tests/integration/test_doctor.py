"""`doctor`: what is wrong with the machine, the store or the broker is said at once, and what is well as well."""

import json
import logging
import os
import resource
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import structlog
import trustme
from click.testing import CliRunner
from plugin_registry_client.command.main import main

from cli.doctor import doctor
from shared.settings import Settings
from tests.hostile_server import Behaviour, HostileServer, Wire
from tests.integration.test_queue import valkey
from tests.stores import postgresql_store, sqlite_store

__all__ = ["valkey"]  # the fixture

QUIET = structlog.make_filtering_bound_logger(logging.ERROR)


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Yield where a store is, in an environment without any other setting of ours.

    Logs are as quiet as doctor's own, but only for as long: loggers keep what they were first told.
    """
    monkeypatch.setattr("cli.doctor.configure_logs", lambda **_: structlog.configure(wrapper_class=QUIET))
    folder = tmp_path / "state"
    folder.mkdir()
    sqlite_store(folder / "registry.db")
    for name in [each for each in os.environ if each.startswith("REGISTRY_")]:
        monkeypatch.delenv(name, raising=False)
    yield {"REGISTRY_STATE_DIR": str(folder)}
    structlog.reset_defaults()


def findings(environment: dict[str, str], *options: str) -> dict[str, tuple[str, str]]:
    """Return what doctor says of each check: its health, and its sentence; of several the last."""
    done = CliRunner(env=environment).invoke(main, ["doctor", "--json", *options])
    found: list[dict[str, str]] = json.loads(done.stdout)["findings"]
    assert done.exit_code == (8 if any(each["health"] == "bad" for each in found) else 0)
    return {each["check"]: (each["health"], each["sentence"]) for each in found}


def test_where_all_is_well_each_line_says_so(
    environment: dict[str, str], valkey: tuple[Settings, psutil.Process, redis.Redis], postgresql_url: str
) -> None:
    with postgresql_store(postgresql_url) as url:
        environment |= {"REGISTRY_DATABASE_URL": url, "REGISTRY_BROKER_URL": valkey[0].broker_url}
        found = findings(environment, "--url", "https://127.0.0.1/")
        told = CliRunner(env=environment).invoke(doctor).stdout.splitlines()
    assert list(found) == ["settings", "store", "clock", "broker", "open files", "disk", "certificates", "egress"]
    assert {check for check, (health, _sentence) in found.items() if health == "ok"} >= {*found} - {
        "egress",
        "open files",
    }
    assert found["egress"][0] == "bad", "loopback may not be reached"
    assert len(told) == 8
    assert told[0].startswith("ok            settings")


def test_bad_settings_are_all_named_and_nothing_else_is_looked_at(environment: dict[str, str]) -> None:
    done = CliRunner(env=environment | {"REGISTRY_LEASE_S": "1", "REGISTRY_BROKER_URL": "x"}).invoke(doctor)
    assert done.exit_code == 8
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["bad", "bad", "not"]
    assert "REGISTRY_LEASE_S" in done.stdout
    assert "REGISTRY_BROKER_URL" in done.stdout


@pytest.mark.parametrize(
    ("changes", "check", "told"),
    [
        ({"REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "store", "refused"),
        ({"REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/x"}, "broker", "is not set"),
        ({"REGISTRY_BROKER_URL": "redis://127.0.0.1:1/0"}, "broker", "refused"),
    ],
)
def test_what_is_away_is_bad_and_says_why(
    environment: dict[str, str], changes: dict[str, str], check: str, told: str
) -> None:
    health, sentence = findings(environment | changes)[check]
    assert health == "bad"
    assert told in sentence


def test_a_broker_that_takes_no_messages_is_bad(
    environment: dict[str, str], valkey: tuple[Settings, psutil.Process, redis.Redis]
) -> None:
    valkey[2].config_set("maxmemory", "1")
    health, sentence = findings(environment | {"REGISTRY_BROKER_URL": valkey[0].broker_url})["broker"]
    assert (health, "OOM" in sentence) == ("bad", True)


def test_what_is_short_or_wrong_here_is_said(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (1024, 1024))
    monkeypatch.setattr("time.time", lambda: 1_000_000_000.0)
    monkeypatch.setattr("shutil.disk_usage", lambda _path: type("Usage", (), {"free": 50 * 2**20}))
    expired = trustme.CA()
    expired.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setattr("cli.doctor._until", lambda _certificate: datetime(2020, 1, 1, tzinfo=UTC))
    found = findings(
        environment | {"REGISTRY_DOWNLOADS": "1000", "REGISTRY_EGRESS_CA_FILE": str(tmp_path / "ca.pem")}
    )
    assert found["open files"][0] == "warn"
    assert "400 downloads" in found["open files"][1]
    assert found["clock"][0] == "warn"
    assert found["disk"] == ("bad", f"50 MiB are free in {environment['REGISTRY_STATE_DIR']}")
    assert found["certificates"][0] == "bad"
    assert "expired" in found["certificates"][1]


def test_an_artifact_is_reached_as_a_worker_would(environment: dict[str, str]) -> None:
    def serve(wire: Wire) -> None:
        wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    behaviour: Behaviour = serve
    with HostileServer(behaviour) as host:
        environment |= {
            "REGISTRY_EGRESS_SCHEMES": "http",
            "REGISTRY_EGRESS_PORTS": str(host.port),
            "REGISTRY_EGRESS_ALLOW_NETWORKS": "127.0.0.1/32",
        }
        found = findings(environment, "--url", f"http://127.0.0.1:{host.port}/a?secret")
        assert found["egress"] == ("warn", "127.0.0.1 answers with status 404")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    gone: dict[str, Any] = environment | {"REGISTRY_EGRESS_PORTS": str(port)}
    assert findings(gone, "--url", f"http://127.0.0.1:{port}/a")["egress"][0] == "bad"
