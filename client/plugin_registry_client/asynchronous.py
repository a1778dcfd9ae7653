"""The same as `client.py`, to be awaited: each request runs in a thread of its client's, and no loop waits for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Self, TypeVar

from plugin_registry_client.client import Client, pause_s, plugin_id_of, submission
from plugin_registry_client.errors import RegistryInTrouble, Unreachable
from plugin_registry_client.results import Event, Plugin, Registration, Token

T = TypeVar("T")
_END = object()
AT_ONCE = 8
"""Threads, each of which holds one request."""
LOOKS_AT_MOST_S = 2.0


class AsyncClient:
    """The registry at *url*, with *token*: what `Client` is, method for method, with the same results and errors.

    What is cancelled stops at once; a request that is under way then ends by itself, and a registration goes on.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        registry: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._client = Client(url, token, registry=registry, ca_file=ca_file)
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="plugin-registry")

    @property
    def url(self) -> str:
        """Where the registry is."""
        return self._client.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what is open. A client that was closed cannot be used again."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    async def register(
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
        """Have a plugin verified and listed, as `Client.register` does."""
        submitted = await self.submit(
            submission(name, version, plugin_type, artifact_url, checksum, config_schema, plugin_runtime)
        )
        return submitted if isinstance(submitted, Plugin) else await self.wait(submitted, timeout_s=timeout_s)

    async def submit(self, document: Mapping[str, str]) -> Registration | Plugin:
        """Submit a registration, as `Client.submit` does."""
        return await self._asked(self._client.submit, document)

    async def dry_run(self, document: Mapping[str, str]) -> Plugin | None:
        """Check what can be checked without a download, as `Client.dry_run` does."""
        return await self._asked(self._client.dry_run, document)

    async def wait(self, registration: Registration | str, *, timeout_s: float = 300) -> Plugin:
        """Return the plugin that a registration becomes, as `Client.wait` does."""
        give_up = time.monotonic() + timeout_s
        if isinstance(registration, str):
            registration_id = registration
            registration = await self._patient(lambda: self._client.registration(registration_id), give_up)
        async for last in self.follow(registration, timeout_s=max(0.0, give_up - time.monotonic())):
            registration = last
        plugin_id = plugin_id_of(registration, self.url, timeout_s)
        return await self._patient(lambda: self._client.plugin(plugin_id), give_up)

    async def follow(self, registration: Registration, *, timeout_s: float = 300) -> AsyncIterator[Registration]:
        """Yield a registration as it is now and at each news of it, as `Client.follow` does.

        It is looked at every second or two: however many are followed, each holds a thread for a moment only.
        """
        give_up = time.monotonic() + timeout_s
        yield registration
        quiet = 0
        registration_id = registration.id
        while not registration.final and time.monotonic() <= give_up:
            await asyncio.sleep(min(LOOKS_AT_MOST_S, pause_s(quiet), max(0.0, give_up - time.monotonic())))
            quiet += 1
            with suppress(
                Unreachable, RegistryInTrouble
            ):  # it is waited for, like a registration that takes its time
                current = await self.registration(registration_id)
                if current != registration:
                    registration, quiet = current, 0
                    yield registration

    async def registration(self, registration_id: str) -> Registration:
        """Return a registration as it is now."""
        return await self._asked(self._client.registration, registration_id)

    def registrations(self, **filters: str) -> AsyncIterator[Registration]:
        """Yield registrations, newest first, as `Client.registrations` does."""
        return self._each(lambda: self._client.registrations(**filters))

    async def plugin(self, plugin_id: str) -> Plugin:
        """Return a plugin."""
        return await self._asked(self._client.plugin, plugin_id)

    def plugins(self, **filters: str) -> AsyncIterator[Plugin]:
        """Yield plugins, newest first, as `Client.plugins` does."""
        return self._each(lambda: self._client.plugins(**filters))

    def events_so_far(self, after: int | None = None) -> AsyncIterator[Event]:
        """Yield what became of registrations, as `Client.events_so_far` does."""
        return self._each(lambda: self._client.events_so_far(after))

    async def events(self, after: int | None = None) -> AsyncIterator[Event]:
        """Yield what becomes of registrations, for ever, as `Client.events` does; looked for every second or two."""
        if after is None:
            after = await self._asked(self._client.newest_event)
        quiet = 0
        while True:
            with suppress(Unreachable, RegistryInTrouble):
                events, come_to = await self._asked(self._client.events_after, after)
                for event in events:
                    yield event
                quiet = 0 if come_to != after else quiet
                after = come_to
            quiet += 1
            await asyncio.sleep(min(LOOKS_AT_MOST_S, pause_s(quiet)))

    async def cancel(self, registration_id: str) -> Registration:
        """Cancel a registration."""
        return await self._asked(self._client.cancel, registration_id)

    async def retry(self, registration_id: str) -> Registration | Plugin:
        """Try one that failed again."""
        return await self._asked(self._client.retry, registration_id)

    async def token(self) -> Token:
        """Return what the registry knows of the token that is used here."""
        return await self._asked(self._client.token)

    async def _patient(self, what: Callable[[], T], give_up: float) -> T:
        """Return what is asked for; while the registry is away or not well, ask until *give_up*."""
        failed = 0
        while True:
            try:
                return await self._asked(what)
            except (Unreachable, RegistryInTrouble):
                failed += 1
                if time.monotonic() > give_up:
                    raise
            await asyncio.sleep(min(pause_s(failed), max(0.0, give_up - time.monotonic())))

    async def _asked(self, what: Callable[..., T], *arguments: object) -> T:
        """Return what is asked in a thread of ours: the loop's own are for what it looks up by itself."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, what, *arguments)

    async def _each(self, iterate: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
        """Yield what an iterator has, each taken in a thread."""
        iterator = iterate()
        while (item := await self._asked(next, iterator, _END)) is not _END:
            yield item
