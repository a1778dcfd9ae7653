"""compose.yaml and the Dockerfile: what the Compose specification asks of them, and what we promise ourselves.

That they run is `make compose-demo`'s to prove: it needs a container engine, this needs none.
"""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from fnmatch import fnmatch
from importlib import import_module
from importlib.resources import files
from typing import Any

import jsonschema_rs
import pytest
from celery import Celery
from celery.bin.beat import beat
from celery.bin.worker import worker
from ruamel.yaml import YAML

from api.main import where_to_listen
from cli.main import main
from shared.settings import Settings
from tests.running import PROJECT

RAW: dict[str, Any] = YAML(typ="safe", pure=True).load((PROJECT / "compose.yaml").read_text())
DOCKERFILE = (PROJECT / "Dockerfile").read_text()

OURS = {"api", "worker", "beat", "migrate"}
LONG_RUNNING = {"api", "worker", "beat", "postgres", "valkey", "flower"}
SERVICES = LONG_RUNNING | {"migrate"}
SECRET = {"POSTGRES_PASSWORD": "the-secret"}


class Unset(Exception):
    """A variable that must be set is not."""


def interpolated(document: Any, environment: Mapping[str, str]) -> Any:
    """Return *document* with its variables replaced, as the Compose specification says."""
    if isinstance(document, dict):
        return {key: interpolated(value, environment) for key, value in document.items()}
    if isinstance(document, list):
        return [interpolated(each, environment) for each in document]
    if not isinstance(document, str):
        return document

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        assert found["name"], f"a stray $ in {document!r}"
        if value := environment.get(found["name"]):
            return value
        if found["how"] == ":?":
            raise Unset(found["name"])
        return found["rest"] or ""

    return re.sub(r"\$\$|\$(?:\{(?P<name>\w+)(?P<how>:[-?])?(?P<rest>[^}]*)\})?", replace, document)


def services(**environment: str) -> dict[str, Any]:
    found: dict[str, Any] = interpolated(RAW, SECRET | environment)["services"]
    return found


