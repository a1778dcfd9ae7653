"""`deploy/systemd`: units that systemd finds nothing wrong with, and whose commands and settings are what they say.

`tests/faults/test_units.py` runs what they say.
"""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.up import up
from shared.settings import Settings
from tests.integration.test_kubernetes import base, bytes_of, compose, container, pod
from tests.running import PROJECT

UNITS = PROJECT / "deploy" / "systemd"
COMMON = UNITS / "plugin-registry-.service.d" / "all.conf"
INSTALLED = "/opt/plugin-registry/bin/"
SERVICES = ("api", "worker@", "beat", "migrate", "up")
OF_MANY_MACHINES = ("api", "worker@", "beat", "migrate")
Unit = dict[tuple[str, str], list[str]]


def parsed(text: str) -> Unit:
    """Return the values of each key of each section, in their order."""
    found: Unit = {}
    section = ""
    for line in re.sub(r"\\\n", " ", text).splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            found.setdefault((section, key), []).append(value)
    return found


def unit(service: str) -> Unit:
    """Return the unit of *service* with what all have in common, which systemd reads after it."""
    own, common = parsed((UNITS / f"plugin-registry-{service}.service").read_text()), parsed(COMMON.read_text())
    return {key: own.get(key, []) + common.get(key, []) for key in own | common}


def one(service: str, key: str) -> str:
    (value,) = unit(service)["Service", key]
    return value


def command(service: str) -> list[str]:
    words = shlex.split(one(service, "ExecStart"))
    assert words[0].startswith(INSTALLED)
    return [words[0].removeprefix(INSTALLED), *words[1:]]


def environment(service: str) -> dict[str, str]:
    return dict(each.split("=", 1) for line in unit(service)["Service", "Environment"] for each in shlex.split(line))


def credentials(service: str) -> dict[str, str]:
    return dict(each.split(":", 1) for each in unit(service).get(("Service", "LoadCredential"), []))


def installed(folder: Path) -> Path:
    """Copy the units to *folder* as they would be where this environment is the registry's."""
    shutil.copytree(UNITS, folder, dirs_exist_ok=True)
    for file in folder.glob("*.service"):
        file.write_text(file.read_text().replace(INSTALLED, f"{sys.prefix}/bin/"))
    return folder


def analyzed(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60)


def verified(folder: Path) -> str:
    """Return what systemd finds wrong with the units in *folder*."""
    names = [f"plugin-registry-{each}{'1' if each.endswith('@') else ''}.service" for each in SERVICES]
    files = [folder / each for each in (*names, "plugin-registry.target")]
    done = analyzed("verify", "--man=no", "--recursive-errors=no", *files)
    return done.stderr + done.stdout or ("" if done.returncode == 0 else "it does not say what")


@pytest.mark.program("systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    assert verified(installed(tmp_path)) == ""


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("Restart=always", "Restart=allways"),
        ("MemoryMax=", "MemoryMaximum="),
        ("/bin/celery", "/bin/celeri"),
        ("[Service]", "[Servise]"),
    ],
)
def test_systemd_finds_what_is_wrong_with_a_unit(tmp_path: Path, written: str, instead: str) -> None:
    beat = installed(tmp_path) / "plugin-registry-beat.service"
    assert written in beat.read_text()
    beat.write_text(beat.read_text().replace(written, instead))
    assert verified(tmp_path) != ""


MAX_EXPOSURE = 2.0
"""Of 10. What is left is that they talk to a network, and that nobody gave them a root of their own."""


@pytest.mark.program("systemd-analyze")
@pytest.mark.parametrize("service", SERVICES)
def test_each_is_walled_in_as_systemd_sees_it_and_would_not_be_without_what_is_common(
    tmp_path: Path, service: str
) -> None:
    folder = installed(tmp_path)
    file = folder / f"plugin-registry-{service}.service"
    threshold = f"--threshold={MAX_EXPOSURE * 10:.0f}"
    done = analyzed("security", "--offline=true", threshold, file)
    assert done.returncode == 0, done.stdout
    (folder / COMMON.relative_to(UNITS)).unlink()
    assert analyzed("security", "--offline=true", threshold, file).returncode != 0


def test_there_are_no_other_units_and_each_is_walled_in() -> None:
    assert {file.name for file in UNITS.iterdir()} == {
        *(f"plugin-registry-{each}.service" for each in SERVICES),
        "plugin-registry-.service.d",
        "plugin-registry.target",
    }
    common = parsed(COMMON.read_text())
    assert {("Service", key): value for key, value in WALLS.items()}.items() <= common.items()
    for service in SERVICES:
        own = parsed((UNITS / f"plugin-registry-{service}.service").read_text())
        added_up = {("Service", "Environment"), ("Unit", "After")}
        assert own.keys() & common.keys() <= added_up, f"{service}: what is common wins"
        assert ("Service", "WatchdogSec") not in own
    for service in OF_MANY_MACHINES:
        assert one(service, "ProcSubset") == "pid"


