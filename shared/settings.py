"""Settings, read once from the environment by a main.py and then passed down."""

import re
import ssl
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    Field,
    FilePath,
    SecretStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.egress import Egress, Network, parse_networks, parse_ports


class BadSettings(Exception):
    """The environment holds a bad value; the message names the variable in one sentence."""


_NO_COMMENT = re.compile(r"[^!-~]|[()\\]")


def _words(text: object, handler: ValidatorFunctionWrapHandler) -> object:
    return handler(frozenset(word.strip() for word in text.split(",")) if isinstance(text, str) else text)


def _networks(text: object, _handler: ValidatorFunctionWrapHandler) -> object:
    return parse_networks(text) if isinstance(text, str) else text


def _ports(text: object, _handler: ValidatorFunctionWrapHandler) -> object:
    return parse_ports(text) if isinstance(text, str) else text


def _contact(text: str) -> str:
    if _NO_COMMENT.search(text):  # RFC 9110 section 5.6.5: it stands in a comment, where these would be quoted
        raise ValueError(
            "an address of a page or a mailbox: visible ASCII without spaces, parentheses and backslashes"
        )
    return text


Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """Every ``REGISTRY_*`` variable. Units are in the names: ``_S`` seconds, ``_BYTES`` bytes."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", frozen=True, extra="ignore", env_ignore_empty=True)

    state_dir: Path = Path("~/.local/state/plugin-registry")
    database_url: str = ""
    broker_url: str = ""
    broker_sentinel_master: str = "mymaster"

    sync_wait_s: Annotated[float, Field(ge=0, le=60)] = 30
    max_body_bytes: Annotated[int, Field(ge=1024, le=16 * 2**20)] = 65_536

    bad_tokens_a_minute: Annotated[int, Field(ge=0)] = 60
    in_flight_per_token: Annotated[int, Field(ge=0)] = 10_000
    requests_a_minute: Annotated[int, Field(ge=0)] = 60_000
    max_requests_per_token: Annotated[int, Field(ge=0)] = 512
    max_waits_per_token: Annotated[int, Field(ge=0)] = 256
    max_waits_per_address: Annotated[int, Field(ge=0)] = 256
    max_streams_per_token: Annotated[int, Field(ge=0)] = 64
    max_streams_per_address: Annotated[int, Field(ge=0)] = 128

    max_connections: Annotated[int, Field(ge=0)] = 0
    max_connections_per_address: Annotated[int, Field(ge=0)] = 256
    max_head_bytes: Annotated[int, Field(ge=4096, le=2**20)] = 65_536
    head_timeout_s: Seconds = 10
    body_timeout_s: Seconds = 30
    answer_timeout_s: Seconds = 60
    keep_alive_s: Seconds = 5
    max_unread_bytes: Annotated[int, Field(ge=2**20)] = 256 * 2**20
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode, WrapValidator(_networks)] = ()
    metrics_open: bool = False
    traces: bool = False

    egress_schemes: Annotated[frozenset[str], NoDecode, WrapValidator(_words)] = frozenset({"https"})
    egress_ports: Annotated[tuple[range, ...], NoDecode, WrapValidator(_ports)] = (range(443, 444),)
    egress_allow_networks: Annotated[tuple[Network, ...], NoDecode, WrapValidator(_networks)] = ()
    egress_ca_file: FilePath | None = None
    egress_proxy: SecretStr | None = None
    contact: Annotated[str, Field(max_length=200), AfterValidator(_contact)] = ""
    """An address of a page or a mailbox; hosts that serve artifacts are told it."""

    max_artifact_bytes: Annotated[int, Field(ge=1)] = 4 * 2**30
    fetch_deadline_s: Seconds = 600
    connect_timeout_s: Seconds = 5
    read_timeout_s: Seconds = 30

    downloads: Annotated[int, Field(ge=1, le=10_000)] = 256
    max_downloads_per_host: Annotated[int, Field(ge=1)] = 32

    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    max_leases_lost: Annotated[int, Field(ge=1, le=100)] = 2
    retry_base_s: Seconds = 2
    retry_cap_s: Seconds = 300
    lease_s: Annotated[float, Field(ge=3, le=3600)] = 20
    sweep_interval_s: Seconds = 2
    keep_registrations_s: Annotated[float, Field(ge=60)] = 90 * 86_400

    supervisor_fd: int | None = None
    """For a worker: the pipe by which `plugin-registry up` hears that it lives."""
    url: str | None = None
    """For the command line as a client: the registry's address."""
    token: SecretStr | None = None
    """For the command line as a client."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        try:
            object.__setattr__(self, "state_dir", self.state_dir.expanduser().absolute())
        except RuntimeError as error:
            raise ValueError("REGISTRY_STATE_DIR: there is no such home directory") from error
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.state_dir / 'registry.db'}")
        proxy = urlsplit(self.egress_proxy.get_secret_value()) if self.egress_proxy else None
        if proxy is not None and not (proxy.scheme == "http" and proxy.hostname and proxy.port):
            raise ValueError("REGISTRY_EGRESS_PROXY: must be http://HOST:PORT")
        if self.egress_ca_file is not None:
            try:
                ssl.create_default_context(cafile=self.egress_ca_file)
            except ssl.SSLError as error:
                raise ValueError("REGISTRY_EGRESS_CA_FILE: holds no certificates in PEM form") from error
            except OSError as error:
                raise ValueError(f"REGISTRY_EGRESS_CA_FILE: cannot be read: {error.strerror}") from error
        unknown = self.egress_schemes - {"http", "https"}
        if unknown or not self.egress_schemes:
            raise ValueError("REGISTRY_EGRESS_SCHEMES may hold http and https only")
        return self

    @property
    def egress(self) -> Egress:
        """The egress policy these settings spell."""
        return Egress(self.egress_schemes, self.egress_ports, self.egress_allow_networks)

    @property
    def user_agent(self) -> str:
        """What we call ourselves to hosts that serve artifacts (RFC 9110 section 10.1.5)."""
        return f"plugin-registry/{version('plugin-registry')}{f' (+{self.contact})' if self.contact else ''}"

    @property
    def default_store(self) -> Path | None:
        """The file of the store in the state folder, if that is the store."""
        file = self.state_dir / "registry.db"
        return file if self.database_url == f"sqlite:///{file}" else None

    @property
    def embedded_store(self) -> bool:
        """Whether the store is a file of this machine."""
        return self.database_url.startswith("sqlite")


def read_settings(**overrides: object) -> Settings:
    """Return the settings of the environment, with *overrides* in place of what it says.

    Raises:
        BadSettings: a variable holds what it may not.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # values are parsed, whatever their type
    except ValidationError as error:
        raise BadSettings("; ".join(_sentence(problem) for problem in error.errors())) from error


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)  # noqa: S101  # pydantic's ErrorDetails
    message = str(problem["msg"]).removeprefix("Value error, ")
    variable = "_".join(str(part) for part in problem["loc"]).upper()
    return f"REGISTRY_{variable}: {message}" if variable else message
