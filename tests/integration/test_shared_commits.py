"""Threads that write to SQLite at the same time share a commit, and nothing else."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event

from shared.errors import StoreUnavailable
from shared.store.database import Database, SharedCommits, open_database
from tests.running import until


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    with database.write() as connection:
        connection.exec_driver_sql("CREATE TABLE written (it INTEGER PRIMARY KEY)")
    yield database
    database.close()


class Commits:
    """Counts the commits of a database, and fails them on demand."""

    def __init__(self, engine: Engine) -> None:
        self.count = 0
        self.error: Exception | None = None
        event.listen(engine, "commit", self._note)

    def _note(self, _connection: Connection) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def shared(database: Database) -> SharedCommits:
    assert database._shared is not None
    return database._shared


@pytest.fixture
def commits(database: Database) -> Commits:
    return Commits(database._engine)


def write(database: Database, it: int, then: Callable[[Connection], object] = lambda _: None) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(f"INSERT INTO written VALUES ({it})")
        then(connection)


def written(database: Database) -> set[int]:
    with database.read() as connection:
        return set(connection.exec_driver_sql("SELECT it FROM written").scalars())


@pytest.fixture
def together(database: Database, shared: SharedCommits) -> Iterator[Callable[..., list[Future[None]]]]:
    """Run blocks that all wait for the first of them, and so share its transaction."""
    with ThreadPoolExecutor(16) as pool:

        def run(*thens: Callable[[Connection], object]) -> list[Future[None]]:
            go = threading.Event()
            first = pool.submit(write, database, 0, lambda _: go.wait())
            until(lambda: shared._turn.locked() and not shared._waiting)
            rest = [pool.submit(write, database, place, then) for place, then in enumerate(thens, 1)]
            until(lambda: shared._waiting == len(thens))
            go.set()
            return [first, *rest]

        yield run


def nothing(_connection: Connection) -> None:
    """Write no more."""


def test_blocks_that_wait_at_the_same_time_share_one_commit(
    database: Database, commits: Commits, together: Callable[..., list[Future[None]]]
) -> None:
    for each in together(*[nothing] * 8):
        each.result()
    assert commits.count == 1
    assert written(database) == set(range(9))


def test_a_block_that_fails_takes_no_other_along(
    database: Database, together: Callable[..., list[Future[None]]]
) -> None:
    def fail(_connection: Connection) -> None:
        raise ValueError("mine alone")

    first, failed, last = together(fail, nothing)
    with pytest.raises(ValueError, match="mine alone"):
        failed.result()
    first.result()
    last.result()
    assert written(database) == {0, 2}


def test_the_last_block_may_fail(database: Database, together: Callable[..., list[Future[None]]]) -> None:
    def fail(connection: Connection) -> None:
        connection.exec_driver_sql("SELECT no_such_function()")

    first, failed = together(fail)
    with pytest.raises(StoreUnavailable):
        failed.result()
    first.result()
    assert written(database) == {0}


def test_no_block_is_done_before_the_commit_and_all_hear_of_its_failure(
    database: Database, commits: Commits, together: Callable[..., list[Future[None]]]
) -> None:
    commits.error = StoreUnavailable("no room on this disk")
    for each in together(nothing, nothing):
        with pytest.raises(StoreUnavailable, match="no room"):
            each.result()
    commits.error = None
    assert written(database) == set()
    write(database, 7)
    assert written(database) == {7}


def test_what_sqlite_rolled_back_by_itself_is_not_told_as_committed(
    database: Database, together: Callable[..., list[Future[None]]]
) -> None:
    """As it does when the disk is full: the transaction is gone, and a commit would succeed."""

    def lose_everything(connection: Connection) -> None:
        connection.exec_driver_sql("ROLLBACK")

    for each in together(lose_everything):  # of two that wait, either may have its turn first
        with pytest.raises(StoreUnavailable):
            each.result()
    write(database, 2)
    assert written(database) == {2}


def test_who_leaves_the_commit_to_somebody_that_gives_up_ends_it_after_all(
    database: Database, shared: SharedCommits
) -> None:
    shared._waiting += 1
    write(database, 1)
    shared._waiting -= 1
    assert written(database) == {1}


def test_who_waits_too_long_for_its_turn_is_told_so(
    database: Database, shared: SharedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.store.database.BUSY_TIMEOUT_S", 0.05)
    with shared._turn, pytest.raises(StoreUnavailable, match="busy"):
        write(database, 1)
    assert not shared._waiting
    write(database, 2)
    assert written(database) == {2}
