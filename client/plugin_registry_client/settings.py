"""Which registry is meant, and with which token: arguments, the environment, what `login` kept, or the one at hand.

A token is sent only to the registry that it was given with.
"""

import os
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from plugin_registry_client.connection import parsed_url
from plugin_registry_client.errors import BadSettings, NoToken

DEFAULT_URL = "http://127.0.0.1:8080"
MAX_SECRET_BYTES = 65_536
_HOW = "Set REGISTRY_TOKEN to one, or run `plugin-registry login URL`."


@dataclass(frozen=True)
class Meant:
    """A registry that is meant, by *name* where `login` gave it one."""

    url: str
    token: str
    ca_file: Path | None = None
    name: str | None = None


@dataclass(frozen=True)
class Known:
    """A registry that `login` keeps."""

    url: str
    token: str
    ca_file: Path | None = None


class Config:
    """The file in which `login` keeps registries by name; it is its owner's alone, for it holds tokens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._document = self._read()

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Config":
        """Return the file of this user (XDG Base Directory Specification)."""
        home = Path(environment.get("XDG_CONFIG_HOME", ""))
        if not home.is_absolute():  # which the specification has ignored
            try:
                home = Path(environment.get("HOME") or Path.home()) / ".config"
            except RuntimeError:
                raise BadSettings("There is no home to keep registries in: set HOME or XDG_CONFIG_HOME.") from None
        return cls(home.absolute() / "plugin-registry" / "config.toml")

    @property
    def default(self) -> str | None:
        """The name of the registry that is meant where none is named."""
        name = self._document.get("default")
        return name if isinstance(name, str) and name in self.names else None

    @property
    def names(self) -> list[str]:
        """The names of all that are kept."""
        kept = self._document.get("registries", {})
        return [*kept] if isinstance(kept, dict) else []

    def known(self, name: str) -> Known:
        """Return what is kept of the registry called *name*.

        Raises:
            BadSettings: nothing, or what nobody can use.
        """
        if name not in self.names:
            kept = ", ".join(self.names) or "none"
            raise BadSettings(f"No registry is called {name} in {self.path}; there are: {kept}. `login` adds one.")
        kept = self._document["registries"][name]
        if not isinstance(kept, dict) or not isinstance(kept.get("url"), str):
            raise BadSettings(f"{self.path}: the registry {name} has no url.")
        token, ca_file = kept.get("token", ""), kept.get("ca-file")
        if not isinstance(token, str) or not isinstance(ca_file, str | None):
            raise BadSettings(f"{self.path}: the registry {name} has a token or a ca-file that is no text.")
        return Known(parsed_url(kept["url"]), token, Path(ca_file) if ca_file else None)

    def name_of(self, url: str) -> str | None:
        """Return the name under which *url* is kept, if it is."""
        for name in self.names:
            with suppress(BadSettings):  # another's mistake
                if self.known(name).url == url:
                    return name
        return None

    def keep(self, name: str, registry: Known, *, default: bool) -> None:
        """Keep *registry* as *name*; the first is the default anyway."""
        kept = {"url": registry.url, "token": registry.token}
        if registry.ca_file is not None:
            kept["ca-file"] = str(registry.ca_file.absolute())
        registries = {each: self._document["registries"][each] for each in self.names} | {name: kept}
        chosen = name if default or self.default is None else self.default
        self._write({"default": chosen, "registries": registries})

    def forget(self, name: str) -> None:
        """Keep nothing of the registry called *name* any more."""
        self.known(name)
        left = {each: self._document["registries"][each] for each in self.names if each != name}
        default = {"default": self.default} if self.default in left else {}
        self._write({**default, "registries": left})

    def _read(self) -> dict[str, Any]:
        try:
            with self.path.open("rb") as file:
                if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                    raise BadSettings(
                        f"{self.path} can be read by others, and it holds tokens: chmod 600 {self.path}, "
                        "and revoke them if others may have looked."
                    )
                return tomllib.load(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise BadSettings(f"{self.path} cannot be read: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise BadSettings(f"{self.path} is no TOML: {error}.") from error

    def _write(self, document: dict[str, Any]) -> None:
        half = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with os.fdopen(os.open(half, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                tomli_w.dump(document, file)
            half.replace(self.path)
        except OSError as error:
            with suppress(OSError):
                half.unlink(missing_ok=True)
            raise BadSettings(f"{self.path} cannot be written: {error.strerror}.") from error
        self._document = document


def find_registry(name: str | None = None, environment: Mapping[str, str] = os.environ) -> Meant:
    """Return the registry that is meant: the one called *name*, the environment's, the default of `login`, or ours.

    Raises:
        BadSettings, NoToken: none can be told.
    """
    given = {key: value for key, value in environment.items() if value}
    ca_file = Path(given["REGISTRY_CA_FILE"]) if "REGISTRY_CA_FILE" in given else None
    url, token = given.get("REGISTRY_URL"), _token_in(given)
    if name is not None and (url is not None or token is not None):
        said = "REGISTRY_URL" if url is not None else "REGISTRY_TOKEN"
        raise BadSettings(f"{said} and --registry {name} both say which registry is meant: leave one out.")
    if token is not None:
        return Meant(parsed_url(url or DEFAULT_URL), token, ca_file)
    if url is not None:
        url = parsed_url(url)
        name = Config.of(environment).name_of(url)
        if name is None:
            raise NoToken(f"There is no token for {url}. {_HOW}")
    if name is None:
        at_hand = _at_hand(given) if "REGISTRY_STATE_DIR" in given else None
        if at_hand is not None:
            return at_hand
        name = Config.of(environment).default
    if name is None:
        at_hand = _at_hand(given)
        if at_hand is None:
            raise NoToken(f"There is no token. {_HOW}")
        return at_hand
    kept = Config.of(environment).known(name)
    if not kept.token:
        raise NoToken(f"There is no token for {kept.url}. {_HOW}")
    return Meant(kept.url, kept.token, ca_file or kept.ca_file, name)


def said_over(environment: Mapping[str, str], said: Mapping[str, str]) -> dict[str, str]:
    """Return *environment* with what a caller *said* in place of what it holds on the same.

    Who says where, and not with which token, does not mean the token that the environment has for elsewhere.
    """
    unsaid = {"REGISTRY_TOKEN_FILE"} if "REGISTRY_TOKEN" in said else set()
    if said.get("REGISTRY_URL", environment.get("REGISTRY_URL")) != environment.get("REGISTRY_URL"):
        unsaid |= {"REGISTRY_TOKEN", "REGISTRY_TOKEN_FILE"}
    return {key: value for key, value in environment.items() if key not in unsaid} | dict(said)


def _token_in(given: Mapping[str, str]) -> str | None:
    file = given.get("REGISTRY_TOKEN_FILE")
    if file is None:
        return given.get("REGISTRY_TOKEN")
    if "REGISTRY_TOKEN" in given:
        raise BadSettings("REGISTRY_TOKEN_FILE: REGISTRY_TOKEN is set as well, leave one of them out.")
    try:
        with Path(file).open("rb") as opened:
            token = opened.read(MAX_SECRET_BYTES).decode().strip()
    except OSError as error:
        raise BadSettings(f"REGISTRY_TOKEN_FILE: cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadSettings("REGISTRY_TOKEN_FILE: holds no text in UTF-8.") from error
    if not token:
        raise BadSettings("REGISTRY_TOKEN_FILE: is empty.")
    return token


def _at_hand(given: Mapping[str, str]) -> Meant | None:
    """Return the registry that runs on this machine's state folder (`plugin-registry up`), if one does.

    Its token is never sent anywhere else.
    """
    with suppress(ImportError, OSError, RuntimeError):  # where it cannot be told, none does
        import fcntl  # noqa: PLC0415  # there is none on Windows, nor a registry

        state = Path(given.get("REGISTRY_STATE_DIR", "~/.local/state/plugin-registry")).expanduser()
        with (state / "lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                url, token = (state / "address").read_text().strip(), (state / "token").read_text().strip()
                return Meant(url, token) if url and token else None
    return None
