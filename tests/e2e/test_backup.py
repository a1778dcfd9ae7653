"""Backing up and restoring an embedded store, by the command, with what may go wrong on the way."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import a_submission
from tests.running import Registry, one_sentence, run, running_registry

POSTGRESQL = {"REGISTRY_DATABASE_URL": "postgresql://nobody@db.example/registry"}


def submit(registry: Registry, name: str) -> str:
    """Submit what no host serves; it is in the store, and so shows which store that is."""
    answer = registry.register(a_submission(name=name), prefer="respond-async")
    assert answer.status_code == 202, answer.text
    return name


def names(registry: Registry) -> set[str]:
    return {each["name"] for each in registry.get("/api/v1/registrations").json()["items"]}


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A stopped registry in which *later* stands, and a backup of before, made while it ran."""
    folder = tmp_path_factory.mktemp("backups")
    state, backup = folder / "state", folder / "backup.db"
    with running_registry(state) as registry:
        submit(registry, "before")
        done = run("backup", str(backup), "--state", str(state))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
        submit(registry, "later")
        done = run("restore", str(backup), "--state", str(state))
        assert "Another plugin-registry runs" in one_sentence(done.stderr)
        assert names(registry) == {"before", "later"}
    return state, backup


def test_after_a_clean_stop_the_store_is_one_file(backed_up: tuple[Path, Path]) -> None:
    state, _backup = backed_up
    assert [each.name for each in state.glob("registry.db*")] == ["registry.db"]


def test_a_backup_goes_into_the_place_of_the_store_which_is_kept(
    backed_up: tuple[Path, Path], tmp_path: Path
) -> None:
    state = shutil.copytree(backed_up[0], tmp_path / "state")
    done = run("restore", str(backed_up[1]), "--state", str(state))
    assert done.returncode == 0, done.stderr
    (kept,) = state.glob("registry.db.before-restore-*")
    assert str(kept) in done.stderr
    with running_registry(state) as registry:
        assert names(registry) == {"before"}
        assert registry.get("/readyz").status_code == 200
    with closing(sqlite3.connect(kept)) as before:
        assert before.execute("SELECT count(*) FROM registrations").fetchone() == (2,)


def test_a_backup_that_was_copied_over_a_store_that_crashed_is_not_mixed_with_it(
    backed_up: tuple[Path, Path], tmp_path: Path
) -> None:
    state, store = shutil.copytree(backed_up[0], tmp_path / "state"), tmp_path / "state" / "registry.db"
    with running_registry(state) as registry:
        submit(registry, "crashed")
        registry.process.kill()
        registry.process.wait()
    assert (state / "registry.db-wal").stat().st_size, "what was committed last is there alone"
    crashed = shutil.copytree(state, tmp_path / "crashed", ignore=shutil.ignore_patterns("*.sock"))
    store.write_bytes(backed_up[1].read_bytes())
    done = run("up", "--port", "0", "--state", str(state))
    assert done.returncode == 1
    assert "another was copied over it" in one_sentence(done.stderr)
    assert "plugin-registry restore FILE" in done.stderr
    assert run("restore", str(backed_up[1]), "--state", str(state)).returncode == 0
    with closing(sqlite3.connect(store)) as restored:
        assert restored.execute("SELECT name FROM registrations").fetchall() == [("before",)]
    with running_registry(crashed) as registry:
        assert names(registry) == {"before", "later", "crashed"}, "a crash alone loses nothing"


def test_what_is_no_store_or_a_broken_one_is_not_restored(backed_up: tuple[Path, Path], tmp_path: Path) -> None:
    state = shutil.copytree(backed_up[0], tmp_path / "state")
    before = (state / "registry.db").read_bytes()
    text, other, broken = tmp_path / "text", tmp_path / "other.db", tmp_path / "broken.db"
    text.write_text("a list of things\n" * 100)
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    shutil.copy(backed_up[1], broken)
    with closing(sqlite3.connect(broken)) as connection:
        connection.execute("UPDATE registrations SET status = 'registered'")
        connection.commit()
    for path, told in (
        (text, "not a database"),
        (other, "no tables yet"),
        (broken, "does not hold together"),
        (tmp_path / "nothing", "There is no"),
        (state / "registry.db", "the store itself"),
    ):
        done = run("restore", str(path), "--state", str(state))
        assert done.returncode != 0
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert (state / "registry.db").read_bytes() == before
        assert not list(state.glob("*restore*"))


def test_a_store_is_looked_at_on_demand(backed_up: tuple[Path, Path], tmp_path: Path) -> None:
    state = shutil.copytree(backed_up[0], tmp_path / "state")
    done = run("check-store", "--state", str(state))
    assert (done.returncode, done.stdout) == (0, "The store holds together.\n")
    with closing(sqlite3.connect(state / "registry.db")) as connection:
        connection.execute("UPDATE registrations SET status = 'registered'")
        connection.commit()
    done = run("check-store", "--state", str(state))
    assert done.returncode == 8
    assert "2 registrations are registered and have no plugin (invariant 5)" in done.stdout


def test_postgresql_has_its_own_way_which_is_told(tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "x.dump"), env=POSTGRESQL)
    assert done.returncode == 2
    assert "pg_dump --format=custom" in done.stderr
    assert "pg_restore --clean" in run("restore", str(tmp_path / "x.dump"), env=POSTGRESQL).stderr
