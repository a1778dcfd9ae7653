"""What a registry answers, with names and types: views of the JSON that came, which each keeps as `document`."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Generic, TypeVar, overload

from plugin_registry_client.errors import NotARegistry, ProblemAnswered, error_of

T = TypeVar("T")


class _Member(Generic[T]):
    """A member of the document by its name on the wire, checked when it is read."""

    def __init__(self, name: str, read: Callable[[Any], T]) -> None:
        self._name = name
        self._read = read

    @overload
    def __get__(self, it: None, owner: type) -> "_Member[T]": ...

    @overload
    def __get__(self, it: "_View", owner: type) -> T: ...

    def __get__(self, it: "_View | None", owner: type) -> "T | _Member[T]":
        if it is None:
            return self
        try:
            return self._read(it.document[self._name])
        except (KeyError, TypeError, ValueError) as error:
            raise NotARegistry(
                f"What was answered is no {owner.__name__.lower()} as a registry of this version tells one: "
                f"its {self._name} is missing or of another kind."
            ) from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _number(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError(value)
    return value


def _moment(value: object) -> datetime:
    return datetime.fromisoformat(_text(value))


def _or_none(read: Callable[[Any], T]) -> Callable[[Any], T | None]:
    return lambda value: None if value is None else read(value)


class _View:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.document == self.document

    def __hash__(self) -> int:
        return hash(str(self.document.get("id")))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.document.get('id')}>"

    id = _Member("id", _text)


class _Submitted(_View):
    name = _Member("name", _text)
    version = _Member("version", _text)
    plugin_type = _Member("pluginType", _text)
    artifact_url = _Member("artifactUrl", _text)
    checksum = _Member("checksum", _text)
    """``sha256:`` and 64 hex digits."""
    config_schema = _Member("configSchema", _text)
    plugin_runtime = _Member("pluginRuntime", _text)


class Plugin(_Submitted):
    """A plugin: its artifact was downloaded and hashed, and matched its checksum."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Plugin":
        """Return the plugin that *document* tells.

        Raises:
            NotARegistry: it tells none; whatever was answered, nothing is known to be listed.
        """
        plugin = cls(document)
        for told in (plugin.id, plugin.name, plugin.version, plugin.checksum):
            assert isinstance(told, str)  # noqa: S101  # to read it is what may raise
        return plugin

    registered_at = _Member("registeredAt", _moment)


class Registration(_Submitted):
    """A submission, and how far it has come."""

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Registration":
        """Return the registration that *document* tells, as `Plugin.of` does."""
        registration = cls(document)
        for told in (registration.id, registration.status):
            assert isinstance(told, str)  # noqa: S101
        return registration

    status = _Member("status", _text)
    """``queued``, ``verifying``, ``registered``, ``rejected``, ``failed`` or ``canceled``."""
    attempts = _Member("attempts", _number)
    bytes_downloaded = _Member("bytesDownloaded", _number)
    artifact_bytes = _Member("artifactBytes", _or_none(_number))
    created_at = _Member("createdAt", _moment)
    updated_at = _Member("updatedAt", _moment)
    next_attempt_at = _Member("nextAttemptAt", _or_none(_moment))
    plugin_id = _Member("pluginId", _or_none(_text))

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.status not in {"queued", "verifying"}

    @property
    def error(self) -> ProblemAnswered | None:
        """Why it ended, or why its last attempt failed; not raised, but what `Client.wait` would raise."""
        problem = self.document.get("problem")
        return error_of(problem) if problem else None


class Event(_View):
    """What became of a registration, as the feed tells it."""

    seq = _Member("seq", _number)
    """Its place in the feed: who goes on after it misses nothing."""
    type = _Member("type", _text)
    """``registration.registered``, ``registration.rejected``, ``registration.failed``, ``registration.canceled``."""
    timestamp = _Member("timestamp", _moment)

    @property
    def data(self) -> Mapping[str, Any]:
        """Which registration it was, and why it ended so: `registrationId`, `pluginId`, `name`, `code` ..."""
        found: Mapping[str, Any] = self.document["data"]
        return found


class Token(_View):
    """What is known of an access token, but not the token."""

    label = _Member("label", _text)
    expires_at = _Member("expiresAt", _or_none(_moment))

    @property
    def scopes(self) -> tuple[str, ...]:
        """What it allows."""
        return tuple(self.document["scopes"])

    @property
    def names(self) -> tuple[str, ...]:
        """Patterns of the names that it is limited to; none of them means any name."""
        return tuple(self.document["names"])
