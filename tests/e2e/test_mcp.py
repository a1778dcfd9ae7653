"""`plugin-registry mcp`, as the SDK's own client starts it and talks to it: what a model is offered, and is told."""

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from mcp import Client, StdioServerParameters
from mcp.types import TextContent

from tests.origin import Served
from tests.running import Registry, clean_environment, run

Artifact = Callable[..., tuple[dict[str, str], Served]]
T = TypeVar("T")


class Model:
    """Calls tools as a model does, each in a run of the command of its own; keeps all that it read."""

    def __init__(self, registry: Registry, token: str | None = None) -> None:
        env = clean_environment({"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": token or registry.token})
        self._server = StdioServerParameters(
            command=sys.executable, args=["-m", "plugin_registry_client", "mcp"], env=env
        )
        self.progress: list[str | None] = []
        self.read = ""

    def ask(self, what: Callable[[Client], Awaitable[T]]) -> T:
        async def asked() -> T:
            async with Client(self._server) as client:
                return await what(client)

        return asyncio.run(asked())

    def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        failed, text, document = self._called(tool, arguments)
        assert not failed, text
        return document

    def fails(self, tool: str, **arguments: Any) -> str:
        failed, text, _ = self._called(tool, arguments)
        assert failed
        return text

    def _called(self, tool: str, arguments: dict[str, Any]) -> tuple[bool, str, dict[str, Any]]:
        async def heard(progress: float, total: float | None, message: str | None) -> None:
            self.progress.append(message)

        result = self.ask(lambda client: client.call_tool(tool, arguments, progress_callback=heard))
        text = "".join(each.text for each in result.content if isinstance(each, TextContent))
        self.read += text + str(result.structured_content)
        return bool(result.is_error), text, result.structured_content or {}


@pytest.fixture
def model(registry: Registry) -> Model:
    return Model(registry)


def described(submission: dict[str, str], **changes: str) -> dict[str, str]:
    words = {"pluginType": "plugin_type", "artifactUrl": "artifact_url"}
    return {words.get(key, key): value for key, value in (submission | changes).items()}


def test_a_model_is_offered_what_an_agent_does_and_what_only_reads_says_so(model: Model) -> None:
    tools = {each.name: each for each in model.ask(lambda client: client.list_tools()).tools}
    assert set(tools) == {"dry_run", "register", "wait", "look_up", "list_plugins", "list_registrations"}
    reading = {name: each.annotations and each.annotations.read_only_hint for name, each in tools.items()}
    assert reading == {name: name != "register" for name in tools}
    register = tools["register"]
    assert register.annotations is not None
    assert (register.annotations.destructive_hint, register.annotations.idempotent_hint) == (False, True)
    assert set(register.input_schema["required"]) == {"name", "version", "plugin_type", "artifact_url", "checksum"}
    for tool in tools.values():
        assert tool.description
        assert all("description" in each for each in tool.input_schema["properties"].values()), tool.name
        assert not {"token", "url", "self"} & set(tool.input_schema["properties"])


def test_a_plugin_is_tried_registered_and_found(model: Model, registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    assert model.call("dry_run", **described(submission))["outcome"] == "free"
    listed = model.call("register", **described(submission))
    assert listed["outcome"] == "listed"
    assert listed["plugin"]["checksum"] == submission["checksum"]
    assert "It is registered." in model.progress
    for again in ("register", "dry_run"):
        assert model.call(again, **described(submission)) == listed
    assert model.call("look_up", plugin_id=listed["plugin"]["id"]) == listed
    assert model.call("list_plugins", name=submission["name"]) == {"items": [listed["plugin"]]}
    (found,) = model.call("list_registrations", name=submission["name"])["items"]
    assert model.call("look_up", registration_id=found["id"])["outcome"] == "registered"
    assert registry.token not in model.read


def test_what_takes_longer_is_waited_for_later(model: Model, artifact: Artifact, gate: threading.Event) -> None:
    submission, _ = artifact(gate=gate)
    begun = model.call("register", **described(submission), wait_s=0.2)
    assert begun["outcome"] in {"queued", "verifying"}
    registration_id = begun["registration"]["id"]
    assert f"call wait with registration_id {registration_id}" in begun["next"]
    gate.set()
    assert model.call("wait", registration_id=registration_id)["plugin"]["name"] == submission["name"]


def test_a_failure_says_what_whose_and_what_next(model: Model, artifact: Artifact) -> None:
    submission, served = artifact(body=b"<html>log in</html>")
    text = model.fails("register", **described(submission, checksum="sha256:" + "1" * 64))
    for told in ("does not match", "cause: html-page", "at fault: submitter", served.checksum, "will not succeed"):
        assert told in text
    assert "Use the URL of the file itself" in text
    busy = model.fails("register", **described(artifact(status=503)[0]))
    assert "at fault: upstream" in busy
    assert "The same may succeed later." in busy
    assert "version: is not a SemVer" in model.fails("dry_run", **described(submission, version="v1"))
    assert "Give either" in model.fails("look_up")
    assert "not-found" in model.fails("look_up", plugin_id="plugin-../../x")


def test_no_token_is_in_any_text(registry: Registry) -> None:
    for token in ("prg_abcdefghijkl_no", registry.token):
        model = Model(registry, token)
        if token == registry.token:
            model.call("list_plugins")
        else:
            assert "at fault: submitter" in model.fails("list_plugins")
        assert token not in model.read


def test_a_registry_that_is_away_is_told(registry: Registry) -> None:
    away = Model(registry)
    away._server.env = {**(away._server.env or {}), "REGISTRY_URL": "http://127.0.0.1:9"}
    assert "nothing listens there" in away.fails("list_plugins")


def test_without_a_registry_it_does_not_begin() -> None:
    assert run("mcp", env={"REGISTRY_STATE_DIR": "/nowhere", "HOME": "/nowhere"}).returncode == 4
