"""Settings come from the environment, and a bad one is named."""

import os
from ipaddress import ip_network
from pathlib import Path

import pytest

from shared.egress import Egress
from shared.queues import celery_app
from shared.settings import BadSettings, Settings, read_settings
from shared.store.database import open_database


def _read(environment: pytest.MonkeyPatch, **variables: str) -> Settings:
    """Return the settings of an environment that holds *variables* and no other of ours."""
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        environment.delenv(name)
    for name, value in variables.items():
        environment.setenv(name, value)
    return read_settings()


def test_the_defaults_are_the_documented_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    it = _read(monkeypatch)
    state_dir = Path("~/.local/state/plugin-registry").expanduser()
    assert it.model_dump() == {
        "state_dir": state_dir,
        "database_url": f"sqlite:///{state_dir}/registry.db",
        "database_password": None,
        "broker_url": "",
        "broker_password": None,
        "broker_ca_file": None,
        "broker_sentinel_master": "mymaster",
        "keep_registrations_s": 90 * 86_400,
        "keep_events_s": 30 * 86_400,
        "bad_tokens_a_minute": 60,
        "in_flight_per_token": 10_000,
        "requests_a_minute": 60_000,
        "max_requests_per_token": 512,
        "max_waits_per_token": 256,
        "max_waits_per_address": 256,
        "max_streams_per_token": 64,
        "max_streams_per_address": 128,
        "max_connections": 0,
        "max_connections_per_address": 256,
        "max_head_bytes": 65_536,
        "head_timeout_s": 10,
        "body_timeout_s": 30,
        "answer_timeout_s": 60,
        "keep_alive_s": 5,
        "max_unread_bytes": 256 * 2**20,
        "trusted_proxies": (),
        "metrics_open": False,
        "traces": False,
        "catalogue_open": False,
        "root_path": "",
        "sync_wait_s": 30,
        "max_body_bytes": 65_536,
        "egress_schemes": {"https"},
        "egress_ports": (range(443, 444),),
        "egress_allow_networks": (),
        "egress_ca_file": None,
        "egress_proxy": None,
        "contact": "",
        "max_downloads_per_host": 32,
        "downloads": 256,
        "max_artifact_bytes": 4 * 2**30,
        "fetch_deadline_s": 600,
        "connect_timeout_s": 5,
        "read_timeout_s": 30,
        "max_attempts": 5,
        "max_leases_lost": 2,
        "retry_base_s": 2,
        "retry_cap_s": 300,
        "lease_s": 20,
        "sweep_interval_s": 2,
        "alive_file": None,
        "supervisor_fd": None,
    }
    assert it.egress == Egress()
    assert it.embedded_store


def test_every_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    it = _read(
        monkeypatch,
        REGISTRY_STATE_DIR="/var/lib/registry",
        REGISTRY_DATABASE_URL="postgresql+psycopg://db.example/registry",
        REGISTRY_EGRESS_SCHEMES="https, http",
        REGISTRY_EGRESS_PORTS="443,8000-8999",
        REGISTRY_EGRESS_ALLOW_NETWORKS="10.1.0.0/16, fd00::/8",
        REGISTRY_TRUSTED_PROXIES="10.0.0.1, fd00::/64",
        REGISTRY_LEASE_S="4.5",
        REGISTRY_MAX_ATTEMPTS="7",
    )
    assert it.egress == Egress(
        frozenset({"http", "https"}),
        (range(443, 444), range(8000, 9000)),
        (ip_network("10.1.0.0/16"), ip_network("fd00::/8")),
    )
    assert (it.lease_s, it.max_attempts, it.embedded_store) == (4.5, 7, False)
    assert it.trusted_proxies == (ip_network("10.0.0.1/32"), ip_network("fd00::/64"))
    assert it.state_dir == Path("/var/lib/registry")
    assert "hunter2" not in repr(it)


def test_the_state_directory_is_absolute_and_holds_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    it = _read(monkeypatch, REGISTRY_STATE_DIR="here")
    assert it.state_dir == Path.cwd() / "here"
    assert it.database_url == f"sqlite:///{Path.cwd()}/here/registry.db"


