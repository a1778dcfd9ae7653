"""The command line as a person and a CI job use it, against the running registry."""

import json
import re
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import requests

from tests.conftest import a_submission
from tests.origin import Served
from tests.running import COMMAND, PATIENCE_S, Registry, clean_environment, run, until

Artifact = Callable[..., tuple[dict[str, str], Served]]


def options(submission: dict[str, str]) -> list[str]:
    names = {"name": "--name", "version": "--version", "pluginType": "--type", "artifactUrl": "--url"}
    names |= {"checksum": "--checksum"}
    return [word for key, option in names.items() for word in (option, submission[key])]


def test_registering_prints_the_record_and_ends_with_0(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    done = registry.cli("register", *options(submission))
    assert done.returncode == 0
    assert submission["checksum"] in done.stdout
    assert "Registered" in done.stdout
    said = done.stderr.splitlines()
    assert said[0].startswith(f"{submission['name']} 1.0.0 is accepted as registration-"), "no bar, but sentences"
    assert said[-1] == f"{submission['name']} 1.0.0 is registered."
    assert len(said) <= 3
    listed = registry.cli("list", "--name", submission["name"])
    assert submission["checksum"] in listed.stdout


def test_json_is_alone_on_stdout(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    submission, served = artifact()
    copy = tmp_path / "artifact"
    copy.write_bytes(served.body)
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    words = [*options(submission)[:-2], "--file", str(copy), "--config-schema", f"@{schema}", "--runtime", "go"]
    done = registry.cli("register", *words, "--json")
    assert done.returncode == 0
    plugin = json.loads(done.stdout)
    assert (plugin["checksum"], plugin["configSchema"]) == (served.checksum, '{"type": "object"}')
    assert json.loads(registry.cli("list", "--name", submission["name"], "--json").stdout)["items"] == [plugin]


def test_usage_ends_with_2(registry: Registry) -> None:
    submission = a_submission()
    assert registry.cli("register").returncode == 2
    assert registry.cli("register", *options(submission), "--file", __file__).returncode == 2
    done = registry.cli("register", *options(submission | {"checksum": "sha256:abc"}))
    assert done.returncode == 2
    assert "checksum: has 3 hex digits" in done.stderr
    assert registry.cli("nonsense").returncode == 2


def test_a_refusal_ends_with_3_and_says_why(registry: Registry, artifact: Artifact) -> None:
    submission, served = artifact()
    done = registry.cli("register", *options(submission | {"checksum": "sha256:" + "0" * 64}))
    assert done.returncode == 3
    assert done.stdout == ""
    assert served.checksum in done.stderr
    assert "Traceback" not in done.stderr
    inward = registry.cli("register", *options(a_submission(artifactUrl="https://10.1.2.3/a")), "--json")
    assert inward.returncode == 3
    assert json.loads(inward.stdout)["code"] == "forbidden-address"


def test_a_bad_token_ends_with_4(registry: Registry) -> None:
    assert registry.cli("register", *options(a_submission()), token="prg_no").returncode == 4
    assert registry.cli("list", REGISTRY_TOKEN="x").returncode == 4


def test_what_is_still_running_ends_with_5_and_its_id(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _ = artifact(gate=gate)
    done = registry.cli("register", *options(submission), "--timeout", "0.5")
    assert done.returncode == 5
    assert "registration-" in done.stderr
    left = registry.cli("register", *options(submission), "--no-wait")
    assert left.returncode == 0
    assert left.stdout.strip() in done.stderr
    until(lambda: "verifying" in registry.cli("status", left.stdout.strip()).stdout, what="the download")
    as_json = json.loads(registry.cli("status", left.stdout.strip(), "--json").stdout)
    assert as_json["name"] == submission["name"]


def test_a_conflict_ends_with_6(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    other, _ = artifact()
    assert registry.cli("register", *options(submission)).returncode == 0
    done = registry.cli("register", *options(other | {"name": submission["name"]}))
    assert done.returncode == 6
    assert submission["checksum"] in done.stderr


def test_a_server_that_is_not_there_ends_with_7() -> None:
    env = {"REGISTRY_URL": "http://127.0.0.1:9", "REGISTRY_TOKEN": "prg_x"}
    done = run("list", env=env)
    assert done.returncode == 7
    assert len(done.stderr.splitlines()) == 1


def test_without_settings_the_local_registry_is_meant(registry: Registry) -> None:
    done = run("list", env={"REGISTRY_STATE_DIR": str(registry.state)})
    assert done.returncode == 0
    elsewhere = run("list", env={"REGISTRY_STATE_DIR": str(registry.state), "REGISTRY_URL": registry.address})
    assert elsewhere.returncode == 4, "the local token is for the local registry"


def test_tokens_are_listed_but_not_shown(registry: Registry) -> None:
    made = registry.cli("token", "create", "--state", str(registry.state), "--scope", "read", "--label", "for ci")
    token = made.stdout.strip()
    assert made.stdout == token + "\n"
    listed = registry.cli("token", "list", "--state", str(registry.state)).stdout
    assert "for ci" in listed
    assert token[4:16] in listed
    assert token[16:] not in listed
    assert registry.cli("token", "revoke", "nobody", "--state", str(registry.state)).returncode == 2


def test_a_token_is_made_for_the_registry_that_is_meant(registry: Registry) -> None:
    env = {"REGISTRY_STATE_DIR": str(registry.state)}
    elsewhere = env | {"REGISTRY_URL": "http://127.0.0.1:9"}
    done = run("token", "create", "--scope", "read", env=elsewhere)
    assert (done.returncode, done.stdout) == (4, ""), "the local token is for the local registry"
    done = run("token", "create", "--scope", "read", env=elsewhere | {"REGISTRY_TOKEN": "prg_x"})
    assert (done.returncode, done.stdout) == (7, "")
    assert "No registry answers at http://127.0.0.1:9" in done.stderr
    made = run("token", "create", "--scope", "read", env=env)
    assert str(registry.state) in made.stderr
    assert registry.get("/api/v1/plugins", token=made.stdout.strip()).status_code == 200


def test_an_empty_or_strange_pattern_makes_no_token(registry: Registry) -> None:
    for pattern in ("", "[a.z]*", "a\nb"):
        made = registry.cli(
            "token", "create", "--state", str(registry.state), "--scope", "register", "--names", pattern
        )
        assert made.returncode == 2
        assert made.stdout == ""


def test_a_label_in_which_something_is_hidden_makes_no_token(registry: Registry) -> None:
    words = ["token", "create", "--state", str(registry.state), "--scope", "read", "--label", "ci\u202e"]
    made = registry.cli(*words)
    assert (made.returncode, made.stdout) == (2, "")
    assert "U+202E (RIGHT-TO-LEFT OVERRIDE)" in made.stderr


def test_a_registry_that_is_away_for_a_moment_is_waited_for(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, served = artifact(gate=gate)

    def restart_the_api_meanwhile() -> None:
        until(lambda: served.requests, what="the download")
        registry.child("api.main").kill()
        gate.set()

    threading.Thread(target=restart_the_api_meanwhile, daemon=True).start()
    done = registry.cli("register", *options(submission))
    assert done.returncode == 0, done.stderr


def test_an_id_is_never_a_path_and_a_strange_token_is_told(registry: Registry) -> None:
    done = registry.cli("status", "../../../healthz")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    strange = registry.cli("list", token="prg_\u65e5\u672c")
    assert strange.returncode == 4
    assert "Traceback" not in strange.stderr


def test_a_refusal_names_the_page_that_explains_it(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact(body=b"<html>log in</html>")
    done = registry.cli("register", *options(submission | {"checksum": "sha256:" + "1" * 64}))
    (address,) = [line.split()[1] for line in done.stderr.splitlines() if line.startswith("  more: ")]
    assert address.endswith("/problems/html-page")
    page = requests.get(address, timeout=20)
    assert page.status_code == 200
    assert "use the URL of the file itself" in page.text.lower() or "Use the URL of the file itself" in page.text
    assert "Use the URL of the file itself" in done.stderr


def test_a_warning_ends_nothing(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    submission, served = artifact()
    copy = tmp_path / "copy"
    copy.write_bytes(served.body + b"x")
    done = registry.cli("register", *options(submission)[:-2], "--file", str(copy), "--check-url")
    assert done.returncode == 3
    assert "they will not match" in done.stderr


def test_what_is_in_order_gives_no_warning(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    submission, served = artifact()
    copy = tmp_path / "copy"
    copy.write_bytes(served.body)
    done = registry.cli("register", "--quiet", *options(submission)[:-2], "--file", str(copy), "--check-url")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_url_that_was_signed_anew_is_registered_already(registry: Registry, artifact: Artifact) -> None:
    submission, _ = artifact()
    assert registry.cli("register", *options(submission)).returncode == 0
    again = submission | {"artifactUrl": f"{submission['artifactUrl']}?X-Amz-Signature=2"}
    done = registry.cli("register", *options(again))
    assert done.returncode == 0
    assert submission["artifactUrl"] in done.stdout
    elsewhere, _ = artifact()
    other = registry.cli("register", *options(submission | {"artifactUrl": elsewhere["artifactUrl"]}))
    assert other.returncode == 6
    assert "from another URL" in other.stderr


def test_who_was_stopped_is_told_how_to_go_on_and_does(
    registry: Registry, artifact: Artifact, gate: threading.Event
) -> None:
    submission, _ = artifact(body=b"x" * 400_000, gate=gate)
    for number in (signal.SIGTERM, signal.SIGINT):
        command = [*COMMAND, "register", *options(submission)]
        env = clean_environment({"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": f" {registry.token}\n"})
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(number)
        _, rest = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 128 + number
        (registration_id,) = re.findall(r"registration-[0-9a-f-]{36}", first)
        assert f"`plugin-registry wait {registration_id}`" in rest
        assert "Traceback" not in rest
    gate.set()
    waited = registry.cli("wait", registration_id)
    assert waited.returncode == 0
    assert "Registered" in waited.stdout
    again = registry.cli("wait", "--json", registration_id)
    assert json.loads(again.stdout)["checksum"] == submission["checksum"]


def test_a_host_that_kept_failing_is_told_from_an_artifact_that_is_wrong(
    registry: Registry, artifact: Artifact
) -> None:
    failing = registry.cli("register", *options(artifact(status=503)[0]))
    assert failing.returncode == 10
    assert "failed (status-503)" in failing.stderr, "each attempt that failed is told"
    assert registry.cli("register", *options(artifact(status=404)[0])).returncode == 3


def test_a_dry_run_has_a_document_too(registry: Registry, artifact: Artifact) -> None:
    done = registry.cli("register", "--dry-run", "--json", *options(artifact()[0]))
    assert json.loads(done.stdout)["outcome"] == "dry-run"
