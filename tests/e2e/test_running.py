"""The embedded registry starts, survives, stops and refuses as it should."""

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.conftest import a_submission, open_loopback
from tests.origin import Origin, Served
from tests.running import COMMAND, PATIENCE_S, Registry, clean_environment, run, running_registry, until


@pytest.fixture(scope="module")
def mortal(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry whose children tests may kill, on a state folder too deep for a socket."""
    state = tmp_path_factory.mktemp("mortal") / ("d" * 120) / "state"
    with running_registry(state, env=open_loopback(origin.port)) as registry:
        yield registry


def one_sentence(output: str) -> str:
    assert "Traceback" not in output
    (line,) = [each for each in output.splitlines() if each.startswith("plugin-registry: ")]
    return line


def test_a_second_start_finds_the_same_plugins_and_ctrl_c_ends_every_child(origin: Origin, tmp_path: Path) -> None:
    state, env = tmp_path / "state", open_loopback(origin.port)
    served = Served(body=b"x" * 100)
    submission = a_submission(artifactUrl=origin.serve(served), checksum=served.checksum)
    with running_registry(state, env=env) as first:
        plugin = first.register(submission).json()
        children = psutil.Process(first.process.pid).children(recursive=True)
        assert len(children) == 4
        token = first.token
        first.process.send_signal(signal.SIGINT)
        assert first.process.wait(PATIENCE_S) == 0
        assert not any(each.is_running() for each in children)
    with running_registry(state, env=env) as second:
        assert second.token == token
        assert second.get(f"/api/v1/plugins/{plugin['id']}").json() == plugin


def test_a_crash_leaves_nobody_behind_and_the_next_start_goes_on(origin: Origin, tmp_path: Path) -> None:
    state, env = tmp_path / "state", open_loopback(origin.port)
    served = Served(body=b"y" * 100)
    submission = a_submission(artifactUrl=origin.serve(served), checksum=served.checksum)
    with running_registry(state, env=env) as first:
        first.child("worker-1").suspend()
        children = psutil.Process(first.process.pid).children(recursive=True)
        accepted = first.register(submission, prefer="respond-async").json()
        first.process.kill()
        first.process.wait()
        until(lambda: not any(each.is_running() for each in children), what="the end of every child")
    with running_registry(state, env=env) as second:
        assert second.final(accepted["id"])["status"] == "registered"


def test_strays_that_the_kernel_did_not_end_are_ended_by_the_next_start(tmp_path: Path) -> None:
    state = tmp_path / "state"
    sleep = ["sleep", "600"]
    with subprocess.Popen(sleep) as stray, subprocess.Popen(sleep) as bystander:
        with running_registry(state) as first:
            first.stop()
        noted = {
            "worker-1": {"pid": stray.pid, "started": psutil.Process(stray.pid).create_time()},
            "worker-2": {"pid": bystander.pid, "started": psutil.Process(bystander.pid).create_time() - 5},
        }
        (state / "children.json").write_text(json.dumps(noted))
        with running_registry(state):
            assert stray.poll() == -signal.SIGKILL
            assert bystander.poll() is None, "a later process of the same number is not ours"
        bystander.kill()


@pytest.mark.parametrize("name", ["worker-1", "api.main", "--schedule"])
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
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
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


def test_no_query_userinfo_or_token_reaches_a_log(origin: Origin, tmp_path: Path) -> None:
    served = Served(body=b"w" * 100)
    url = origin.serve(served) + "?signature=hunter2"
    with running_registry(tmp_path / "state", env=open_loopback(origin.port)) as registry:
        assert registry.register(a_submission(artifactUrl=url, checksum=served.checksum)).status_code == 200
        registry.register(a_submission(artifactUrl=url, checksum="sha256:" + "0" * 64))
        registry.register(a_submission(artifactUrl="https://me:hunter2@example.com/"))
        registry.get("/api/v1/plugins?token=hunter2")
        token = registry.token
        registry.stop()
        written = registry.output.read_text() + "".join(
            each.read_text(errors="replace") for each in (registry.state / "logs").iterdir()
        )
    assert '"event": "settled"' in written
    assert "hunter2" not in written
    assert token not in written
    broker_files = b"".join(
        path.read_bytes()
        for path in (tmp_path / "state" / "valkey").rglob("*")
        if path.is_file() and path.stat().st_size
    )
    assert b"http://" not in broker_files, "no URL is ever in the broker (invariant 9)"


def test_a_stderr_that_cannot_be_written_does_not_end_the_registry(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "up", "--port", "0", "--state", str(tmp_path / "state")],
        env=clean_environment(),
        stdout=subprocess.DEVNULL,
        stderr=writer,
        text=True,
    )
    try:
        os.close(writer)
        os.close(reader)  # nobody will ever read what it says
        until((tmp_path / "state" / "address").exists, what="the address")
        registry = Registry(
            process, (tmp_path / "state" / "address").read_text().strip(), tmp_path / "state", tmp_path
        )
        before = registry.child("--schedule")
        before.kill()
        until(lambda: registry.child("--schedule").pid != before.pid, what="a new beat")
        assert registry.get("/readyz").status_code == 200
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def test_an_address_that_a_crash_left_behind_is_not_trusted_with_the_token(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_registry(state) as registry:
        registry.process.kill()
        registry.process.wait()
    assert (state / "address").exists()
    with socket.create_server(("127.0.0.1", 0)) as somebody_else:
        somebody_else.settimeout(0.5)
        (state / "address").write_text(f"http://127.0.0.1:{somebody_else.getsockname()[1]}\n")
        assert run("list", env={"REGISTRY_STATE_DIR": str(state)}).returncode == 4
        with pytest.raises(TimeoutError):
            somebody_else.accept()


def test_a_folder_may_be_migrated_before_its_first_start_and_has_no_tokens_before_that(tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = run("token", "create", "--scope", "read", "--state", str(state))
    assert done.returncode == 1
    assert "no store" in one_sentence(done.stderr)
    assert not state.exists()
    assert run("migrate", env={"REGISTRY_STATE_DIR": str(state)}).returncode == 0
    with running_registry(state, env={"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}) as up:
        assert "holds other files" not in up.output.read_text()


def test_a_token_of_a_store_that_is_gone_is_made_anew(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with running_registry(state) as first:
        token = first.token
        first.stop()
    for file in state.glob("registry.db*"):
        file.unlink()
    with running_registry(state) as second:
        assert second.token != token
        assert second.get("/api/v1/plugins").status_code == 200


def test_the_demo_ends_well_whatever_the_environment_says(tmp_path: Path) -> None:
    env = {"REGISTRY_DATABASE_URL": "mysql://nowhere/", "REGISTRY_MAX_ARTIFACT_BYTES": "1", "TMPDIR": str(tmp_path)}
    done = run("demo", env=env, timeout_s=4 * PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Registered nginx-log-collector 2.1.0" in done.stdout
    assert "digest-mismatch" in done.stderr
    assert list(tmp_path.iterdir()) == [], "nothing is left behind"
