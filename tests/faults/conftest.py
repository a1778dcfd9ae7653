"""Clusters that the tests of faults share, and which tests run only when asked for."""

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import amqp_url
from tests.faults.brokers import OwnRabbitMQ, RabbitMQ, rabbitmq_script
from tests.faults.cluster import Cluster, Truth
from tests.faults.history import History
from tests.faults.postgres import Postgres, own_postgresql
from tests.faults.proxy import Proxy, proxy_to_port
from tests.faults.small_disk import SmallDisk, small_disk
from tests.origin import Origin
from tests.stores import postgresql_store, sqlite_store

LONG = "faults_long"
WORKERS = ("worker-1", "worker-2")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{LONG}: takes minutes; runs with -m {LONG} or REGISTRY_TEST_LONG=1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if rabbitmq_script() is None:
        _leave_out(config, items, lambda item: "own_rabbitmq_cluster" in getattr(item, "fixturenames", ()))
    if os.environ.get("REGISTRY_TEST_LONG") != "1" and LONG not in str(config.getoption("markexpr")):
        _leave_out(config, items, lambda item: item.get_closest_marker(LONG) is not None)
    # Last, as the clusters live from then on: they would take their share of every other test.
    items.sort(key=lambda item: Path(__file__).parent in item.path.parents)


def _leave_out(config: pytest.Config, items: list[pytest.Item], which: Callable[[pytest.Item], bool]) -> None:
    left_out = [item for item in items if which(item)]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="package")
def truth() -> Iterator[Truth]:
    origin = Origin()
    yield Truth(origin)
    origin.close()


@pytest.fixture(scope="package")
def server() -> Iterator[Postgres]:
    """A PostgreSQL that may be stopped and killed: no test of another kind uses it."""
    with own_postgresql() as server:
        yield server


@pytest.fixture(scope="package")
def many_machines(server: Postgres, truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """PostgreSQL, Valkey over TCP, an api, beat, and two workers."""
    with postgresql_store(server.url) as url:
        cluster = Cluster(tmp_path_factory.mktemp("many"), url, truth)
        try:
            cluster.start(*WORKERS)
            yield cluster
        finally:
            cluster.close()


@pytest.fixture(scope="package")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallDisk]:
    with small_disk(tmp_path_factory.mktemp("disk")) as disk:
        yield disk


@pytest.fixture(scope="package")
def one_machine(disk: SmallDisk, truth: Truth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The same over SQLite, on a disk of its own that is small."""
    url = sqlite_store(disk.folder / "registry.db")
    cluster = Cluster(tmp_path_factory.mktemp("one"), url, truth)
    try:
        cluster.start(*WORKERS)
        yield cluster
    finally:
        cluster.close()


@pytest.fixture(scope="package")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> RabbitMQ:
    """A RabbitMQ node of our own, or else that of TEST_AMQP_URL."""
    return OwnRabbitMQ(tmp_path_factory.mktemp("node")) if rabbitmq_script() else RabbitMQ(amqp_url())


@pytest.fixture(scope="package")
def rabbitmq_link(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """The way to RabbitMQ for all processes of the cluster."""
    proxy = proxy_to_port(rabbitmq.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="package")
def rabbitmq_machines(
    server: Postgres,
    truth: Truth,
    rabbitmq: RabbitMQ,
    rabbitmq_link: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Cluster]:
    """PostgreSQL, RabbitMQ, an api, beat, and two workers."""
    folder, through = tmp_path_factory.mktemp("rabbitmq"), rabbitmq.through(rabbitmq_link.port)
    with postgresql_store(server.url) as url:
        cluster = Cluster(folder, url, truth, broker=rabbitmq, REGISTRY_BROKER_URL=through)
        try:
            cluster.start(*WORKERS)
            yield cluster
        finally:
            cluster.close()


@pytest.fixture
def cluster(many_machines: Cluster) -> Iterator[Cluster]:
    """The shared cluster, healed of what the test before did to it."""
    yield from _healed(many_machines)


@pytest.fixture
def sqlite_cluster(one_machine: Cluster) -> Iterator[Cluster]:
    """The shared cluster over SQLite, healed likewise."""
    yield from _healed(one_machine)


@pytest.fixture
def rabbitmq_cluster(rabbitmq_machines: Cluster) -> Iterator[Cluster]:
    """The cluster over RabbitMQ, healed likewise."""
    yield from _healed(rabbitmq_machines)


@pytest.fixture
def own_rabbitmq_cluster(rabbitmq_cluster: Cluster) -> Cluster:
    """The same for a test that harms RabbitMQ itself: left out where there is no server to run."""
    return rabbitmq_cluster


@pytest.fixture(params=["postgresql", "sqlite"])
def either_cluster(request: pytest.FixtureRequest) -> Cluster:
    """Both in turn."""
    healed: Cluster = request.getfixturevalue("cluster" if request.param == "postgresql" else "sqlite_cluster")
    return healed


def _healed(cluster: Cluster) -> Iterator[Cluster]:
    cluster.history = History()
    cluster.heal(*WORKERS)
    yield cluster
    cluster.resume_all()


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Holds artifacts back; open it to let them go. It opens by itself when the test ends."""
    gate = threading.Event()
    yield gate
    gate.set()


@pytest.fixture
def closing() -> Iterator[Callable[[Proxy], Proxy]]:
    """Close proxies when the test ends."""
    proxies: list[Proxy] = []

    def keep(proxy: Proxy) -> Proxy:
        proxies.append(proxy)
        return proxy

    yield keep
    for proxy in proxies:
        proxy.close()
