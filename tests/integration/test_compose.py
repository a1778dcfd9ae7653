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
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import jsonschema_rs
import psycopg
import pytest
from celery import Celery
from celery.bin.beat import beat
from celery.bin.worker import worker
from plugin_registry_client.command.main import main
from ruamel.yaml import YAML

from api.main import where_to_listen
from shared.alive import LATELY_S
from shared.egress import parse_networks
from shared.settings import SECRETS, Settings
from tests.engines import BINARIES, postgresql
from tests.running import PROJECT

RAW: dict[str, Any] = YAML(typ="safe", pure=True).load((PROJECT / "compose.yaml").read_text())
OUTSIDE: dict[str, Any] = YAML(typ="safe", pure=True).load((PROJECT / "deploy" / "outside.yaml").read_text())
DOCKERFILE = (PROJECT / "Dockerfile").read_text()

OURS = {"api", "worker", "beat", "migrate"}
LONG_RUNNING = {"api", "worker", "beat", "postgres", "valkey", "edge", "flower"}
SERVICES = LONG_RUNNING | {"migrate"}
FOR_OTHERS = {"STATE_DIR", "URL", "TOKEN"}
"""Settings of `up`, and of the command line as a client."""
OF_WHOM = {"owner_password": {"postgres", "migrate"}, "database_password": {"postgres", "api", "worker"}}
GIVEN_AS_FILES = {
    "REGISTRY_OWNER_PASSWORD_FILE": "owner_password",
    "REGISTRY_DATABASE_PASSWORD_FILE": "database_password",
    "REGISTRY_DATABASE_CA_FILE": "database_ca",
    "REGISTRY_BROKER_PASSWORD_FILE": "broker_password",
    "REGISTRY_BROKER_CA_FILE": "broker_ca",
    "REGISTRY_EGRESS_CA_FILE": "egress_ca",
    "REGISTRY_EGRESS_PROXY_FILE": "egress_proxy",
    "EDGE_CERTIFICATE_FILE": "edge_certificate",
    "EDGE_KEY_FILE": "edge_key",
    "FLOWER_BASIC_AUTH_FILE": "flower_basic_auth",
}


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
        value, rest = environment.get(found["name"]), interpolated(found["rest"] or "", environment)
        match found["how"]:
            case ":-":
                return str(value or rest)
            case "-":
                return str(rest if value is None else value)
            case ":+":
                return str(rest) if value else ""
            case _:
                return value or ""

    nested = r"(?:[^{}]|\$\{[^{}]*\})*"
    return re.sub(rf"\$\$|\$(?:\{{(?P<name>\w+)(?P<how>:?[-+])?(?P<rest>{nested})\}})?", replace, document)


