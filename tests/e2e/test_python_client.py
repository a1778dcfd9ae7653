"""The Python API of the light client, against the running registry: the same, called and awaited."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
from plugin_registry_client import (
    AsyncClient,
    BadRequest,
    Canceled,
    Client,
    Conflict,
    NotARegistry,
    NotAuthorised,
    Plugin,
    Refused,
    Registration,
    RegistryError,
    StillRunning,
    UpstreamFailed,
)

from tests.origin import Served
from tests.running import PATIENCE_S, Registry, until

Artifact = Callable[..., tuple[dict[str, str], Served]]
T = TypeVar("T")
WORDS = {"pluginType": "plugin_type", "artifactUrl": "artifact_url", "configSchema": "config_schema"}


class Awaited:
    """An `AsyncClient`, called as a `Client` is: each call is awaited, each iterator run to its end."""

    def __init__(self, url: str, token: str) -> None:
        self._client = AsyncClient(url, token)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def call(*arguments: Any, **options: Any) -> Any:
            result = method(*arguments, **options)
            return iter(asyncio.run(_all(result))) if hasattr(result, "__aiter__") else asyncio.run(_awaited(result))

        return call


async def _awaited(what: Any) -> Any:
    return await what


async def _all(what: AsyncIterator[T]) -> list[T]:
    return [each async for each in what]


@pytest.fixture(params=[Client, Awaited], ids=["called", "awaited"])
def client(request: pytest.FixtureRequest, registry: Registry) -> Iterator[Any]:
    client = request.param(registry.address, registry.token)
    yield client
    client.close()


def described(submission: dict[str, str], **changes: str) -> dict[str, Any]:
    return {WORDS.get(key, key): value for key, value in (submission | changes).items()}


def test_what_matches_is_registered_and_looked_up(client: Any, artifact: Artifact) -> None:
    submission, _ = artifact()
    plugin = client.register(**described(submission))
    assert isinstance(plugin, Plugin)
    assert (plugin.name, plugin.checksum) == (submission["name"], submission["checksum"])
    assert plugin.config_schema == "{}"
    assert abs(plugin.registered_at - datetime.now(UTC)) < timedelta(minutes=10)
    assert client.register(**described(submission)) == plugin, "to call it again is safe"
    assert client.plugin(plugin.id) == plugin
    assert [*client.plugins(name=submission["name"])] == [plugin]
    assert client.dry_run(submission) == plugin
    assert client.dry_run(artifact()[0]) is None


def test_why_it_was_refused_is_an_error_with_its_facts(client: Any, artifact: Artifact) -> None:
    submission, served = artifact(body=b"<html>log in</html>")
    declared = "sha256:" + "1" * 64
    with pytest.raises(Refused) as refused:
        client.register(**described(submission, checksum=declared))
    error = refused.value
    assert (error.code, error.cause, error.fault) == ("digest-mismatch", "html-page", "submitter")
    assert (error.declared, error.computed, error.retryable) == (declared, served.checksum, False)
    assert error.to_do is not None
    assert "Use the URL of the file itself" in error.to_do
    (failed,) = client.registrations(name=submission["name"])
    assert (failed.status, failed.final, failed.plugin_id) == ("rejected", True, None)
    assert failed.error is not None
    assert failed.error.document == error.document
    with pytest.raises(Refused):
        client.wait(failed.id)


def test_each_way_to_fail_has_its_class(client: Any, artifact: Artifact, registry: Registry) -> None:
    submission, _ = artifact()
    plugin = client.register(**described(submission))
    with pytest.raises(Conflict):
        client.register(**described(artifact()[0], name=submission["name"]))
    with pytest.raises(UpstreamFailed):
        client.register(**described(artifact(status=503)[0]))
    with pytest.raises(Refused):
        client.register(**described(artifact(status=404)[0]))
    with pytest.raises(BadRequest) as bad:
        client.submit(submission | {"version": "v1"})
    assert "v1" not in str(bad.value)
    assert any("version" in each for each in bad.value.details)
    with pytest.raises(BadRequest):
        client.registration("../../healthz")
    with pytest.raises(BadRequest):
        client.plugin("plugin-" + plugin.id.removeprefix("plugin-")[::-1])
    stranger = type(client)(registry.address, "prg_no")
    with pytest.raises(NotAuthorised):
        stranger.plugin(plugin.id)
    stranger.close()


def test_a_registration_is_followed_to_its_end(client: Any, artifact: Artifact, gate: threading.Event) -> None:
    submission, _ = artifact(gate=gate)
    submitted = client.submit(submission)
    assert isinstance(submitted, Registration)
    assert (submitted.status, submitted.final, submitted.error) == ("queued", False, None)
    with pytest.raises(StillRunning) as running:
        client.wait(submitted, timeout_s=0.3)
    assert running.value.document["id"] == submitted.id
    gate.set()
    news = [*client.follow(submitted)]
    assert news[0] == submitted
    assert news[-1].status == "registered"
    assert client.wait(submitted.id).id == news[-1].plugin_id


def test_what_an_operator_cancels_is_told_and_tried_again(
    client: Any, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _ = artifact(gate=gate)
    submitted = client.submit(submission)
    assert client.cancel(submitted.id).status == "canceled"
    with pytest.raises(Canceled):
        client.wait(submitted)
    gate.set()
    again = client.retry(submitted.id)
    assert isinstance(again, Registration)
    assert client.wait(again).checksum == submission["checksum"]


def test_a_list_is_read_to_its_end_page_by_page(
    client: Any, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugin_registry_client.client.PAGE", 2)
    submission, _ = artifact()
    for number in range(5):
        client.register(**described(submission, version=f"1.0.{number}"))
    assert [each.version for each in client.plugins(name=submission["name"])] == [f"1.0.{n}" for n in (4, 3, 2, 1, 0)]
    assert len([*client.registrations(name=submission["name"])]) == 5


def test_a_token_tells_what_it_may(client: Any, registry: Registry) -> None:
    token = client.token()
    assert token.scopes == ("admin", "operate", "read", "register")
    assert (token.names, token.expires_at) == ((), None)
    assert token.id in registry.token


def test_the_environment_is_meant_where_nothing_is_said(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REGISTRY_URL", registry.address)
    monkeypatch.setenv("REGISTRY_TOKEN", registry.token)
    with Client() as client:
        assert client.url == registry.address
        assert client.token().id in registry.token
    (tmp_path / "token").write_text(registry.token)
    monkeypatch.delenv("REGISTRY_TOKEN")
    monkeypatch.setenv("REGISTRY_TOKEN_FILE", str(tmp_path / "token"))
    with Client(registry.address) as client:
        assert client.token().id in registry.token


def test_many_wait_at_once_in_one_loop(registry: Registry, artifact: Artifact) -> None:
    async def all_of_them() -> list[Plugin]:
        async with AsyncClient(registry.address, registry.token) as client:
            return await asyncio.gather(*(client.register(**described(artifact()[0])) for _ in range(12)))

    assert len({each.id for each in asyncio.run(all_of_them())}) == 12


def test_who_stops_waiting_stops_at_once(registry: Registry, artifact: Artifact, gate: threading.Event) -> None:
    async def impatient() -> None:
        async with AsyncClient(registry.address, registry.token) as client:
            submitted = await client.submit(artifact(gate=gate)[0])
            assert isinstance(submitted, Registration)
            async with asyncio.timeout(0.2):
                await client.wait(submitted)

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert time.monotonic() - begun < PATIENCE_S / 2, "it was told to wait for five minutes"


def test_however_many_wait_the_loops_own_threads_are_free() -> None:
    async def asked() -> float:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as silent:
            async with AsyncClient(f"http://127.0.0.1:{silent.getsockname()[1]}", "prg_x") as client:
                waiting = [asyncio.create_task(client.wait("registration-x")) for _ in range(40)]
                await asyncio.sleep(0.2)
                begun = time.monotonic()
                await loop.run_in_executor(None, lambda: None)
                took = time.monotonic() - begun
                for each in waiting:
                    each.cancel()
        return took

    assert asyncio.run(asked()) < 5


def test_an_answer_of_another_kind_is_an_error_of_ours() -> None:
    strange = Registration({"id": 7, "createdAt": "yesterday"})
    for read in (lambda: strange.id, lambda: strange.created_at, lambda: strange.status):
        with pytest.raises(NotARegistry):
            read()
    assert issubclass(NotARegistry, RegistryError)
    assert repr(Plugin({"id": "plugin-1"})) == "<Plugin plugin-1>"
    assert Plugin({"id": "plugin-1"}) != Registration({"id": "plugin-1"})


def test_it_is_told_of_changes_while_it_waits_and_of_what_a_registry_that_was_away_did(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, served = artifact(gate=gate)
    with Client(registry.address, registry.token) as client:
        submitted = client.submit(submission)
        assert isinstance(submitted, Registration)
        until(lambda: served.requests, what="the download")
        news = client.follow(submitted)
        next(news)
        registry.child("api.main").kill()
        gate.set()
        assert [each.status for each in news][-1] == "registered"