@pytest.mark.parametrize("name", ["what?", "50%25", "a b", "#1", "ü", "a&b=c", "x;y"])
def test_the_state_directory_may_have_any_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    it = _read(monkeypatch, REGISTRY_STATE_DIR=str(tmp_path / name))
    assert open_database(it.database_url).engine.url.database == str(tmp_path / name / "registry.db")
    assert it.default_store == tmp_path / name / "registry.db"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("EGRESS_ALLOW_NETWORKS", "10.0.0.1/8", "host bits"),
        ("EGRESS_ALLOW_NETWORKS", "10.0.0.0/8, intranet", "intranet"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "host bits"),
        ("TRUSTED_PROXIES", "proxy.example", "proxy.example"),
        ("TRUSTED_PROXIES", "*", "*"),
        ("EGRESS_PORTS", "0", "between 1 and 65535"),
        ("EGRESS_PORTS", "65536", "between 1 and 65535"),
        ("EGRESS_PORTS", "9000-8000", "'9000-8000'"),
        ("EGRESS_PORTS", "https", "'https'"),
        ("EGRESS_SCHEMES", "ftp", "http and https only"),
        ("EGRESS_SCHEMES", "https,file", "http and https only"),
        ("SYNC_WAIT_S", "-1", "greater than or equal to 0"),
        ("SYNC_WAIT_S", "61", "less than or equal to 60"),
        ("SYNC_WAIT_S", "nan", ""),
        ("MAX_BODY_BYTES", "1023", "1024"),
        ("MAX_BODY_BYTES", "64k", "integer"),
        ("MAX_ARTIFACT_BYTES", "0", "greater than or equal to 1"),
        ("FETCH_DEADLINE_S", "0", "greater than 0"),
        ("FETCH_DEADLINE_S", "inf", "86400"),
        ("CONNECT_TIMEOUT_S", "5s", "number"),
        ("READ_TIMEOUT_S", "-1", "greater than 0"),
        ("MAX_ATTEMPTS", "0", "greater than or equal to 1"),
        ("MAX_ATTEMPTS", "1.5", "integer"),
        ("RETRY_BASE_S", "0", "greater than 0"),
        ("RETRY_CAP_S", "0", "greater than 0"),
        ("MAX_HEAD_BYTES", "4095", "4096"),
        ("HEAD_TIMEOUT_S", "0", "greater than 0"),
        ("MAX_CONNECTIONS", "-1", "greater than or equal to 0"),
        ("ROOT_PATH", "/registry/", "without a slash at its end"),
        ("ROOT_PATH", "registry", "a path such as"),
        ("ROOT_PATH", "/a b", "a path such as"),
        ("ROOT_PATH", "//evil.example", "a path such as"),
        ("LEASE_S", "2.9", "greater than or equal to 3"),
    ],
)
def test_a_bad_value_is_one_sentence_that_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, told: str
) -> None:
    with pytest.raises(BadSettings) as refused:
        _read(monkeypatch, **{f"REGISTRY_{name}": value})
    assert str(refused.value).startswith(f"REGISTRY_{name}")
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_all_bad_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings, match=r"^REGISTRY_MAX_ATTEMPTS: .*; REGISTRY_LEASE_S: "):
        _read(monkeypatch, REGISTRY_LEASE_S="1", REGISTRY_MAX_ATTEMPTS="none")


def test_an_argument_stands_in_for_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_LEASE_S", "10")
    assert read_settings(lease_s=5).lease_s == 5
    with pytest.raises(BadSettings, match=r"^REGISTRY_EGRESS_PORTS: "):
        read_settings(egress_ports="0")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGISTRY_STATE_DIR", "~nosuchuser/x"),
        ("REGISTRY_EGRESS_PORTS", "\uff14\uff14\uff13"),
        ("REGISTRY_EGRESS_PORTS", "4_43"),
        ("REGISTRY_EGRESS_ALLOW_NETWORKS", "fe80::1%eth0/128"),
        ("REGISTRY_EGRESS_CA_FILE", "/nowhere/ca.pem"),
        ("REGISTRY_EGRESS_CA_FILE", __file__),  # which holds no certificate
        ("REGISTRY_EGRESS_PROXY", "proxy:3128"),
        ("REGISTRY_EGRESS_PROXY", "https://proxy:3128"),
        ("REGISTRY_EGRESS_PROXY", "http://proxy"),
        ("REGISTRY_EGRESS_PROXY", "http://me:hun#ter2@proxy:3128"),
        ("REGISTRY_EGRESS_PROXY", "http://proxy:99999"),
        ("REGISTRY_BROKER_CA_FILE", __file__),
    ],
)
def test_a_value_that_could_never_work_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    with pytest.raises(BadSettings, match=variable):
        _read(monkeypatch, **{variable: value})


