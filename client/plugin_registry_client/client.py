"""A registry from Python: submit, wait, look up. `asynchronous.py` has the same to be awaited."""

import os
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from plugin_registry_client.connection import MOMENT_S, Answer, Connection, segment
from plugin_registry_client.errors import (
    BadSettings,
    NotARegistry,
    RegistryInTrouble,
    StillRunning,
    Unreachable,
    error_of,
)
from plugin_registry_client.results import Event, Plugin, Registration, Token
from plugin_registry_client.settings import find_registry, said_over

PAGE = 200
EVENTS_A_PAGE = 500
STREAM_SILENT_S = 45.0
"""A stream of which nothing is heard for so long is broken: the registry says something every 15 s."""
POLL_S = 0.25
SILENT_S = 5.0
"""After so long without news the registry is asked."""
REGISTERED_MEANWHILE = "registered-meanwhile"
"""The cause of a registration that ended because the same was registered by another."""


class Client:
    """The registry at *url*, with *token*; without them the one that the command `plugin-registry` would mean.

    It may be used by several threads. *registry* is a name that `plugin-registry login` gave; *ca_file* holds
    certificates in PEM form that are trusted besides those of this machine.

    Raises:
        BadSettings, NoToken: no registry can be told.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        registry: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        file = None if ca_file is None else str(ca_file)
        if "" in {url, token}:
            raise BadSettings("An empty text is no URL, and no token: was a variable not set?")
        given = {"REGISTRY_URL": url, "REGISTRY_TOKEN": token, "REGISTRY_CA_FILE": file}
        said = {key: value for key, value in given.items() if value is not None}
        meant = find_registry(registry, said_over(os.environ, said))
        self.connection = Connection(meant.url, meant.token, ca_file=meant.ca_file)

    @property
    def url(self) -> str:
        """Where the registry is."""
        return self.connection.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what is open. A client that is used again opens it again."""
        self.connection.close()

    def register(
        self,
        *,
        name: str,
        version: str,
        plugin_type: str,
        artifact_url: str,
        checksum: str,
        config_schema: str = "{}",
        plugin_runtime: str = "",
        timeout_s: float = 300,
    ) -> Plugin:
        """Have a plugin verified and listed, and return it. To call it again with the same is safe.

        Raises:
            Refused, UpstreamFailed, Conflict, Canceled: it is not listed; the error says why and whose fault it is.
            StillRunning: it had not ended after *timeout_s*; `wait` goes on.
            BadRequest, NotAuthorised, RegistryInTrouble, Unreachable: it was not taken.
        """
        submitted = self.submit(
            submission(name, version, plugin_type, artifact_url, checksum, config_schema, plugin_runtime)
        )
        return submitted if isinstance(submitted, Plugin) else self.wait(submitted, timeout_s=timeout_s)

    def submit(self, document: Mapping[str, str]) -> Registration | Plugin:
        """Submit *document*, the body of RegisterPlugin; return its registration, or the plugin that stands already.

        Raises:
            BadRequest, Refused, Conflict, NotAuthorised, RegistryInTrouble, Unreachable: it was not taken.
        """
        return either_of(self._submit(document, {}))

    def dry_run(self, document: Mapping[str, str]) -> Plugin | None:
        """Check all of *document* that can be checked without a download, and change nothing.

        Returns:
            the plugin where the same is registered already; None where nothing stands in the way.

        Raises:
            BadRequest, Refused, Conflict, NotAuthorised, RegistryInTrouble, Unreachable: as submitting it would.
        """
        answer = self._submit(document, {"dryRun": "true"})
        return None if answer.status == 204 else Plugin.of(answer.document)

    def _submit(self, document: Mapping[str, str], query: Mapping[str, str]) -> Answer:
        headers = {"Prefer": "respond-async"}
        return self.connection.ask("POST", "/api/v1/plugins", query=query, document=document, headers=headers)

    def wait(self, registration: Registration | str, *, timeout_s: float = 300) -> Plugin:
        """Return the plugin that *registration*, or the one of that id, becomes.

        Raises:
            Refused, UpstreamFailed, Conflict, Canceled: why it became none.
            StillRunning: it had not ended after *timeout_s*; it goes on.
        """
        give_up = time.monotonic() + timeout_s
        if isinstance(registration, str):
            registration = self.found(registration, timeout_s=timeout_s)
        for last in self.follow(registration, timeout_s=max(0.0, give_up - time.monotonic())):
            registration = last
        return self.outcome_of(registration, timeout_s=max(0.0, give_up - time.monotonic()), waited_s=timeout_s)

    def follow(self, registration: Registration, *, timeout_s: float = 300) -> Iterator[Registration]:
        """Yield *registration* as it is now and at each news of it, until it has ended or *timeout_s* are over.

        A registry that is away for a while is waited for like a registration that takes its time.
        """
        last = None
        for each in self.looks(registration, timeout_s=timeout_s):
            if each != last:
                last = each
                yield each

    def looks(self, registration: Registration, *, timeout_s: float = 300) -> Iterator[Registration]:
        """Yield *registration* at each look at it, every few seconds, whether or not there is any news."""
        give_up = time.monotonic() + timeout_s
        yield registration
        path, failed = registration_path(registration.id), 0
        while not registration.final and time.monotonic() <= give_up:
            silent_s = max(MOMENT_S, min(SILENT_S, give_up - time.monotonic()))
            for event in self.connection.events(f"{path}/events", silent_s=silent_s):
                if event.document is None:
                    continue
                registration = Registration.of(event.document)
                yield registration
                if time.monotonic() > give_up:
                    return
            if registration.final:
                return
            time.sleep(pause_s(failed))
            try:
                answer = self.connection.ask("GET", path, within_s=give_up - time.monotonic())
                registration, failed = Registration.of(answer.document), 0
            except (Unreachable, RegistryInTrouble) as error:
                failed += 1
                time.sleep(min(getattr(error, "retry_after_s", None) or 0.0, max(0.0, give_up - time.monotonic())))
            yield registration

    def found(self, registration_id: str, *, timeout_s: float) -> Registration:
        """Return a registration as it is now; a registry that is away is waited for, for *timeout_s*."""
        return Registration.of(self._patient_get(registration_path(registration_id), timeout_s).document)

    def outcome_of(
        self, registration: Registration, *, timeout_s: float = SILENT_S, waited_s: float | None = None
    ) -> Plugin:
        """Return the plugin that *registration* became, as `wait` does of one that has ended."""
        plugin_id = plugin_id_of(registration, self.url, timeout_s if waited_s is None else waited_s)
        return Plugin.of(self._patient_get(plugin_path(plugin_id), timeout_s).document)

    def registration(self, registration_id: str) -> Registration:
        """Return a registration as it is now.

        Raises:
            BadRequest: there is none of that id that this token may see.
        """
        return Registration.of(self.connection.get(registration_path(registration_id)).document)

    def registrations(self, **filters: str) -> Iterator[Registration]:
        """Yield registrations, newest first: by `status`, `name`, `version`, `cause`, `host`, `since`."""
        yield from map(Registration, self._pages("/api/v1/registrations", filters))

    def plugin(self, plugin_id: str) -> Plugin:
        """Return a plugin.

        Raises:
            BadRequest: there is none of that id.
        """
        return Plugin.of(self.connection.get(plugin_path(plugin_id)).document)

    def plugins(self, **filters: str) -> Iterator[Plugin]:
        """Yield plugins, newest first: by `name`, `version`, `pluginType`."""
        yield from map(Plugin, self._pages("/api/v1/plugins", filters))

    def events_so_far(self, after: int | None = None) -> Iterator[Event]:
        """Yield what became of registrations, the oldest first: after number *after*, or all that is kept.

        Raises:
            BadRequest: code ``events-gone``, there is no going on from there.
        """
        while True:
            page = self._events_page(after)
            yield from map(Event, page["items"])
            after = page["nextAfter"]
            if after >= page["newest"]:
                return

    def events_after(self, after: int) -> tuple[list[Event], int]:
        """Return a page of events after number *after*, and the number to go on after."""
        page = self._events_page(after)
        return [*map(Event, page["items"])], page["nextAfter"]

    def _events_page(self, after: int | None, *, limit: int = EVENTS_A_PAGE) -> dict[str, Any]:
        page = self.connection.get("/api/v1/events", after=after, limit=limit).document
        numbers = page.get("nextAfter"), page.get("newest")
        if not isinstance(page.get("items"), list) or not all(isinstance(each, int) for each in numbers):
            raise NotARegistry(f"What {self.url} answered is no page of events: is it a plugin registry?")
        return page

    def events(self, after: int | None = None) -> Iterator[Event]:
        """Yield what becomes of registrations, as it happens, for ever: after number *after*, or from now on.

        A connection that breaks, or a registry that is away, is gone on with where it was: none is missed.

        Raises:
            BadRequest: code ``events-gone``, there is no going on from there.
        """
        failed = 0
        if after is None:
            after = self.newest_event()
        while True:
            seen = after
            for told in self.connection.events(f"/api/v1/events/stream?after={after}", silent_s=STREAM_SILENT_S):
                if told.document is not None:
                    yield Event(told.document)
                after = int(told.id)
            failed = 0 if after != seen else failed + 1
            time.sleep(pause_s(failed))
            with suppress(Unreachable, RegistryInTrouble):  # what a stream does not say, such as that it cannot go on
                self.connection.get("/api/v1/events", after=after, limit=1)

    def newest_event(self) -> int:
        """Return the number of the newest event."""
        return int(self._events_page(None, limit=1)["newest"])

    def cancel(self, registration_id: str) -> Registration:
        """Cancel a registration that is queued or being verified; this needs scope operate."""
        return Registration.of(self.connection.post(f"{registration_path(registration_id)}/cancel").document)

    def retry(self, registration_id: str) -> Registration | Plugin:
        """Try one that failed again, as a new registration; return the plugin where it is registered by now."""
        return either_of(self.connection.post(f"{registration_path(registration_id)}/retry"))

    def token(self) -> Token:
        """Return what the registry knows of the token that is used here."""
        return Token(self.connection.get("/api/v1/tokens/current").document)

    def _pages(self, path: str, filters: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        cursor: str | None = None
        while True:
            page = self.connection.get(path, **filters, limit=PAGE, cursor=cursor).document
            items, cursor = page.get("items"), page.get("nextCursor")
            if not isinstance(items, list) or not all(isinstance(each, dict) for each in items):
                raise NotARegistry(f"What {self.url} answered is no page of a list: is it a plugin registry?")
            yield from items
            if cursor is None:
                return

    def _patient_get(self, path: str, timeout_s: float) -> Answer:
        """Return the answer to a GET; while there is none, or the registry is not well, ask until *timeout_s*."""
        give_up, failed = time.monotonic() + timeout_s, 0
        while True:
            try:
                return self.connection.ask("GET", path, within_s=give_up - time.monotonic())
            except (Unreachable, RegistryInTrouble):
                failed += 1
                if time.monotonic() > give_up:
                    raise
            time.sleep(min(pause_s(failed), max(0.0, give_up - time.monotonic())))


def pause_s(failed: int) -> float:
    """Return how long to wait before one asks again that *failed* so many times in a row: others wait as well."""
    longest: float = min(SILENT_S, POLL_S * 2 ** min(failed, 10))
    return longest * random.uniform(0.5, 1) if failed else longest  # noqa: S311  # nobody has to guess it


def either_of(answer: Answer) -> Registration | Plugin:
    """Return the plugin that a 200 tells, or the registration that a 202 does.

    Raises:
        NotARegistry: it is neither.
    """
    return Plugin.of(answer.document) if answer.status == 200 else Registration.of(answer.document)


def plugin_id_of(registration: Registration, url: str, waited_s: float) -> str:
    """Return which plugin *registration* became.

    Raises:
        StillRunning: it has not ended.
        ProblemAnswered: why it became none.
    """
    if not registration.final:
        raise StillRunning(registration.document, waited_s)
    problem = registration.document.get("problem") or {}
    if registration.status == "registered":
        return str(registration.plugin_id)
    if problem.get("cause") == REGISTERED_MEANWHILE:
        return str(problem["pluginId"])
    raise error_of(problem, url)


def plugin_path(plugin_id: str) -> str:
    """Return where a plugin is asked for; an id is never a path."""
    return f"/api/v1/plugins/{segment(plugin_id)}"


def registration_path(registration_id: str) -> str:
    """Return where a registration is asked for; an id is never a path."""
    return f"/api/v1/registrations/{segment(registration_id)}"


def submission(
    name: str,
    version: str,
    plugin_type: str,
    artifact_url: str,
    checksum: str,
    config_schema: str = "{}",
    plugin_runtime: str = "",
) -> dict[str, str]:
    """Return the body of RegisterPlugin."""
    return {
        "name": name,
        "version": version,
        "pluginType": plugin_type,
        "artifactUrl": artifact_url,
        "checksum": checksum,
        "configSchema": config_schema,
        "pluginRuntime": plugin_runtime,
    }