def strings(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for value in document.values():
            yield from strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings(value)
    elif isinstance(document, str):
        yield document


@pytest.mark.parametrize("document", [RAW, interpolated(RAW, SECRET)], ids=["as written", "interpolated"])
def test_is_valid_by_the_compose_specification(document: dict[str, Any]) -> None:
    schema = json.loads((files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document)] == []
    broken = {**document, "services": {**document["services"], "api": {"imag": "misspelled"}}}
    assert not validator.is_valid(broken)


def test_holds_the_services_and_starts_all_but_flower() -> None:
    assert {name: each.get("profiles", []) for name, each in services().items()} == {
        name: ["ops"] if name == "flower" else [] for name in SERVICES
    }


def test_does_not_start_without_a_password() -> None:
    with pytest.raises(Unset, match="POSTGRES_PASSWORD"):
        interpolated(RAW, {})


def test_needs_nothing_but_the_password() -> None:
    required = {name for text in strings(RAW) for name in re.findall(r"(?<!\$)\$\{(\w+):?\?", text)}
    assert required == {"POSTGRES_PASSWORD"}


def test_holds_no_secret() -> None:
    for name, service in RAW["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|TOKEN|AUTH|KEY|CRED", variable):
                assert re.fullmatch(r"\$\{\w+(:\?[^}]*|:-)\}", value), f"{name}: {variable} has a value in the file"
    for text in strings(RAW):
        assert not re.search(r"://[^/\s]*:[^/\s]*@", text), f"a password in {text!r}"
        assert not re.search(r"prg_\w{8}|-----BEGIN", text)
    carriers = {
        (name, variable)
        for name, service in services().items()
        for variable, value in service.get("environment", {}).items()
        if SECRET["POSTGRES_PASSWORD"] in value
    }
    expected = {(name, "PGPASSWORD") for name in OURS | {"flower"}} | {("postgres", "POSTGRES_PASSWORD")}
    assert carriers == expected


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_runs_with_as_few_rights_as_it_can(name: str) -> None:
    service = services()[name]
    assert str(service["user"]).partition(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True
    assert any(each.startswith("/tmp") for each in service["tmpfs"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    forbidden = {"privileged", "cap_add", "devices", "network_mode", "pid", "ipc", "userns_mode"}
    assert not forbidden & set(service)
    mounted = [each.partition(":")[0] for each in service.get("volumes", [])]
    assert all(each in RAW["volumes"] for each in mounted), "nothing of the machine's own is mounted"


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
def test_says_how_it_is_and_gets_time_to_stop(name: str) -> None:
    service = services()[name]
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["test"]) > 1
    assert {"interval", "timeout", "retries", "start_period"} <= set(check)
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\d+s", service["stop_grace_period"])


def test_starts_in_an_order_that_works() -> None:
    found = services()
    assert found["migrate"]["command"] == ["plugin-registry", "migrate"]
    assert found["migrate"]["restart"] == "on-failure"
    assert found["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    for name in OURS - {"migrate"}:
        assert found[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_worker_and_beat_are_asked_for_a_sign_that_they_give_on_purpose() -> None:
    found = services()
    for name in ("worker", "beat"):
        program, as_module, module, file = found[name]["healthcheck"]["test"][1:]
        assert (program, as_module, module) == ("python3", "-m", "shared.alive")
        assert found[name]["environment"]["REGISTRY_ALIVE_FILE"] == file
        assert file.startswith("/tmp/"), "what it can write"
    assert not any("REGISTRY_ALIVE_FILE" in found[name]["environment"] for name in ("api", "migrate"))


def test_workers_are_scaled() -> None:
    worker = services()["worker"]
    assert worker["deploy"]["replicas"] >= 2
    assert not {"container_name", "hostname", "ports"} & set(worker), "what only one container can have"


def test_the_broker_keeps_what_it_was_given() -> None:
    valkey = services()["valkey"]
    command = valkey["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert command[0] == "valkey-server"
    assert (options["--appendonly"], options["--maxmemory-policy"]) == ("yes", "noeviction")
    assert "valkey:/data" in valkey["volumes"]


def test_publishes_two_ports_to_this_machine_only() -> None:
    published = {name: each["ports"] for name, each in services().items() if "ports" in each}
    assert published == {"api": ["127.0.0.1:8080:8080"], "flower": ["127.0.0.1:5555:5555"]}
    assert services(REGISTRY_BIND="0.0.0.0", REGISTRY_PORT="80")["api"]["ports"] == ["0.0.0.0:80:8080"]


def test_images_are_named_by_variables() -> None:
    defaults = {name: each["image"] for name, each in services().items()}
    assert defaults["postgres"].startswith("postgres:")
    assert defaults["valkey"].startswith("valkey/valkey:")
    mine = services(PYTHON_IMAGE="my/python", POSTGRES_IMAGE="my/postgres", VALKEY_IMAGE="my/valkey")
    assert (mine["postgres"]["image"], mine["valkey"]["image"]) == ("my/postgres", "my/valkey")
    for name in OURS | {"flower"}:
        assert mine[name]["build"]["args"]["PYTHON_IMAGE"] == "my/python"
        assert services()[name]["build"]["args"]["PYTHON_IMAGE"] == "python:3.13-slim"
    assert {defaults[name] for name in OURS} == {"plugin-registry:local"}
    assert defaults["flower"] != "plugin-registry:local"
    assert services(REGISTRY_IMAGE="my/registry")["api"]["image"] == "my/registry"


def test_settings_exist_and_all_of_egress_is_passed_through() -> None:
    for name in OURS:
        given = {key for key in services()[name]["environment"] if key.startswith("REGISTRY_")}
        assert given <= {f"REGISTRY_{field.upper()}" for field in Settings.model_fields}
        assert {f"REGISTRY_{field.upper()}" for field in Settings.model_fields if "egress" in field} <= given
    passed = services(REGISTRY_EGRESS_PORTS="443,8443")
    assert passed["worker"]["environment"]["REGISTRY_EGRESS_PORTS"] == "443,8443"
    assert passed["api"]["environment"]["REGISTRY_EGRESS_PORTS"] == "443,8443"


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_environment_is_one_that_the_settings_take(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("REGISTRY_")]:
        monkeypatch.delenv(key)
    for key, value in services()[name]["environment"].items():
        monkeypatch.setenv(key, value)
    settings = Settings()
    assert settings.database_url == "postgresql://registry@postgres:5432/registry"
    assert settings.broker_url == "redis://valkey:6379/0"
    assert settings.egress == Settings.model_construct().egress


def test_the_api_runs_an_app_that_exists() -> None:
    program, as_module, module, *arguments = services()["api"]["command"]
    assert (program, as_module, module) == ("python3", "-m", "api.main")
    asked = where_to_listen(arguments)
    assert (asked.host, asked.port, asked.fd) == ("0.0.0.0", 8080, None)


def test_worker_and_beat_run_an_app_that_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, command in (("worker", worker), ("beat", beat)):
        monkeypatch.setenv("REGISTRY_BROKER_URL", services()[name]["environment"]["REGISTRY_BROKER_URL"])
        program, quiet, app, module, subcommand, *arguments = services()[name]["command"]
        assert (program, quiet, app, subcommand) == ("celery", "--quiet", "--app", name)
        assert isinstance(import_module(module).app, Celery)
        known = {option for parameter in command.params for option in parameter.opts}
        assert {each for each in arguments if each.startswith("-")} <= known
    assert {"--pool", "threads", "--without-gossip", "--without-mingle"} <= set(services()["worker"]["command"])


def test_migrate_is_a_command_of_ours() -> None:
    assert main.get_command(main.make_context("plugin-registry", ["migrate"]), "migrate") is not None


def test_the_image_is_built_from_locked_packages_in_stages() -> None:
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?$", DOCKERFILE, re.MULTILINE)
    names = {name for _, name in stages if name}
    assert {image for image, _ in stages} - names == {"${PYTHON_IMAGE}"}
    assert ("runtime", "ops") in stages
    assert stages[-1] == ("runtime", ""), "a build that names no stage makes what compose.yaml runs"
    build, _, ops = DOCKERFILE.partition(" AS build-ops\n")
    assert "--require-hashes -r requirements.lock" in build
    assert "--require-hashes -r requirements-ops.lock" in ops
    for name in OURS | {"flower"}:
        assert services()[name]["build"]["target"] in names


def test_what_runs_has_no_compiler_no_installer_and_no_root() -> None:
    runtime = DOCKERFILE.partition(" AS runtime\n")[2]
    user = re.findall(r"^USER (\S+)$", runtime, re.MULTILINE)
    assert user == [services()["api"]["user"]]
    assert not re.search(r"\b(pip|apt-get|apk|gcc|build-essential)\b", runtime)
    assert "--without-pip" in DOCKERFILE


def test_the_image_holds_the_packages_and_nothing_else_is_sent_to_the_builder() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    }
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert set(packages["packages"]) == {each for each in copied if (PROJECT / each).is_dir()}
    everything, *rules = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert everything == "*"
    let_through = {line.removeprefix("!") for line in rules if line.startswith("!")}
    assert let_through == copied
    assert not any(fnmatch(name, rule) for rule in let_through for name in (".env", ".git", "compose.yaml", "tests"))


def test_the_demo_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "compose_demo.py"],
        env={"PATH": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "podman-compose" in done.stderr
