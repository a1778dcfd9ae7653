"""O3: Redis with a replica and three Sentinels, whose primary is killed while clients submit."""

import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis
from redis.sentinel import Sentinel

from tests.faults.brokers import Wires, free_port
from tests.faults.cluster import Cluster, Truth
from tests.faults.load import clients_submitting, every_worker_settles
from tests.running import until
from tests.stores import sqlite_store

MASTER = "mymaster"
PROMISED_S = 60
"""Within what time work flows again."""

pytestmark = [pytest.mark.faults_long, pytest.mark.program("redis-server"), pytest.mark.program("redis-sentinel")]


class WatchedRedis:
    """A primary, its replica, and three Sentinels that agree on who is the primary."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers = [free_port(), free_port()]
        self._sentinels = [free_port() for _ in range(3)]
        self.url = ";".join(f"sentinel://127.0.0.1:{port}" for port in self._sentinels)
        self.port = self._sentinels[0]
        self._asked = Sentinel(  # type: ignore[no-untyped-call]
            [("127.0.0.1", port) for port in self._sentinels], socket_timeout=5
        )
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        primary, replica = self.servers
        self._run(primary)
        self._run(replica, "--replicaof", "127.0.0.1", str(primary))
        until(lambda: self._has_replica(primary), what="the replica")
        for port in self._sentinels:
            configuration = self._folder / f"sentinel-{port}.conf"
            configuration.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {self._folder}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {primary} 2\n"
                f"sentinel down-after-milliseconds {MASTER} 3000\nsentinel failover-timeout {MASTER} 15000\n"
            )
            self._spawn(port, "redis-sentinel", str(configuration))
        until(self._agree, what="that all Sentinels know of each other and of the replica")

    def _run(self, port: int, *options: str) -> None:
        folder = self._folder / str(port)
        folder.mkdir()
        self._spawn(
            port,
            *("redis-server", "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes", *options),
        )

    def _spawn(self, port: int, *command: str) -> None:
        log = (self._folder / f"{port}.log").open("wb")
        with log:
            self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log)

    def _has_replica(self, port: int) -> bool:
        with suppress(redis.RedisError), redis.Redis(port=port) as client:
            return bool(client.info("replication").get("connected_slaves"))
        return False

    def _agree(self) -> bool:
        for port in self._sentinels:
            with suppress(redis.RedisError), redis.Redis(port=port) as client:
                state = client.sentinel_master(MASTER)
                if (int(state["num-other-sentinels"]), int(state["num-slaves"])) == (2, 1):
                    continue
            return False
        return True

    @property
    def primary(self) -> int | None:
        """The port of who is the primary now, as the Sentinels say; None while they look for one."""
        with suppress(redis.RedisError):
            return int(self._asked.discover_master(MASTER)[1])  # type: ignore[no-untyped-call]
        return None

    def kill_primary(self) -> int:
        """Kill it, and return where it was."""
        port = self.primary
        assert port is not None
        self._processes[port].kill()
        self._processes[port].wait()
        return port

    def end(self) -> None:
        for each in self._processes.values():
            each.kill()
            each.wait()

    # --- what a cluster needs of its broker -------------------------------------------------------

    def command(self) -> tuple[str, ...]:
        return ()

    def environment(self) -> dict[str, str]:
        return {}

    def answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self._client().ping())
        return False

    def listens(self, wires: Wires, *, workers: int) -> bool:
        with suppress(redis.RedisError), self._client() as client:
            waiting = {each["addr"] for each in client.client_list() if each["cmd"] == "brpop"}
            return any(f"127.0.0.1:{port}" in waiting for port, _ in wires)
        return False

    def flush(self) -> None:
        with self._client() as client:
            client.flushall()

    def bells_waiting(self) -> int:
        raise AssertionError("nobody asks this here")

    def close(self) -> None:
        pass

    def _client(self) -> redis.Redis:
        return redis.Redis(port=self.primary or 0, socket_timeout=5)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[WatchedRedis]:
    watched = WatchedRedis(tmp_path)
    try:
        watched.start()
        yield watched
    finally:
        watched.end()


def test_a_primary_killed_under_load_is_replaced_and_nothing_ends_or_is_lost(
    watched: WatchedRedis, truth: Truth, tmp_path: Path
) -> None:
    folder = tmp_path / "cluster"
    folder.mkdir()
    cluster = Cluster(folder, sqlite_store(folder / "registry.db"), truth, broker=watched)
    try:
        cluster.start("worker-1", "worker-2")
        before = {name: cluster.process(name).pid for name in cluster.children}
        with clients_submitting(cluster, truth) as ids:
            every_worker_settles(cluster)
            killed = watched.kill_primary()
            until(lambda: watched.primary not in {None, killed}, what="another primary")
            every_worker_settles(cluster, within_s=PROMISED_S)
        cluster.until_final()
        assert {name: cluster.process(name).pid for name in cluster.children} == before
        assert all(cluster.running(name) for name in cluster.children), "nobody ended"
        cluster.check(*ids)
    finally:
        cluster.close()
