"""`register --from`, `status --watch`, `login` and `logout`, as a person and a CI job use them."""

import json
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
from plugin_registry_client import Client, Registration
from plugin_registry_client.command.declared import Declared
from plugin_registry_client.command.many import entries_of, register_all

from tests.conftest import a_submission, open_loopback
from tests.origin import Origin, Served
from tests.running import COMMAND, PATIENCE_S, Registry, clean_environment, run, running_registry, until

LOOKS = {"name": "x", "version": "1", "bytesDownloaded": 0, "artifactBytes": None}
Artifact = Callable[..., tuple[dict[str, str], Served]]


def declared(tmp_path: Path, *submissions: dict[str, str]) -> str:
    (tmp_path / "plugins.json").write_text(json.dumps({"plugins": submissions}))
    return str(tmp_path / "plugins.json")


def test_many_are_registered_at_once_and_again(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    file = declared(tmp_path, *(artifact()[0] for _ in range(40)))
    for _ in range(2):  # to run it again is safe
        done = registry.cli("register", "--from", file)
        assert (done.returncode, done.stdout.count("registered  plugin ")) == (0, 40), done.stderr
    assert registry.cli("register", "--from", file, "--quiet").stderr == ""


def test_one_that_fails_ends_none_of_the_others(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    good, missing, bad = artifact()[0], artifact(status=404)[0], a_submission(version="v1")
    busy = artifact(status=503)[0]
    file = declared(tmp_path, good, missing, bad, busy)
    done = registry.cli("register", "--from", file, "--json")
    assert done.returncode == 3, "that of the first that failed"
    outcomes = json.loads(done.stdout)["outcomes"]
    assert [each["outcome"] for each in outcomes] == ["registered", "failed", "failed", "failed"]
    assert outcomes[0]["plugin"]["checksum"] == good["checksum"]
    assert [each["exitStatus"] for each in outcomes[1:]] == [3, 2, 10]
    assert outcomes[1]["problem"]["code"] == "artifact-missing"
    assert {(each["file"], each["line"]) for each in outcomes} == {(file, 1)}
    told = registry.cli("register", "--from", file, "--quiet")
    assert f"{file}:1: {missing['name']} 1.0.0: The artifact is not there (artifact-missing)." in told.stderr
    assert "version: is not a SemVer" in told.stderr


def test_a_dry_run_of_many_changes_nothing(registry: Registry, artifact: Artifact, tmp_path: Path) -> None:
    file = declared(tmp_path, artifact()[0], a_submission(artifactUrl="https://10.0.0.1/x"))
    done = registry.cli("register", "--from", file, "--dry-run", "--json")
    assert done.returncode == 3
    assert [each["outcome"] for each in json.loads(done.stdout)["outcomes"]] == ["dry-run", "failed"]
    assert registry.cli("list", "--name", json.loads(done.stdout)["outcomes"][0]["name"]).stdout == ""


def test_what_has_not_ended_in_time_is_told(
    registry: Registry, artifact: Artifact, gate: threading.Event, tmp_path: Path
) -> None:
    file = declared(tmp_path, artifact(gate=gate)[0], artifact()[0])
    done = registry.cli("register", "--from", file, "--timeout", "2")
    assert done.returncode == 5
    assert "failed (still-running)" in done.stdout
    assert "registered  " in done.stdout
    assert "is accepted as registration-" in done.stderr, "sentences, where there is no terminal"


def test_a_registry_that_is_away_is_waited_for_until_the_time_is_over(artifact: Artifact, tmp_path: Path) -> None:
    file = declared(tmp_path, artifact()[0])
    done = run(
        *("register", "--from", file, "--timeout", "1"),
        env={"REGISTRY_URL": "http://127.0.0.1:9", "REGISTRY_TOKEN": "prg_x"},
    )
    assert done.returncode == 7
    assert "failed (unreachable)" in done.stdout


def test_a_quota_that_is_used_up_is_waited_for(origin: Origin, artifact: Artifact, tmp_path: Path) -> None:
    env = {**open_loopback(origin.port), "REGISTRY_IN_FLIGHT_PER_TOKEN": "2"}
    with running_registry(tmp_path / "state", env=env) as small:
        done = small.cli("register", "--from", declared(tmp_path, *(artifact()[0] for _ in range(7))))
    assert (done.returncode, done.stdout.count("registered  plugin ")) == (0, 7), done.stderr


def test_what_ended_for_good_is_not_asked_for_again_and_again() -> None:
    """An end that is the registry's fault is an end: it is no registry that is away."""
    problem = {"status": 502, "code": "attempts-used-up", "fault": "registry", "detail": "x", "title": "x"}
    ended = Registration({"id": "registration-1", "status": "failed", "attempts": 5, "problem": problem} | LOOKS)
    asked: list[str] = []

    class Ended:
        url = "http://registry.example"
        outcome_of = Client.outcome_of

        def submit(self, _document: object) -> Registration:
            asked.append("submit")
            return ended

    (entry,) = entries = entries_of([Declared(a_submission(), Path("x"), 1)], quiet=True)
    register_all(cast("Client", Ended()), entries, timeout_s=60, dry_run=False, quiet=True)
    assert asked == ["submit"]
    assert entry.word == "failed (attempts-used-up)"


def test_when_the_time_is_over_nobody_is_asked_any_more() -> None:
    class Slow:
        asked = 0

        def submit(self, _document: object) -> Registration:
            self.asked += 1
            time.sleep(0.05)
            return Registration({"id": "registration-1", "status": "queued", "attempts": 0, "problem": None} | LOOKS)

    slow = Slow()
    entries = entries_of([Declared(a_submission(), Path("x"), 1) for _ in range(200)], quiet=True)
    register_all(cast("Client", slow), entries, timeout_s=0.2, dry_run=False, quiet=True)
    assert slow.asked <= 8
    assert {type(each.error).__name__ for each in entries} == {"StillRunning", "NotSubmitted"}


def test_what_does_not_go_together_is_refused(tmp_path: Path, registry: Registry) -> None:
    file = declared(tmp_path, a_submission())
    assert "--name does not go with --from" in registry.cli("register", "--from", file, "--name", "x").stderr
    assert "--no-wait does not go with --from" in registry.cli("register", "--from", file, "--no-wait").stderr
    (tmp_path / "plugins.json").write_text('{"plugins": [{"nam": 1}]}')
    done = registry.cli("register", "--from", file)
    assert done.returncode == 2
    assert f"{file}:1: a plugin has no nam; do you mean name?" in done.stderr
    assert json.loads(registry.cli("register", "--from", file, "--json").stdout)["exitStatus"] == 2


def test_the_schema_of_such_files_is_printed() -> None:
    assert json.loads(run("register", "--schema").stdout)["required"] == ["plugins"]


def test_a_status_is_watched_to_its_end(registry: Registry, artifact: Artifact, gate: threading.Event) -> None:
    submission, served = artifact(gate=gate)
    submitted = registry.register(submission, prefer="respond-async").json()["id"]
    env = clean_environment({"REGISTRY_URL": registry.address, "REGISTRY_TOKEN": registry.token})
    watching = subprocess.Popen(
        [*COMMAND, "status", submitted, "--watch", "--json"], env=env, stdout=subprocess.PIPE, text=True
    )
    until(lambda: served.requests, what="the download")
    gate.set()
    out, _ = watching.communicate(timeout=PATIENCE_S)
    news = [json.loads(line) for line in out.splitlines()]
    assert watching.returncode == 0
    assert [each["id"] for each in news] == [submitted] * len(news)
    assert news[-1]["status"] == "registered"
    shown = registry.cli("status", submitted, "--watch")
    assert f"{submission['name']} 1.0.0 is registered" in shown.stdout


# --- login ---------------------------------------------------------------------------------------


def typed(token: str, *words: str, home: Path) -> subprocess.CompletedProcess[str]:
    env = clean_environment({"HOME": str(home), "REGISTRY_STATE_DIR": str(home / "none")})
    return subprocess.run(
        [*COMMAND, *words], env=env, input=token, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )


def test_who_has_logged_in_needs_no_environment(registry: Registry, tmp_path: Path) -> None:
    done = typed(f" {registry.token}\n", "login", registry.address, "--name", "here", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert registry.token[4:16] in done.stdout
    assert registry.token not in done.stdout + done.stderr
    assert "admin, operate, read, register" in done.stdout
    for words in (("list",), ("--registry", "here", "list"), ("queue", "--json")):
        assert typed("", *words, home=tmp_path).returncode in {0, 8}
    assert typed("", "--registry", "there", "list", home=tmp_path).returncode == 2
    again = typed(registry.token, "login", registry.address, "--name", "there", "--default", "--json", home=tmp_path)
    assert json.loads(again.stdout)["default"] is True
    assert typed("", "--registry", "here", "token", "list", home=tmp_path).returncode == 0, "it is that registry's"
    assert typed("", "logout", home=tmp_path).stdout.startswith("there is forgotten")
    assert typed("", "logout", "here", "--json", home=tmp_path).returncode == 0
    assert typed("", "list", home=tmp_path).returncode == 4


@pytest.mark.parametrize(
    ("token", "words", "status"),
    [
        ("prg_no", ("login", "{url}"), 4),
        ("", ("login", "{url}"), 4),
        ("prg_\u65e5", ("login", "{url}"), 4),
        ("prg_x", ("login", "registry.example"), 2),
        ("prg_x", ("login", "http://127.0.0.1:9"), 7),
        ("prg_x", ("login", "{url}", "--name", "a b"), 2),
        ("", ("logout",), 2),
        ("", ("logout", "nobody"), 2),
    ],
)
def test_what_cannot_be_used_is_not_kept(
    registry: Registry, tmp_path: Path, token: str, words: tuple[str, ...], status: int
) -> None:
    done = typed(token, *(each.format(url=registry.address) for each in words), home=tmp_path)
    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert not (tmp_path / ".config").exists()
