"""The same as `client.py`, to be awaited: each request runs in a thread, and no loop waits for one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Self, TypeVar

from plugin_registry_client.client import Client, submission
from plugin_registry_client.results import Plugin, Registration, Token

T = TypeVar("T")
_END = object()


class AsyncClient:
    """The registry at *url*, with *token*: what `Client` is, method for method, with the same results and errors.

    What is cancelled leaves at most one request behind, which ends by itself; a registration goes on in any case.
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

    @property
    def url(self) -> str:
        """Where the registry is."""
        return self._client.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close what is open. A client that is used again opens it again."""
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
        return await asyncio.to_thread(self._client.submit, document)

    async def dry_run(self, document: Mapping[str, str]) -> Plugin | None:
        """Check what can be checked without a download, as `Client.dry_run` does."""
        return await asyncio.to_thread(self._client.dry_run, document)

    async def wait(self, registration: Registration | str, *, timeout_s: float = 300) -> Plugin:
        """Return the plugin that a registration becomes, as `Client.wait` does."""
        if isinstance(registration, str):
            registration = await self.registration(registration)
        async for last in self.follow(registration, timeout_s=timeout_s):
            registration = last
        return await asyncio.to_thread(self._client.outcome_of, registration, waited_s=timeout_s)

    def follow(self, registration: Registration, *, timeout_s: float = 300) -> AsyncIterator[Registration]:
        """Yield a registration at each news of it, as `Client.follow` does."""
        return _each(lambda: self._client.follow(registration, timeout_s=timeout_s))

    async def registration(self, registration_id: str) -> Registration:
        """Return a registration as it is now."""
        return await asyncio.to_thread(self._client.registration, registration_id)

    def registrations(self, **filters: str) -> AsyncIterator[Registration]:
        """Yield registrations, newest first, as `Client.registrations` does."""
        return _each(lambda: self._client.registrations(**filters))

    async def plugin(self, plugin_id: str) -> Plugin:
        """Return a plugin."""
        return await asyncio.to_thread(self._client.plugin, plugin_id)

    def plugins(self, **filters: str) -> AsyncIterator[Plugin]:
        """Yield plugins, newest first, as `Client.plugins` does."""
        return _each(lambda: self._client.plugins(**filters))

    async def cancel(self, registration_id: str) -> Registration:
        """Cancel a registration."""
        return await asyncio.to_thread(self._client.cancel, registration_id)

    async def retry(self, registration_id: str) -> Registration | Plugin:
        """Try one that failed again."""
        return await asyncio.to_thread(self._client.retry, registration_id)

    async def token(self) -> Token:
        """Return what the registry knows of the token that is used here."""
        return await asyncio.to_thread(self._client.token)


async def _each(iterate: Callable[[], Iterator[T]]) -> AsyncIterator[T]:
    """Yield what an iterator has, each taken in a thread."""
    iterator = iterate()
    while (item := await asyncio.to_thread(next, iterator, _END)) is not _END:
        yield item  # type: ignore[misc]  # the end is the only other thing there is