def test_a_home_is_needed_by_whoever_keeps_something_there_only(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> object:
        raise KeyError(uid)

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)  # as in a container, by a user whom it does not know
    assert _read(monkeypatch, REGISTRY_DATABASE_URL="postgresql://db/registry").default_store is None
    for variables in ({}, {"REGISTRY_DATABASE_URL": "postgresql://db/registry", "REGISTRY_STATE_DIR": "~/state"}):
        with pytest.raises(BadSettings, match=r"^REGISTRY_STATE_DIR: "):
            _read(monkeypatch, **variables)


def test_an_empty_variable_is_one_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _read(monkeypatch, REGISTRY_EGRESS_PORTS="", REGISTRY_EGRESS_CA_FILE="", REGISTRY_STATE_DIR="")
    assert found == _read(monkeypatch)


SECRETS = {
    "REGISTRY_DATABASE_URL": "postgresql://u:hunter2@db/registry",
    "REGISTRY_BROKER_URL": "redis://:hunter2@broker:6379/0",
    "REGISTRY_EGRESS_PROXY": "http://me:hunter2@proxy:3128",
}


@pytest.mark.parametrize("variable", SECRETS)
def test_a_secret_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRETS[variable]}\n")
    found = _read(monkeypatch, **{f"{variable}_FILE": str(file)})
    assert found == _read(monkeypatch, **{variable: SECRETS[variable]})
    assert found != _read(monkeypatch)
    assert "hunter2" not in repr(found)


def test_passwords_may_stand_beside_their_urls_and_hold_any_character(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("h/u@n#t?e:r%2 \u00fc\r\n")
    found = _read(
        monkeypatch,
        REGISTRY_DATABASE_URL="postgres://u@db/registry?sslmode=require",
        REGISTRY_DATABASE_PASSWORD_FILE=str(password),
        REGISTRY_BROKER_URL="sentinel://one:1/0;sentinel://two:2",
        REGISTRY_BROKER_PASSWORD="h/u@n#t?e:r%2 \u00fc",
    )
    written = "h%2Fu%40n%23t%3Fe%3Ar%252%20%C3%BC"
    assert found.database_url == f"postgresql://u:{written}@db/registry?sslmode=require"
    assert found.broker.url == f"sentinel://:{written}@one:1/0;sentinel://:{written}@two:2"
    assert "h/u" not in repr(found)
    assert written not in repr(found)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read: No such file"), (b"\n", "is empty"), (b"\xff", "holds no text in UTF-8")],
)
def test_a_file_without_a_secret_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None, told: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadSettings, match=f"^REGISTRY_BROKER_PASSWORD_FILE: {told}"):
        _read(monkeypatch, REGISTRY_BROKER_PASSWORD_FILE=str(file))


def test_a_secret_stands_in_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("hunter2")
    with pytest.raises(BadSettings, match=r"^REGISTRY_BROKER_PASSWORD_FILE: REGISTRY_BROKER_PASSWORD is set as well"):
        _read(monkeypatch, REGISTRY_BROKER_PASSWORD_FILE=str(file), REGISTRY_BROKER_PASSWORD="hunter2")


def test_who_has_no_home_and_needs_no_folder_is_told_of_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "expanduser", lambda _path: (_ for _ in ()).throw(RuntimeError("no home")))
    assert _read(monkeypatch, REGISTRY_DATABASE_URL="postgresql://db/registry").database_url
    with pytest.raises(BadSettings, match=r"^REGISTRY_STATE_DIR"):
        _read(monkeypatch)


def test_a_service_without_a_broker_is_told_so_and_guesses_none(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _read(monkeypatch, REGISTRY_DATABASE_URL="postgresql://db/registry")
    with pytest.raises(BadSettings, match=r"^REGISTRY_BROKER_URL: is not set"):
        celery_app(settings)


def test_bad_urls_are_all_told_at_once_and_none_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadSettings) as refused:
        _read(
            monkeypatch,
            REGISTRY_DATABASE_URL="postgresql://u:hunter2@db/registry?bogus=hunter2",
            REGISTRY_BROKER_URL="redis://:hun#ter2@h/0",
            REGISTRY_EGRESS_SCHEMES="ftp",
            REGISTRY_LEASE_S="1",
        )
    told = str(refused.value)
    for variable in ("DATABASE_URL: ", "BROKER_URL: ", "EGRESS_SCHEMES: ", "LEASE_S: "):
        assert f"REGISTRY_{variable}" in told
    assert "hun" not in told
    assert "bogus" not in told
