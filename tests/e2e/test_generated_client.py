"""A client that is generated from the document does what its users need: it is how many will first meet the API."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import requests

from tests.origin import Served
from tests.running import PATIENCE_S, PROJECT, Registry

Artifact = Callable[..., tuple[dict[str, str], Served]]


@pytest.fixture(scope="module")
def generated(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Generate a client by openapi-python-client, which warns of whatever it cannot make; yield its package."""
    folder = tmp_path_factory.mktemp("generated")
    document = requests.get(f"{registry.address}/openapi.json", timeout=PATIENCE_S).json()
    (folder / "openapi.json").write_text(json.dumps(document))
    command = [str(PROJECT / ".venv/bin/openapi-python-client"), "generate", "--fail-on-warning", "--meta", "none"]
    done = subprocess.run(
        [*command, "--path", "openapi.json", "--output-path", "generated_client"],
        cwd=folder,
        env={"PATH": f"{PROJECT / '.venv/bin'}:/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    sys.path.insert(0, str(folder))
    yield "generated_client"
    sys.path.remove(str(folder))


class Generated:
    """The generated package, and a client of it with the registry's token."""

    def __init__(self, package: str, registry: Registry) -> None:
        self._package = package
        client: Any = self.part("client")
        self.client = client.AuthenticatedClient(
            base_url=registry.address, token=registry.token, timeout=PATIENCE_S, raise_on_unexpected_status=True
        )

    def part(self, name: str) -> ModuleType:
        return importlib.import_module(f"{self._package}.{name}")

    def call(self, operation: str, *arguments: Any, **options: Any) -> Any:
        return self.part(f"api.{operation}").sync(*arguments, client=self.client, **options)

    def model(self, name: str, document: dict[str, Any]) -> Any:
        module = self.part("models")
        return getattr(module, name).from_dict(document)


@pytest.fixture
def api(generated: str, registry: Registry) -> Iterator[Generated]:
    api = Generated(generated, registry)
    yield api
    api.client.get_httpx_client().close()


def test_it_registers_and_reads_the_nine_fields(api: Generated, artifact: Artifact) -> None:
    submission, _ = artifact()
    plugin = api.call("plugins.register_plugin", body=api.model("RegisterPluginSubmission", submission))
    assert type(plugin).__name__ == "Plugin"
    assert (plugin.name, plugin.checksum) == (submission["name"], submission["checksum"])
    assert api.call("plugins.get_plugin", plugin.id) == plugin


def test_it_waits_for_what_it_has_submitted(api: Generated, artifact: Artifact) -> None:
    body = api.model("RegisterPluginSubmission", artifact()[0])
    registration = api.call("plugins.register_plugin", body=body, prefer="respond-async")
    assert type(registration).__name__ == "RegistrationView"
    settled = api.call("registrations.get_registration", registration.id, prefer="wait=60")
    assert (settled.status.value, settled.problem) == ("registered", None)
    assert settled.plugin_id.startswith("plugin-")


def test_it_reads_why_something_failed(api: Generated, artifact: Artifact) -> None:
    submission, served = artifact()
    wrong = submission | {"checksum": "sha256:" + "1" * 64}
    problem = api.call("plugins.register_plugin", body=api.model("RegisterPluginSubmission", wrong))
    assert type(problem).__name__ == "ProblemDocument"
    assert (problem.code, problem.fault.value, problem.retryable) == ("digest-mismatch", "submitter", False)
    assert (problem.declared, problem.computed) == (wrong["checksum"], served.checksum)
    assert problem.to_do
    (kept,) = api.call("registrations.list_registrations", name=submission["name"]).items
    assert kept.problem.code == "digest-mismatch"


def test_it_reads_a_list_to_its_end(api: Generated, artifact: Artifact) -> None:
    submission, _ = artifact()
    for number in range(3):
        body = api.model("RegisterPluginSubmission", submission | {"version": f"1.0.{number}"})
        api.call("plugins.register_plugin", body=body)
    found, cursor = [], None
    while True:
        more: dict[str, str] = {} if cursor is None else {"cursor": cursor}
        page = api.call("plugins.list_plugins", name=submission["name"], limit=2, **more)
        found += [each.version for each in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == ["1.0.2", "1.0.1", "1.0.0"]


def test_it_reads_the_feed(api: Generated, artifact: Artifact) -> None:
    before = api.call("events.list_events", limit=1).newest
    submission, _ = artifact()
    api.call("plugins.register_plugin", body=api.model("RegisterPluginSubmission", submission))
    after, told = before, list[Any]()
    while not any(each.data.name == submission["name"] for each in told):
        page = api.call("events.list_events", after=after)
        told += page.items
        after = page.next_after
    assert [each.seq for each in told] == list(range(before + 1, after + 1))
    assert told[-1].type_.value.startswith("registration.")