WALLS = {
    "DynamicUser": ["yes"],
    "NoNewPrivileges": ["yes"],
    "CapabilityBoundingSet": [""],
    "PrivateTmp": ["yes"],
    "PrivateDevices": ["yes"],
    "PrivateUsers": ["yes"],
    "ProtectSystem": ["strict"],
    "ProtectHome": ["yes"],
    "MemoryDenyWriteExecute": ["yes"],
    "RestrictAddressFamilies": ["AF_UNIX AF_INET AF_INET6 AF_NETLINK"],
    "SystemCallFilter": ["@system-service", "~@privileged @resources", "setrlimit"],
    "UMask": ["0077"],
    "LimitCORE": ["0"],
}


def test_they_run_what_compose_runs() -> None:
    hosts = {"0.0.0.0": "127.0.0.1"}  # behind a proxy of the same machine
    assert command("api") == [hosts.get(word, word) for word in compose()["api"]["command"]]
    assert command("beat") == compose()["beat"]["command"]
    assert command("worker@") == [*compose()["worker"]["command"], "--hostname", "worker-%i@%%h"]
    assert command("migrate") == container(base(), "migrate")["command"]
    assert command("up") == [
        "plugin-registry",
        "up",
        *("--host", "127.0.0.1", "--port", "8080", "--state", "%S/plugin-registry"),
    ]


def test_a_silent_name_server_holds_beat_up_for_no_longer_than_in_compose() -> None:
    """Elsewhere it is asked by threads, or in turns that have limits of ours."""
    limits = compose()["beat"]["dns_opt"]
    assert environment("beat")["RES_OPTIONS"].split() == limits
    options = pod(base(), "beat")["dnsConfig"]["options"]
    assert [f"{each['name']}:{each['value']}" for each in options] == limits


def test_settings_exist_and_secrets_are_credentials_of_those_who_need_them() -> None:
    known = {f"REGISTRY_{field.upper()}" for field in Settings.model_fields}
    store, broker = "REGISTRY_DATABASE_URL_FILE", "REGISTRY_BROKER_URL_FILE"
    expected = {
        "api": {store: "database-url", broker: "broker-url"},
        "worker@": {store: "database-url", broker: "broker-url"},
        "beat": {broker: "broker-url"},
        "migrate": {store: "owner-database-url"},
        "up": {},
    }
    for service in SERVICES:
        given = {key: value for key, value in environment(service).items() if key.startswith("REGISTRY_")}
        assert {key.removesuffix("_FILE") for key in given} <= known
        assert given == {key: f"%d/{credential}" for key, credential in expected[service].items()}
        assert credentials(service) == {each: f"/etc/plugin-registry/{each}" for each in expected[service].values()}
        assert unit(service)["Service", "EnvironmentFile"] == ["-/etc/plugin-registry/settings"]


def test_migrate_comes_first_and_what_runs_on_is_started_again_without_an_end() -> None:
    assert one("migrate", "Type") == "oneshot"
    for service in ("api", "worker@"):
        assert "plugin-registry-migrate.service" in unit(service)["Unit", "After"]
    for service in OF_MANY_MACHINES:
        assert unit(service)["Unit", "PartOf"] == ["plugin-registry.target"]
        assert unit(service)["Install", "WantedBy"] == ["plugin-registry.target"]
    for service in ("api", "worker@", "beat", "up"):
        assert (one(service, "Type"), one(service, "Restart")) == ("exec", "always")
        assert unit(service)["Unit", "StartLimitIntervalSec"] == ["0"]
    assert (one("up", "StateDirectory"), one("up", "StateDirectoryMode")) == ("plugin-registry", "0700")


def test_limits_are_those_of_the_other_deployments() -> None:
    for service in OF_MANY_MACHINES:
        name = service.removesuffix("@")
        limit = container(base(), name)["resources"]["limits"]["memory"]
        assert bytes_of(one(service, "MemoryMax") + "i") == bytes_of(limit)
        if name != "migrate":
            assert f"{one(service, 'TimeoutStopSec')}s" == compose()[name]["stop_grace_period"]


def test_the_unit_of_one_machine_has_options_that_there_are() -> None:
    """What it starts is started by every test of one machine (`tests/running.py`)."""
    program, verb, *arguments = command("up")
    context = up.make_context(verb, arguments)
    assert (program, context.info_name) == ("plugin-registry", "up")
    assert context.params == {"host": "127.0.0.1", "port": 8080, "state": Path("%S/plugin-registry"), "workers": 1}
