"""The GitHub action and the GitLab component: valid, without injections, their steps executed against a registry."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from ruamel.yaml import YAML

from tests.conftest import a_submission
from tests.integration.test_light_client import answer, answering
from tests.origin import Served
from tests.running import PATIENCE_S, PROJECT, Registry, clean_environment, run
from tests.wheels import built

Artifact = Callable[..., tuple[dict[str, str], Served]]
ACTION = PROJECT / "deploy/github-action/action.yml"
COMPONENT = PROJECT / "deploy/gitlab/register.yml"


def action() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(ACTION.read_text())
    return found


class Job:
    """A job of either platform, in a folder of its own, whose pip has no index and installs no dependency."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self.folder = folder
        self.output, self.summary = folder / "output", folder / "summary"
        (site,) = {each for each in sys.path if each.endswith("site-packages")}
        self.env = clean_environment(
            {
                "PIP_NO_INDEX": "1",
                "PIP_NO_DEPS": "1",
                "PYTHONPATH": site,  # where what the client needs is
                "RUNNER_TEMP": str(folder),
                "GITHUB_OUTPUT": str(self.output),
                "GITHUB_STEP_SUMMARY": str(self.summary),
                "PLUGIN_REGISTRY_CLIENT": str(wheel),
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            }
        )

    def step(self, script: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a step as a runner does: `bash -eo pipefail`."""
        return subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def act(self, **inputs: str) -> subprocess.CompletedProcess[str]:
        """Run the steps of the action with *inputs*, the others as they are by default; return the last."""
        declared = action()
        assert set(inputs) <= set(declared["inputs"])
        given = {name: str(each.get("default", "")) for name, each in declared["inputs"].items()} | inputs
        given["client"] = self.env["PLUGIN_REGISTRY_CLIENT"]
        for step in declared["runs"]["steps"]:
            env = {
                key: re.sub(r"\${{ inputs\.([\w-]+) }}", lambda found: given[found[1]], str(value))
                for key, value in step["env"].items()
            }
            done = self.step(step["run"], GITHUB_ACTIONS="true", **env)
        return done

    @property
    def outputs(self) -> dict[str, str]:
        return dict(line.split("=", 1) for line in self.output.read_text().splitlines())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(PROJECT / "client", tmp_path_factory.mktemp("wheel"))


@pytest.fixture
def job(tmp_path: Path, wheel: Path) -> Job:
    return Job(tmp_path, wheel)


@pytest.mark.parametrize(("schema", "file"), [("vendor.github-actions", ACTION), ("vendor.gitlab-ci", COMPONENT)])
def test_each_is_what_its_platform_takes(schema: str, file: Path, tmp_path: Path) -> None:
    documents = file.read_text().split("\n---\n")
    (tmp_path / "last.yml").write_text(documents[-1])  # a component's spec stands before it
    command = [str(PROJECT / ".venv/bin/check-jsonschema"), "--builtin-schema", schema, str(tmp_path / "last.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout


def test_no_input_is_written_into_a_script() -> None:
    done = subprocess.run(
        [PROJECT / ".venv/bin/zizmor", "--offline", "--persona", "pedantic", ACTION],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for step in action()["runs"]["steps"]:
        assert "${{" not in step["run"]
    script = COMPONENT.read_text().split("\n---\n")[1].partition("script:")[2].partition("artifacts:")[0]
    assert "$[[" not in script


def test_a_plugin_is_registered_and_later_steps_are_told(job: Job, registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact()
    (job.folder / "artifact").write_bytes(served.body)
    done = job.act(
        **{"registry-url": registry.address, "token": registry.token, "name": submission["name"], "type": "log"},
        version="1.0.0",
        url=submission["artifactUrl"],
        file="artifact",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert job.outputs["outcome"] == "registered"
    assert job.outputs["plugin-id"].startswith("plugin-")
    assert job.outputs["registration-id"].startswith("registration-")
    assert job.outputs["checksum"] == submission["checksum"]
    assert set(job.outputs) == set(action()["outputs"])
    assert f"| {submission['name']} 1.0.0 | registered | {job.outputs['plugin-id']} |" in job.summary.read_text()
    assert registry.token not in done.stdout + done.stderr + job.summary.read_text()


def test_what_failed_is_annotated_where_it_is_declared(job: Job, registry: Registry, artifact: Artifact) -> None:
    good, missing = artifact()[0], artifact(status=404)[0]
    lines = [json.dumps(good), json.dumps(missing), json.dumps(a_submission(version="v1"))]
    (job.folder / "plugins.jsonl").write_text("\n".join(lines))
    done = job.act(**{"registry-url": registry.address, "token": registry.token, "from": "plugins.jsonl"})
    assert done.returncode == 3
    annotated = [line for line in done.stderr.splitlines() if line.startswith("::error")]
    assert [each.partition("::")[2].partition("::")[0] for each in annotated] == [
        f"error file={job.folder / 'plugins.jsonl'},line={line}" for line in (2, 3)
    ]
    assert f"{missing['name']} 1.0.0: The artifact is not there (artifact-missing).%0A" in annotated[0]
    assert job.outputs["outcome"] == "failed (status-404)"
    assert commands_in(done.stderr) == ["error", "error"]
    assert done.stdout == "", "all in one stream, in its order"


def test_a_registry_that_is_away_and_a_bad_declaration_fail_the_job(job: Job, registry: Registry) -> None:
    (job.folder / "plugins.yaml").write_text("plugins:\n  - nam: x\n")
    away = {"registry-url": "http://127.0.0.1:9", "token": "prg_x"}
    bad = job.act(**away, **{"from": "plugins.yaml"})
    assert bad.returncode == 2
    assert "plugins.yaml:2: a plugin has no nam; do you mean name?" in bad.stderr
    assert f"::error file={job.folder / 'plugins.yaml'},line=2::a plugin has no nam" in bad.stderr
    assert job.outputs["outcome"] == "failed (refused)"
    assert "a plugin has no nam" in job.summary.read_text()
    (job.folder / "plugins.jsonl").write_text(json.dumps(a_submission()))
    gone = job.act(**away, **{"from": "plugins.jsonl", "timeout": "1"})
    assert gone.returncode == 7
    assert "nothing listens there" in gone.stderr
    nothing = job.act(**away)
    assert nothing.returncode == 2
    assert "Missing option '--name'" in nothing.stderr


def test_a_dry_run_changes_nothing(job: Job, registry: Registry, artifact: Artifact) -> None:
    (job.folder / "plugins.jsonl").write_text(json.dumps(artifact()[0]))
    inputs = {"registry-url": registry.address, "token": registry.token, "from": "plugins.jsonl"}
    assert job.act(**inputs, **{"dry-run": "true"}).returncode == 0
    assert job.outputs["outcome"] == "free to be registered"
    assert job.outputs["plugin-id"] == ""


def commands_in(text: str) -> list[str]:
    """Return the commands that a runner takes from *text*: `::name` where a line begins, `##[name` anywhere in it."""
    found, stopped = [], ""
    for line in text.splitlines():
        command = re.match(r"\s*::([\w-]+)(?: [^:]*)?::(.*)$", line) or re.search(r"##\[([\w-]+)[ \]](.*)", line)
        if command is None:
            continue
        if stopped:
            stopped = "" if command[1] == stopped else stopped
        elif command[1] == "stop-commands":
            stopped = command[2]
        else:
            found.append(command[1])
    return found


def test_what_others_wrote_is_no_command_no_markup_and_no_other_line(job: Job) -> None:
    hostile = "::set-output name=plugin-id::x\n##[set-output name=plugin-id]x|c<img src=x>`d`\r\n% \u2028"
    body = json.dumps({"status": 422, "code": "x", "title": hostile, "detail": hostile, "fault": "submitter"})
    (job.folder / "plugins.jsonl").write_text(json.dumps(a_submission()))
    with answering(answer(body.encode(), "422 Unprocessable")) as server:
        inputs = {"registry-url": f"http://127.0.0.1:{server.port}", "token": "prg_x", "from": "plugins.jsonl"}
        done = job.act(**inputs)
    assert done.returncode == 3
    assert "set-output" in done.stderr
    assert commands_in(done.stderr) == ["error"]
    assert commands_in(done.stdout) == []
    row = job.summary.read_text().splitlines()[-2]
    assert "<img" not in row
    assert row.count(" | ") == 3
    assert len(job.output.read_text().splitlines()) == 4
    (job.folder / "plugins.yaml").write_text("plugins:\n  - '##[set-output name=plugin-id]x': y\n")
    bad = job.act(**inputs | {"from": "plugins.yaml"})
    assert bad.returncode == 2
    assert commands_in(bad.stderr) == ["error"]


def test_several_files_are_named_one_a_line(job: Job, registry: Registry, artifact: Artifact) -> None:
    for name in ("a plugin.jsonl", "b.jsonl"):
        (job.folder / name).write_text(json.dumps(artifact()[0]))
    inputs = {"registry-url": registry.address, "token": registry.token, "from": "a plugin.jsonl\nb.jsonl\n"}
    done = job.act(**inputs)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("registered  plugin ") == 2
    beside = job.act(**inputs, name="x")
    assert beside.returncode == 2
    assert "--name does not go with --from" in beside.stderr
    job.act(**inputs)
    as_json = job.step(
        'exec "$RUNNER_TEMP/plugin-registry/bin/plugin-registry" ci --json --from b.jsonl',
        GITHUB_ACTIONS="true",
        REGISTRY_URL=registry.address,
        REGISTRY_TOKEN=registry.token,
    )
    assert json.loads(as_json.stdout)["outcomes"][0]["outcome"] == "registered"


def test_the_component_reports_to_the_merge_request(job: Job, registry: Registry, artifact: Artifact) -> None:
    good, missing = artifact()[0], artifact(status=404)[0]
    (job.folder / "plugins.yaml").write_text(json.dumps({"plugins": [good, missing]}))
    spec, body = (YAML(typ="safe").load(each) for each in COMPONENT.read_text().split("\n---\n"))
    inputs = {name: str(each.get("default", "")).lower() for name, each in spec["spec"]["inputs"].items()}
    inputs |= {"registry-url": registry.address, "client": job.env["PLUGIN_REGISTRY_CLIENT"]}
    (name,) = body
    variables = {
        key: re.sub(r"\$\[\[ inputs\.([\w-]+) \]\]", lambda found: inputs[found[1]], str(value))
        for key, value in body[name]["variables"].items()
    }
    assert registry.token not in json.dumps(variables)
    done = job.step("\n".join(body[name]["script"]), GITLAB_CI="true", REGISTRY_TOKEN=registry.token, **variables)
    assert done.returncode == 3, done.stdout + done.stderr
    reports = body[name]["artifacts"]["reports"]
    suite = ET.fromstring((job.folder / reports["junit"]).read_text())
    assert (suite.attrib["tests"], suite.attrib["failures"]) == ("2", "1")
    (failure,) = suite.findall("testcase/failure")
    assert "The artifact is not there" in failure.attrib["message"]
    told = dict(line.split("=", 1) for line in (job.folder / reports["dotenv"]).read_text().splitlines())
    assert told["PLUGIN_REGISTRY_PLUGIN_ID"].startswith("plugin-")
    assert told["PLUGIN_REGISTRY_OUTCOME"] == "failed (status-404)"
    assert "::" not in done.stdout


def test_a_report_that_cannot_be_written_is_told(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "plugins.jsonl").write_text(json.dumps(artifact()[0]))
    env = {"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": registry.token}
    done = run("ci", "--from", str(tmp_path / "plugins.jsonl"), "--junit", str(tmp_path), env=env)
    assert done.returncode == 2
    assert f"Cannot write {tmp_path}" in done.stderr
    assert "registered  " in done.stdout


def blocks(language: str) -> list[str]:
    guide = (PROJECT / "docs/ci.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```$", guide, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("schema", "language"), [("vendor.github-workflows", "yaml github"), ("vendor.gitlab-ci", "yaml gitlab")]
)
def test_what_the_guide_shows_is_what_each_platform_takes(schema: str, language: str, tmp_path: Path) -> None:
    (shown,) = blocks(language)
    (tmp_path / "shown.yml").write_text(shown)
    command = [str(PROJECT / ".venv/bin/check-jsonschema"), "--builtin-schema", schema, str(tmp_path / "shown.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout
    (used,) = re.findall(r"^ +(?:with|inputs): \{(.*)\}$", shown, re.MULTILINE)
    given = set(re.findall(r"([\w-]+): ", used))
    component, _ = (YAML(typ="safe").load(each) for each in COMPONENT.read_text().split("\n---\n"))
    known = action()["inputs"] if "github" in language else component["spec"]["inputs"]
    assert given <= set(known)


def test_what_the_guide_shows_for_any_shell_works(job: Job, registry: Registry, artifact: Artifact) -> None:
    (declared,) = blocks("yaml")
    (script,) = blocks("sh")
    submission, served = artifact()
    (job.folder / "dist").mkdir()
    (job.folder / "dist/nginx-logs-2.1.0.tar.gz").write_bytes(served.body)
    url = submission["artifactUrl"]
    (job.folder / "plugins.yaml").write_text(
        declared.replace("https://artifacts.example/nginx-logs-2.1.0.tar.gz", url).replace(
            "nginx-logs\n", "nginx from ci\n"
        )
    )
    env = {"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": registry.token}
    made = job.step(f"python3 -m venv .venv && . .venv/bin/activate\n{script}", **env)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "registered  nginx from ci 2.1.0" in made.stdout
    assert (job.folder / "plugin-registry.xml").exists()
