"""The embedded registry starts, survives, stops and refuses as it should."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import a_submission, open_loopback
from tests.origin import Origin, Served
from tests.running import COMMAND, PATIENCE_S, Registry, clean_environment, one_sentence, run, running_registry, until


@pytest.fixture(scope="module")
def mortal(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry whose children tests may kill, on a state folder too deep for a socket."""
    state = tmp_path_factory.mktemp("mortal") / ("d" * 120) / "state"
    with running_registry(state, env=open_loopback(origin.port)) as registry:
        yield registry


class Life:
    """One state folder, and the registry that was started on it last: each test goes on from where the one before
    it left off."""

    def __init__(self, state: Path, origin: Origin) -> None:
        self.state = state
        self.origin = origin
        self.token = ""
        self.plugin: dict[str, Any] = {}
        self.accepted = ""
        self.registry: Registry | None = None
        self._running = ExitStack()

    def start(self, **env: str) -> Registry:
        self._running.close()
        settings = {**open_loopback(self.origin.port), **env}
        self.registry = self._running.enter_context(running_registry(self.state, env=settings))
        return self.registry

    def make_up(self) -> Registry:
        """Return the registry, having done what a test that was left out would have: it may run alone."""
        if self.registry is None:
            self.token = self.start().token
        assert self.registry is not None
        if not self.plugin and self.registry.process.poll() is None:
            self.plugin = self.registry.register(self.submission()).json()
            answer = self.registry.register(self.submission(), prefer="respond-async")
            self.accepted = self.accepted or answer.json()["id"]
        return self.registry

    def close(self) -> None:
        self._running.close()

    def submission(self, **changes: str) -> dict[str, str]:
        served = Served(body=os.urandom(100))
        return a_submission(**{"artifactUrl": self.origin.serve(served), "checksum": served.checksum, **changes})


@pytest.fixture(scope="module")
def life(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    life = Life(tmp_path_factory.mktemp("life") / "state", origin)
    yield life
    life.close()


def test_a_folder_may_be_migrated_before_its_first_start_and_has_no_tokens_before_that(life: Life) -> None:
    done = run("token", "create", "--scope", "read", "--state", str(life.state))
    assert done.returncode == 1
    assert "no store" in one_sentence(done.stderr)
    assert not life.state.exists()
    assert run("migrate", env={"REGISTRY_STATE_DIR": str(life.state)}).returncode == 0
    up = life.start(HTTP_PROXY="http://127.0.0.1:9", http_proxy="http://127.0.0.1:9")
    assert "holds other files" not in up.output.read_text()
    life.token = up.token


def test_ctrl_c_ends_every_child_and_no_query_userinfo_or_token_has_reached_a_log(life: Life) -> None:
    first = life.make_up()
    submission = life.submission()
    signed = submission | {"artifactUrl": f"{submission['artifactUrl']}?signature=hunter2"}
    answer = first.register(signed)
    assert answer.status_code == 200
    life.plugin = answer.json()
    first.register(a_submission(artifactUrl=signed["artifactUrl"], checksum="sha256:" + "0" * 64))
    first.register(a_submission(artifactUrl="https://me:hunter2@example.com/"))
    first.get("/api/v1/plugins?token=hunter2")
    life.token = token = first.token
    children = psutil.Process(first.process.pid).children(recursive=True)
    assert len(children) == 5, "valkey, beat, an api, a worker, and who looks at strangers' bytes for it"
    first.process.send_signal(signal.SIGINT)
    assert first.process.wait(PATIENCE_S) == 0
    assert not any(each.is_running() for each in children)
    written = first.output.read_text() + "".join(
        each.read_text(errors="replace") for each in (life.state / "logs").iterdir()
    )
    assert '"event": "settled"' in written
    assert "hunter2" not in written
    assert token not in written
    broker_files = b"".join(
        path.read_bytes() for path in (life.state / "valkey").rglob("*") if path.is_file() and path.stat().st_size
    )
    assert b"http://" not in broker_files, "no URL is ever in the broker (invariant 9)"


def test_the_next_start_finds_the_same_plugins_and_ends_strays_that_the_kernel_did_not(life: Life) -> None:
    sleep = ["sleep", "600"]
    life.make_up()
    life.close()
    with subprocess.Popen(sleep) as stray, subprocess.Popen(sleep) as bystander:
        noted = {
            "worker-1": {"pid": stray.pid, "started": psutil.Process(stray.pid).create_time()},
            "worker-2": {"pid": bystander.pid, "started": psutil.Process(bystander.pid).create_time() - 5},
        }
        (life.state / "children.json").write_text(json.dumps(noted))
        second = life.start()
        assert stray.poll() == -signal.SIGKILL
        assert bystander.poll() is None, "a later process of the same number is not ours"
        bystander.kill()
    assert second.token == life.token
    assert second.get(f"/api/v1/plugins/{life.plugin['id']}").json() == life.plugin


def test_a_crash_leaves_nobody_behind_and_its_address_is_not_trusted_with_the_token(life: Life) -> None:
    second = life.make_up()
    second.suspend("worker-1")
    children = psutil.Process(second.process.pid).children(recursive=True)
    life.accepted = second.register(life.submission(), prefer="respond-async").json()["id"]
    second.process.kill()
    second.process.wait()
    until(lambda: not any(each.is_running() for each in children), what="the end of every child")
    assert (life.state / "address").exists()
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        somebody_else.settimeout(0.5)
        (life.state / "address").write_text(f"http://127.0.0.1:{somebody_else.getsockname()[1]}\n")
        assert run("list", env={"REGISTRY_STATE_DIR": str(life.state)}).returncode == 4
        with pytest.raises(TimeoutError):
            somebody_else.accept()


def test_the_start_after_a_crash_goes_on_with_what_was_accepted(life: Life) -> None:
    life.make_up()
    third = life.start()
    assert third.final(life.accepted)["status"] == "registered"
    assert third.token == life.token
    third.stop()


def test_a_token_of_a_store_that_is_gone_is_made_anew_and_a_stderr_that_nobody_reads_ends_nothing(life: Life) -> None:
    life.make_up()
    life.close()
    for file in life.state.glob("registry.db*"):
        file.unlink()
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "up", "--port", "0", "--state", str(life.state)],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=writer,
        text=True,
    )
    try:
        os.close(writer)
        os.close(reader)  # nobody will ever read what it says
        until((life.state / "address").exists, what="the address")
        registry = Registry(process, (life.state / "address").read_text().strip(), life.state, life.state)
        assert registry.token != life.token
        before = registry.child("worker.clock")
        before.kill()
        until(lambda: registry.child("worker.clock").pid != before.pid, what="a new beat")
        assert registry.get("/readyz").status_code == 200
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