def merged(below: Any, above: Any) -> Any:
    """Return *below* with what *above* says over it, as the Compose specification merges files."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: merged(below.get(key), above.get(key)) for key in [*below, *(above.keys() - below.keys())]}
    return below if above is None else above


def services(document: dict[str, Any] = RAW, /, **environment: str) -> dict[str, Any]:
    """Return the services, each with what it gets: a variable without a value is passed on where it is set."""
    found: dict[str, Any] = interpolated(document, environment)["services"]
    for each in found.values():
        passed = {
            name: environment.get(name) if value is None else value
            for name, value in each.get("environment", {}).items()
        }
        each["environment"] = {name: value for name, value in passed.items() if value is not None}
    return found


def named_for(name: str) -> set[str]:
    """Return the variables that a service may get."""
    return set(RAW["services"][name].get("environment", {}))


def dictionaries(document: Any) -> Iterator[dict[str, Any]]:
    if isinstance(document, dict):
        yield document
    for each in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        yield from dictionaries(each)


def psql(arguments: list[str], script: str) -> None:
    """Run *script* as the official image of PostgreSQL does."""
    command = [str(BINARIES / "psql"), "-v", "ON_ERROR_STOP=1", "--no-password", "--no-psqlrc", *arguments]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def strings(document: Any) -> Iterator[str]:
    if isinstance(document, dict):
        for value in document.values():
            yield from strings(value)
    elif isinstance(document, list):
        for value in document:
            yield from strings(value)
    elif isinstance(document, str):
        yield document


@pytest.mark.parametrize(
    "document",
    [RAW, interpolated(RAW, {}), OUTSIDE, merged(RAW, OUTSIDE)],
    ids=["as written", "interpolated", "outside", "merged"],
)
def test_is_valid_by_the_compose_specification(document: dict[str, Any]) -> None:
    schema = json.loads((files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json").read_bytes())
    validator = jsonschema_rs.validator_for(schema)
    assert [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(document)] == []
    broken = {**document, "services": {**document["services"], "api": {"imag": "misspelled"}}}
    assert not validator.is_valid(broken)


def test_holds_the_services_and_starts_all_but_flower_and_the_edge() -> None:
    profiles = {"flower": ["ops"], "edge": ["edge"]}
    assert {name: each.get("profiles", []) for name, each in services().items()} == {
        name: profiles.get(name, []) for name in SERVICES
    }


def test_needs_no_variable() -> None:
    assert not [text for text in strings(RAW) if re.search(r"(?<!\$)\$\{\w+:?\?", text)]


def test_holds_no_secret() -> None:
    for name, service in RAW["services"].items():
        for variable, value in service.get("environment", {}).items():
            if re.search("PASS|SECRET|AUTH|KEY_|CRED", variable):
                assert value is None or "/run/secrets/" in value, f"{name}: {variable} has a value in the file"
    for text in strings(RAW):
        assert not re.search(r"://[^/\s]*:[^/\s]*@", text), f"a password in {text!r}"
        assert not re.search(r"prg_\w{8}|-----BEGIN", text)


def test_a_secret_is_a_file_that_only_who_needs_it_gets() -> None:
    given = {variable: f"/host/{name}" for variable, name in GIVEN_AS_FILES.items()}
    assert interpolated(RAW["secrets"], given) == {
        name: {"file": f"/host/{name}"} for name in GIVEN_AS_FILES.values()
    }
    for name, service in services(**given).items():
        text = json.dumps([service["environment"], service.get("command")])
        assert "/host/" not in text
        used = set(re.findall(r"/run/secrets/(\w+)", text))
        assert used <= set(service.get("secrets", [])), name
    for secret, whose in OF_WHOM.items():
        assert {name for name in SERVICES if secret in RAW["services"][name].get("secrets", [])} == whose
    assert set(RAW["services"]["beat"]["secrets"]) == {"broker_password", "broker_ca"}
    assert set(RAW["services"]["edge"]["secrets"]) == {"edge_certificate", "edge_key"}


def test_what_is_not_named_is_an_empty_file_and_not_used() -> None:
    optional = {name for name, each in interpolated(RAW["secrets"], {}).items() if each["file"] == "/dev/null"}
    assert optional == {"database_ca", "broker_password", "broker_ca", "egress_ca", "egress_proxy"}
    for name, service in services().items():
        used = {
            each for value in service["environment"].values() for each in re.findall(r"/run/secrets/(\w+)", value)
        }
        assert not used & optional, name


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_runs_with_as_few_rights_as_it_can(name: str) -> None:
    service = services()[name]
    assert str(service["user"]).partition(":")[0] not in {"", "0", "root"}
    assert service["read_only"] is True
    (temporary,) = service["tmpfs"]
    assert temporary.startswith("/tmp:")
    assert {"noexec", "nosuid", "nodev"} <= set(temporary.split(","))
    assert service["cap_drop"] == ["ALL"]
    # Caddy's program has this capability written on it, and is not started where it cannot be had; nobody gets it.
    assert service.get("cap_add", []) == (["NET_BIND_SERVICE"] if name == "edge" else [])
    assert service["security_opt"] == ["no-new-privileges:true"]
    forbidden = {"privileged", "devices", "network_mode", "pid", "ipc", "userns_mode"}
    assert not forbidden & set(service)
    for volume in service.get("volumes", []):
        source = volume.partition(":")[0]
        if source not in RAW["volumes"]:
            assert source.startswith("./deploy/"), "nothing of the machine's own is mounted"
            assert volume.endswith(":ro")
            assert (PROJECT / source).is_file()


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_what_is_left_behind_is_reaped_and_nothing_grows_without_end(name: str) -> None:
    service = services()[name]
    assert service["init"] is True
    limits = service["deploy"]["resources"]["limits"]
    assert set(limits) == {"cpus", "memory", "pids"}
    assert 0 < float(limits["cpus"]) <= 2
    assert re.fullmatch(r"\d+[mg]", limits["memory"])
    assert 0 < limits["pids"] <= 300
    assert "size=64m" in service["tmpfs"][0]


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
    assert found["migrate"]["command"] == ["plugin-registry", "migrate", "--grant-to", "registry_serve"]
    assert found["migrate"]["restart"] == "on-failure"
    assert found["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy", "required": False}}
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


def test_a_silent_name_server_does_not_make_beat_look_dead() -> None:
    options = dict(each.split(":") for each in services()["beat"]["dns_opt"])
    names_tried = 2  # the broker's, and the same in the engine's domain
    assert names_tried * int(options["timeout"]) * int(options["attempts"]) < LATELY_S


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


def test_publishes_ports_to_this_machine_only() -> None:
    published = {name: each["ports"] for name, each in services().items() if "ports" in each}
    assert published == {
        "api": ["127.0.0.1:8080:8080"],
        "edge": ["127.0.0.1:8443:8443"],
        "flower": ["127.0.0.1:5555:5555"],
    }
    assert services(REGISTRY_BIND="0.0.0.0", REGISTRY_PORT="80")["api"]["ports"] == ["0.0.0.0:80:8080"]
    assert services(REGISTRY_PORT="")["api"]["ports"] == ["127.0.0.1::8080"], (
        "any port that is free, for each of several"
    )


def test_the_edge_meets_the_apis_alone_and_its_word_on_addresses_is_taken() -> None:
    for environment in ({}, {"EDGE_ADDRESS": "10.9.8.7", "EDGE_SUBNET": "10.9.8.0/24"}):
        found, networks = services(**environment), interpolated(RAW["networks"], environment)
        (address,) = [each["ipv4_address"] for each in found["edge"]["networks"].values()]
        assert list(found["edge"]["networks"]) == ["edge"]
        assert {name for name, each in found.items() if "edge" in each.get("networks", [])} == {"edge", "api"}
        (subnet,) = [IPv4Network(each["subnet"]) for each in networks["edge"]["ipam"]["config"]]
        assert IPv4Address(address) in subnet
        assert parse_networks(found["api"]["environment"]["REGISTRY_TRUSTED_PROXIES"]) == parse_networks(
            f"{address}/32"
        )
    assert (
        services(REGISTRY_TRUSTED_PROXIES="10.0.0.1")["api"]["environment"]["REGISTRY_TRUSTED_PROXIES"] == "10.0.0.1"
    )


@pytest.mark.program("caddy")
def test_the_edge_is_set_up_as_caddy_reads_it() -> None:
    done = subprocess.run(
        ["caddy", "adapt", "--adapter", "caddyfile", "--config", PROJECT / "deploy" / "Caddyfile"],
        capture_output=True,
        timeout=60,
        check=True,
    )
    adapted = json.loads(done.stdout)
    texts = set(strings(adapted))
    assert {"/run/secrets/edge_certificate", "/run/secrets/edge_key", ":8443", "api", "8080"} <= texts
    (proxy,) = [each for each in dictionaries(adapted) if each.get("handler") == "reverse_proxy"]
    assert proxy["transport"]["keep_alive"]["idle_timeout"] < Settings.model_construct().keep_alive_s * 1e9
    assert "trusted_proxies" not in proxy, "what a client writes into X-Forwarded-For is dropped"
    assert adapted["admin"]["disabled"] is True
    fields = adapted["logging"]["logs"]["default"]["encoder"]["fields"]
    assert set(fields) == {"request>uri", "request>headers"}, "no query and no token is logged"


def test_a_store_and_a_broker_outside_take_the_place_of_the_bundled_ones() -> None:
    document = merged(RAW, OUTSIDE)
    urls = {
        "REGISTRY_DATABASE_URL": "postgresql://serve:secret@db.example/registry",
        "REGISTRY_OWNER_DATABASE_URL": "postgresql://owner:secret@db.example/registry",
        "REGISTRY_BROKER_URL": "rediss://broker.example:6379/0",
    }
    found = services(document, **urls)
    assert (found["postgres"]["profiles"], found["valkey"]["profiles"]) == (["store"], ["broker"])
    for name in SERVICES:
        for other in {"postgres", "valkey"} & set(found[name].get("depends_on", {})):
            assert found[name]["depends_on"][other]["required"] is False
    for name in ("api", "worker"):
        environment = found[name]["environment"]
        assert environment["REGISTRY_DATABASE_URL"] == urls["REGISTRY_DATABASE_URL"]
        assert environment["REGISTRY_BROKER_URL"] == urls["REGISTRY_BROKER_URL"]
        assert environment["REGISTRY_DATABASE_PASSWORD_FILE"] == "", "its password may stand in the URL"
    assert found["migrate"]["environment"]["REGISTRY_DATABASE_URL"] == urls["REGISTRY_OWNER_DATABASE_URL"]
    assert found["migrate"]["environment"]["REGISTRY_DATABASE_PASSWORD_FILE"] == ""
    files = interpolated(document["secrets"], urls)
    assert files["owner_password"] == files["database_password"] == {"file": "/dev/null"}
    with_files = services(document, **urls, REGISTRY_DATABASE_PASSWORD_FILE="/host/password")
    assert with_files["api"]["environment"]["REGISTRY_DATABASE_PASSWORD_FILE"] == "/run/secrets/database_password"


def test_the_superuser_has_no_password_and_who_serves_can_make_nothing(tmp_path: Path) -> None:
    passwords = {"owner_password": "it's \"the\" owner's: $1", "database_password": "%s\\n; DROP"}
    script = (PROJECT / "deploy" / "roles.sql").read_text()
    for name, password in passwords.items():
        (tmp_path / name).write_text(password + "\n")
    with postgresql(durable=False) as maintenance_url:
        with psycopg.connect(maintenance_url, autocommit=True) as superuser:
            superuser.execute("CREATE DATABASE registry")
            superuser.execute("ALTER ROLE postgres PASSWORD 'as the image gives it one'")
        url = maintenance_url.replace("/postgres?", "/registry?")
        psql([url, "-f", "-"], script.replace("/run/secrets", str(tmp_path)))
        with psycopg.connect(url) as superuser:
            roles = superuser.execute(
                "SELECT rolname, rolsuper OR rolcreaterole OR rolcreatedb, rolpassword LIKE 'SCRAM-SHA-256%'"
                " FROM pg_authid WHERE rolcanlogin ORDER BY 1"
            ).fetchall()
        assert roles == [("postgres", True, None), ("registry", False, True), ("registry_serve", False, True)]
        with psycopg.connect(url.replace("//postgres@", "//registry@"), autocommit=True) as owner:
            owner.execute("CREATE TABLE theirs ()")
            owner.execute("GRANT SELECT ON theirs TO registry_serve")
        with psycopg.connect(url.replace("//postgres@", "//registry_serve@"), autocommit=True) as serving:
            serving.execute("SELECT FROM theirs")
            for statement in (
                "CREATE TABLE mine ()",
                "CREATE TEMPORARY TABLE mine ()",
                "DROP TABLE theirs",
                "COPY (SELECT) TO PROGRAM 'id'",
                "CREATE ROLE mine SUPERUSER",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    serving.execute(statement)


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


def test_every_setting_can_be_set() -> None:
    documented = re.findall(r"`REGISTRY_(\w+)`", (PROJECT / "docs" / "reference.md").read_text())
    passed = {
        name.removeprefix("REGISTRY_")
        for service in OURS
        for name in named_for(service)
        if name.startswith("REGISTRY_")
    }
    assert {name for name in documented if not name.endswith("_FILE")} - FOR_OTHERS <= passed
    fields = {field.upper() for field in Settings.model_fields} - FOR_OTHERS - {"SUPERVISOR_FD"}
    as_files = {f"{secret.upper()}_FILE" for secret in SECRETS}
    assert fields - as_files == passed - as_files
    assert {"DATABASE_PASSWORD_FILE", "BROKER_PASSWORD_FILE", "EGRESS_PROXY_FILE"} <= passed


@pytest.mark.parametrize("name", ["api", "worker"])
def test_a_service_gets_what_its_code_reads(name: str) -> None:
    code = "".join(path.read_text() for path in (PROJECT / name).rglob("*.py"))
    read = {"broker_url", "database_url", *re.findall(r"\b(?:settings|limits)\.(\w+)", code)} & set(
        Settings.model_fields
    )
    read |= {field for field in Settings.model_fields if "egress" in read and field.startswith("egress_")}
    assert len(read) > 15
    missing = {f"REGISTRY_{field.upper()}" for field in read - {"supervisor_fd"}} - named_for(name)
    assert missing == set()


def test_settings_that_are_set_arrive_and_others_do_not() -> None:
    found = services(REGISTRY_EGRESS_PORTS="443,8443", REGISTRY_METRICS_OPEN="true", OTEL_TRACES_SAMPLER="always_off")
    assert found["worker"]["environment"]["REGISTRY_EGRESS_PORTS"] == "443,8443"
    assert found["api"]["environment"]["REGISTRY_EGRESS_PORTS"] == "443,8443"
    assert found["api"]["environment"]["REGISTRY_METRICS_OPEN"] == "true"
    assert found["worker"]["environment"]["OTEL_TRACES_SAMPLER"] == "always_off"
    assert "REGISTRY_EGRESS_SCHEMES" not in found["worker"]["environment"]
    assert "OTEL_TRACES_SAMPLER_ARG" not in found["worker"]["environment"], "empty is not unset to OpenTelemetry"
    assert not [name for name in found["beat"]["environment"] if "DATABASE" in name]


@pytest.mark.parametrize("name", sorted(OURS))
def test_the_environment_is_one_that_the_settings_take(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for key in [key for key in os.environ if key.startswith("REGISTRY_")]:
        monkeypatch.delenv(key)
    for secret in RAW["services"][name]["secrets"]:
        (tmp_path / secret).write_text(f"{secret}\n")
    for key, value in services()[name]["environment"].items():
        monkeypatch.setenv(key, value.replace("/run/secrets", str(tmp_path)))
    settings = Settings()
    if name != "beat":
        role, secret = (
            ("registry", "owner_password") if name == "migrate" else ("registry_serve", "database_password")
        )
        assert f"//{role}:{secret}@postgres:5432/registry" in settings.database_url
    if name != "migrate":
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
    installed = {
        name: re.findall(r"--require-hashes -r (\S+)", stage)
        for name, stage in re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    }
    assert installed == {
        "packages": ["${LOCK}"],
        "packages-ops": ["requirements-ops.lock"],
        "code": ["requirements-build.lock"],
        "runtime": [],
        "ops": [],
    }
    assert "ARG LOCK=requirements.lock" in DOCKERFILE
    for name in OURS | {"flower"}:
        build = services()[name]["build"]
        assert build["target"] in names
        assert build["args"]["LOCK"] == "requirements.lock"
        assert set(build["args"]) <= set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE))
    assert (
        services(REGISTRY_LOCK="requirements-otel.lock")["worker"]["build"]["args"]["LOCK"]
        == "requirements-otel.lock"
    )


def test_what_runs_has_no_compiler_no_installer_and_no_root() -> None:
    runtime = DOCKERFILE.partition(" AS runtime\n")[2]
    user = re.findall(r"^USER (\S+)$", runtime, re.MULTILINE)
    assert user == [services()["api"]["user"]]
    assert not re.search(r"\b(pip install|apt-get|apk|gcc|build-essential)\b", runtime)
    assert "--without-pip" in DOCKERFILE
    for each in ("pip", "ensurepip", "setuptools", "wheel"):
        assert f'"{each}"' in runtime, "the base image has it"
    assert "hatchling" not in (PROJECT / "requirements.lock").read_text()
    assert "hatchling" in (PROJECT / "requirements-build.lock").read_text()


def test_what_changes_often_is_a_layer_of_its_own() -> None:
    runtime = DOCKERFILE.partition(" AS runtime\n")[2].partition("\nFROM ")[0]
    assert re.findall(r"^COPY .*$", runtime, re.MULTILINE) == [
        "COPY --from=packages /opt/venv /opt/venv",
        "COPY --from=code /opt/registry /opt/registry",
    ]
    assert "--target /opt/registry ./client ." in DOCKERFILE
    assert runtime.index("ARG REVISION") > runtime.index("CMD"), "a new commit builds no layer anew"


def test_the_image_says_what_it_is() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.([\w.]+)="(.*)"', DOCKERFILE))
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "licenses": project["license"],
        "version": project["version"],
        "revision": "${REVISION}",
        "base.name": "${PYTHON_IMAGE}",
        "base.digest": "${BASE_DIGEST}",
    }


def test_the_image_holds_the_packages_and_nothing_else_is_sent_to_the_builder() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    }
    packages = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*packages["packages"], "client"} == {each for each in copied if (PROJECT / each).is_dir()}
    everything, *rules = [
        line for line in (PROJECT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert everything == "*"
    let_through = {line.removeprefix("!") for line in rules if line.startswith("!")}
    assert let_through == copied - {"${LOCK}"} | {"requirements.lock", "requirements-otel.lock"}
    assert not any(fnmatch(name, rule) for rule in let_through for name in (".env", ".git", "compose.yaml", "tests"))


def demo(path: Path) -> list[str]:
    """Return what the demo says where *path* is all that there is."""
    done = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "compose_demo.py"],
        env={"PATH": str(path), "PIP_CERT": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_the_demo_says_all_that_is_missing(tmp_path: Path) -> None:
    engine, openssl, certificates = demo(tmp_path)
    assert "podman-compose" in engine
    assert "openssl" in openssl
    assert "PIP_CERT=/nowhere" in certificates


def test_the_demo_knows_a_compose_that_is_too_old_a_network_without_names_and_images_that_offer_too_little(
    tmp_path: Path,
) -> None:
    programs = {
        # What Debian 12's say.
        "podman-compose": "echo 'using podman version: 4.3.1'; echo 'podman-composer version  1.0.3'",
        "podman": """case "$*" in
            info) ;;
            network\\ inspect*) echo false ;;
            run*caddy*) echo "Error: no such image" >&2; exit 125 ;;
            run*) exit 1 ;;
        esac""",
        "openssl": "",
    }
    for name, script in programs.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    compose, names, *others = [line for line in demo(tmp_path) if "catatonit" not in line]
    assert "1.6.0 or later: 1.0.3" in compose
    assert "aardvark-dns" in names
    python, postgres, valkey, edge, certificates = others
    for line, variable, offers in (
        (python, "PYTHON_IMAGE=python:3.13-slim", "Python 3.11 or later with venv and pip"),
        (postgres, "POSTGRES_IMAGE=postgres:17-alpine", "the official image's entrypoint"),
        (valkey, "VALKEY_IMAGE=valkey/valkey:9-alpine", "a user valkey"),
        (edge, "EDGE_IMAGE=caddy:2-alpine", "no such image"),
        (certificates, "PIP_CERT=/nowhere", "cannot be read"),
    ):
        assert line.startswith(variable)
        assert offers in line


def test_the_demo_looks_at_the_images_that_would_run() -> None:
    there = {text for text in strings(RAW) if text.startswith("${") and "_IMAGE:-" in text}
    looked_at = re.findall(r'"(\w+_IMAGE)": \(\s*"([^"]+)"', (PROJECT / "deploy" / "compose_needs.py").read_text())
    ours = {"${REGISTRY_IMAGE:-plugin-registry:local}", "${REGISTRY_OPS_IMAGE:-plugin-registry-ops:local}"}
    assert there == {f"${{{variable}:-{image}}}" for variable, image in looked_at} | ours
