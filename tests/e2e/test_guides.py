"""What stands in the guides is executed, block after block, as a reader would."""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.origin import Served
from tests.running import PATIENCE_S, PROJECT, Registry, clean_environment

Artifact = Callable[..., tuple[dict[str, str], Served]]


def blocks(document: str, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```$", (PROJECT / "docs" / document).read_text(), re.MULTILINE | re.DOTALL
    )


def shell(script: str, env: dict[str, str], folder: Path) -> str:
    """Return what *script* printed, in a shell that ends at the first command that fails."""
    environment = clean_environment(env)
    environment["PATH"] = f"{PROJECT / '.venv/bin'}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.program("curl")
def test_an_agent_submits_waits_and_follows_with_curl(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    submission, _ = artifact()
    env = {"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": registry.token}
    env |= {"ARTIFACT_URL": submission["artifactUrl"], "CHECKSUM": submission["checksum"]}
    env |= {"HOOK_URL": "https://hooks.example.com/registry"}
    told = shell("\n".join(blocks("agents.md", "sh")), env, tmp_path)
    assert re.search(r"^registered plugin-[0-9a-f-]{36} None$", told, re.MULTILINE)
    assert "event: outcome" in told
    assert "registration.registered" in told
    for each in registry.get("/api/v1/webhooks").json()["items"]:
        if each["label"] == "my agent":
            registry.request("POST", f"/api/v1/webhooks/{each['id']}/remove")


def test_an_agent_in_python_does_what_is_shown(
    registry: Registry, artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    submission, _ = artifact()
    monkeypatch.setenv("REGISTRY_URL", registry.address)
    monkeypatch.setenv("REGISTRY_TOKEN", registry.token)
    known: dict[str, Any] = {"artifact_url": submission["artifactUrl"], "checksum": submission["checksum"]}
    parts = blocks("agents.md", "python")
    assert len(parts) == 4
    for part in parts:
        exec(part, known)
    told = capsys.readouterr().out
    assert "listed as plugin-" in told
    assert submission["checksum"] in told
    assert "1.0.0 1.0.1 1.0.2" in told
