"""Settings, read once from the environment by a main.py and then passed down."""

import os
import re
import ssl
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar
from urllib.parse import unquote

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
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from shared.egress import Egress, Network, parse_networks, parse_ports
from shared.urls import Broker, parse_broker_url, parse_database_url, parse_proxy_url, sqlite_url

SECRETS = ("database_url", "database_password", "broker_url", "broker_password", "egress_proxy")
"""What may stand in a file as well, which REGISTRY_…_FILE names."""
MAX_SECRET_BYTES = 65_536


class BadSettings(Exception):
    """The environment holds a bad value; the message names the variable in one sentence."""


Parsed = TypeVar("Parsed")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~-]+)+")
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


def _certificates(file: Path) -> Path:
    """Return *file* if it holds certificates that can be trusted.

    Raises:
        ValueError: why not.
    """
    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise ValueError("holds no certificates in PEM form") from error
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from error
    return file


def _database(text: str) -> str:
    if text:
        parse_database_url(text)
    return text


def _broker(text: str) -> str:
    if text:
        parse_broker_url(text)
    return text


def _schemes(schemes: frozenset[str]) -> frozenset[str]:
    if not schemes or schemes - {"http", "https"}:
        raise ValueError("may hold http and https only")
    return schemes


def _proxy(secret: SecretStr) -> SecretStr:
    parse_proxy_url(secret.get_secret_value())
    return secret


def _root_path(text: str) -> str:
    if text and _PREFIX.fullmatch(text) is None:
        raise ValueError("must be a path such as /registry, without a slash at its end")
    return text


Seconds = Annotated[float, Field(gt=0, le=86_400)]
Certificates = Annotated[FilePath, AfterValidator(_certificates)]


class _Files(PydanticBaseSettingsSource):
    """Secrets that stand in files, so that they stand in no environment that others can read."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002  # its signature
        """Return what the file of one field holds, without the end of its last line; None where there is no file.

        Raises:
            BadSettings: it cannot be read, or the field's variable is set as well.
        """
        variable = f"REGISTRY_{field_name.upper()}"
        file = os.environ.get(f"{variable}_FILE")
        if not file:
            return None, field_name, False
        if os.environ.get(variable):
            raise BadSettings(f"{variable}_FILE: {variable} is set as well, leave one of them out")
        return _secret_in(Path(file), f"{variable}_FILE"), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Return what all of the files hold."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(fields[name], name)[0] for name in SECRETS}
        return {name: secret for name, secret in found.items() if secret is not None}


def _secret_in(file: Path, variable: str) -> str:
    try:
        with file.open("rb") as opened:
            secret = opened.read(MAX_SECRET_BYTES).decode("utf-8").rstrip("\r\n")
    except OSError as error:
        raise BadSettings(f"{variable}: cannot be read: {error.strerror}") from error
    except UnicodeError as error:
        raise BadSettings(f"{variable}: holds no text in UTF-8") from error
    if not secret:
        raise BadSettings(f"{variable}: is empty")
    return secret


class Settings(BaseSettings):
    """Every ``REGISTRY_*`` variable. Units are in the names: ``_S`` seconds, ``_BYTES`` bytes."""

    model_config = SettingsConfigDict(env_prefix="REGISTRY_", frozen=True, extra="ignore", env_ignore_empty=True)

    state_dir: Path = Path("~/.local/state/plugin-registry")
    database_url: Annotated[str, Field(repr=False), AfterValidator(_database)] = ""
    """As SQLAlchemy is told it, with the password in it."""
    database_password: SecretStr | None = None
    broker_url: Annotated[str, Field(repr=False), AfterValidator(_broker)] = ""
    broker_password: SecretStr | None = None
    broker_ca_file: Certificates | None = None
    broker_sentinel_master: str = "mymaster"

    catalogue_open: bool = False
    """Whether anybody may read the pages of plugins, without a token."""
    root_path: Annotated[str, Field(max_length=200), AfterValidator(_root_path)] = ""
    """The path prefix under which a proxy has clients ask for the registry, such as /registry."""
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

    egress_schemes: Annotated[frozenset[str], NoDecode, AfterValidator(_schemes), WrapValidator(_words)] = frozenset(
        {"https"}
    )
    egress_ports: Annotated[tuple[range, ...], NoDecode, WrapValidator(_ports)] = (range(443, 444),)
    egress_allow_networks: Annotated[tuple[Network, ...], NoDecode, WrapValidator(_networks)] = ()
    egress_ca_file: Certificates | None = None
    egress_proxy: Annotated[SecretStr, AfterValidator(_proxy)] | None = None
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
    keep_events_s: Annotated[float, Field(ge=5 * 86_400)] = 30 * 86_400
    """More than the four days for which deliveries are tried again."""

    _broker: Broker | None = None

    alive_file: Path | None = None
    """For a worker or beat: what it touches while it lives."""
    supervisor_fd: int | None = None
    """For a worker: the pipe by which `plugin-registry up` hears that it lives."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic-settings' signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, then the environment, then the files that it names."""
        return init_settings, env_settings, _Files(settings_cls)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        problems = []
        for complete in (self._find_state, self._complete_database, self._complete_broker):
            try:
                complete()
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _find_state(self) -> None:
        """Make the state folder's path absolute. Who has no home and does not need the folder is not told of it."""
        try:
            object.__setattr__(self, "state_dir", self.state_dir.expanduser().absolute())
        except RuntimeError as error:
            if self.database_url and "state_dir" not in self.model_fields_set:
                return
            raise ValueError("REGISTRY_STATE_DIR: there is no such home directory") from error

    def _complete_database(self) -> None:
        url = self.database_url or sqlite_url(self.state_dir / "registry.db")
        if self.database_url or self.database_password is not None:
            url = _of("REGISTRY_DATABASE_URL", parse_database_url, url, self.database_password)
        object.__setattr__(self, "database_url", url)

    def _complete_broker(self) -> None:
        if not self.broker_url:
            return
        broker = _of("REGISTRY_BROKER_URL", parse_broker_url, self.broker_url, self.broker_password)
        self._broker = broker
        object.__setattr__(self, "broker_url", broker.url)
        if self.broker_ca_file is not None and not broker.tls:
            raise ValueError(
                "REGISTRY_BROKER_CA_FILE: REGISTRY_BROKER_URL asks for no TLS: "
                "begin it with rediss://, sentinels:// or amqps://"
            )

    @property
    def broker(self) -> Broker:
        """The broker.

        Raises:
            BadSettings: none is named.
        """
        if self._broker is None:
            raise BadSettings(
                "REGISTRY_BROKER_URL: is not set: name the broker, such as redis://HOST:6379/0 "
                "(`plugin-registry up` brings its own)"
            )
        return self._broker

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
        return file if self.store_file == file else None

    @property
    def store_file(self) -> Path | None:
        """The file that the store is, if it is one."""
        return Path(unquote(self.database_url.partition(":///")[2])) if self.embedded_store else None

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


def _of(variable: str, parse: Callable[[str, str | None], Parsed], text: str, secret: SecretStr | None) -> Parsed:
    try:
        return parse(text, secret.get_secret_value() if secret is not None else None)
    except ValueError as error:
        raise ValueError(f"{variable}: {error}") from None


def _sentence(problem: object) -> str:
    assert isinstance(problem, dict)  # noqa: S101  # pydantic's ErrorDetails
    message = str(problem["msg"]).removeprefix("Value error, ")
    variable = "_".join(str(part) for part in problem["loc"]).upper()
    return f"REGISTRY_{variable}: {message}" if variable else message