@pytest.mark.parametrize("name", ["worker-1", "api.main", "worker.clock"])
def test_a_child_that_dies_is_started_again_and_that_is_said(origin: Origin, mortal: Registry, name: str) -> None:
    served = Served(body=b"z" * 100)
    submission = a_submission(artifactUrl=origin.serve(served), checksum=served.checksum)
    said = len(_deaths(mortal))
    before = mortal.child(name)
    before.kill()
    until(lambda: mortal.child(name).pid != before.pid, what="a new child")
    accepted = mortal.register(submission, prefer="respond-async").json()
    assert mortal.final(accepted["id"])["status"] == "registered"
    until(lambda: len(_deaths(mortal)) > said, what="a word about it")


def _deaths(registry: Registry) -> list[str]:
    return re.findall(r"SIGKILL.*child ended, it is started again", registry.output.read_text())


def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run("up", "--port", str(taken.getsockname()[1]), "--state", str(tmp_path / "state"))
    assert done.returncode == 1
    assert "Address already in use" in one_sentence(done.stderr)


def test_a_second_registry_on_one_state_is_refused_and_told_where_the_first_is(mortal: Registry) -> None:
    done = run("up", "--port", "0", "--state", str(mortal.state))
    assert done.returncode == 1
    assert mortal.address in one_sentence(done.stderr)
    assert (mortal.state / "address").read_text().strip() == mortal.address
    assert mortal.get("/readyz").status_code == 200


def test_a_folder_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    done = run("up", "--port", "0", "--state", str(tmp_path))
    assert done.returncode == 1
    assert "holds other files" in one_sentence(done.stderr)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "state", Path("/proc/state")):
        done = run("up", "--port", "0", "--state", str(path))
        assert done.returncode == 1
        assert "cannot be used" in one_sentence(done.stderr)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("REGISTRY_LEASE_S", "soon"),
        ("REGISTRY_EGRESS_PORTS", "443,x"),
        ("REGISTRY_EGRESS_ALLOW_NETWORKS", "10.0.0.0/33"),
        ("REGISTRY_EGRESS_SCHEMES", "gopher"),
        ("REGISTRY_MAX_ATTEMPTS", "0"),
        ("REGISTRY_DATABASE_URL", "mysql://host/db"),
    ],
)
def test_a_bad_setting_is_named(tmp_path: Path, variable: str, value: str) -> None:
    done = run("up", "--port", "0", "--state", str(tmp_path / "state"), env={variable: value})
    assert done.returncode in {1, 2}
    assert variable in one_sentence(done.stderr)


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert run("migrate", env={"REGISTRY_STATE_DIR": str(state)}).returncode == 0
    with sqlite3.connect(state / "registry.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999', oldest_code = '9999'")
    connection.close()
    done = run("up", "--port", "0", "--state", str(state))
    assert done.returncode == 1
    assert "newer plugin-registry" in one_sentence(done.stderr)


def test_a_deep_state_folder_works_too_and_secrets_in_it_are_for_its_owner(mortal: Registry) -> None:
    assert mortal.child("valkey-server")
    assert (mortal.state / "token").stat().st_mode & 0o077 == 0
    assert mortal.state.stat().st_mode & 0o077 == 0
    broker = Path(mortal.child("worker-1").environ()["REGISTRY_BROKER_URL"].removeprefix("redis+socket://"))
    assert (broker.stat().st_mode | broker.parent.stat().st_mode) & 0o077 == 0


def test_the_demo_ends_well_whatever_the_environment_says(tmp_path: Path) -> None:
    env = {"REGISTRY_DATABASE_URL": "mysql://nowhere/", "REGISTRY_MAX_ARTIFACT_BYTES": "1", "TMPDIR": str(tmp_path)}
    done = run("demo", env=env, timeout_s=4 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered nginx-log-collector 2.1.0" in done.stdout
    assert "digest-mismatch" in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
