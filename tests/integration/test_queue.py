"""The queue on a real Valkey: bells carry ids alone, are counted without being taken, and never hold anybody up."""

import base64
import contextlib
import gc
import json
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
import trustme
from amqp.exceptions import AMQPError
from kombu.exceptions import OperationalError

from api.live.bell import Bell
from cli.embedded import _valkey
from shared.broker import BROKER_ERRORS, reason_of
from shared.queues import IDS_PER_BELL, PROBE, QUEUE, celery_app, look_at_broker, messages_waiting, ring
from shared.registration import RegistrationId
from shared.settings import Settings, read_settings
from tests.running import PATIENCE_S, until


@pytest.fixture
def valkey() -> Iterator[tuple[Settings, psutil.Process, redis.Redis]]:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "valkey.sock"
        process = subprocess.Popen(_valkey(path, Path(name)), stdout=subprocess.DEVNULL)
        client = redis.Redis(unix_socket_path=str(path))
        until(path.exists)
        yield read_settings(broker_url=f"redis+socket://{path}"), psutil.Process(process.pid), client
        client.close()
        process.kill()
        process.wait()


def some_ids(count: int) -> list[RegistrationId]:
    return [RegistrationId(f"registration-{n}") for n in range(count)]


def test_a_bell_carries_ids_and_nothing_else(valkey: tuple[Settings, psutil.Process, redis.Redis]) -> None:
    settings, _process, client = valkey
    ring(celery_app(settings), some_ids(2))
    (message,) = client.lrange(QUEUE, 0, -1)
    body = json.loads(base64.b64decode(json.loads(message)["body"]))
    assert body[0] == [["registration-0", "registration-1"]]
    assert "://" not in str(message)


def test_many_ids_ring_few_bells_and_they_are_counted(
    valkey: tuple[Settings, psutil.Process, redis.Redis],
) -> None:
    app = celery_app(valkey[0])
    assert messages_waiting(app) == 0
    ring(app, some_ids(2 * IDS_PER_BELL + 1))
    assert messages_waiting(app) == 3
    assert messages_waiting(app) == 3
    ring(app, [])
    assert messages_waiting(app) == 3


REFUSALS: dict[str, tuple[list[str], list[str]]] = {
    "READONLY": (["REPLICAOF 127.0.0.1 1"], ["REPLICAOF NO ONE"]),
    "MASTERDOWN": (
        ["CONFIG SET replica-serve-stale-data no", "REPLICAOF 127.0.0.1 1"],
        ["REPLICAOF NO ONE", "CONFIG SET replica-serve-stale-data yes"],
    ),
    "OOM": (["CONFIG SET maxmemory 1"], ["CONFIG SET maxmemory 0"]),
    "NOREPLICAS": (["CONFIG SET min-replicas-to-write 1"], ["CONFIG SET min-replicas-to-write 0"]),
    "NOAUTH": (["CONFIG SET requirepass S3CRET"], ["CONFIG SET requirepass "]),
    "NOPERM": (["ACL SETUSER default -set"], ["ACL SETUSER default +@all"]),
}
"""How a broker comes to refuse, by the word it refuses with, and how that is mended."""


def do(client: redis.Redis, commands: list[str]) -> None:
    for each in commands:
        client.execute_command(*each.split(" ", 3))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("word", REFUSALS)
def test_a_broker_that_answers_and_takes_nothing_is_away_and_says_why(
    valkey: tuple[Settings, psutil.Process, redis.Redis], word: str
) -> None:
    settings, _process, client = valkey
    app, (refuse, mend) = celery_app(settings), REFUSALS[word]
    ring(app, some_ids(1))
    assert look_at_broker(app) == 1
    assert 0 < client.ttl(PROBE) <= 60, "what it is given expires"
    client.client_setname("ours")
    do(client, refuse)
    with pytest.raises(BROKER_ERRORS) as refused:
        look_at_broker(app)
    reason = reason_of(refused.value)
    assert reason.word == word
    assert reason.sentence.startswith(f"The broker refuses writes: {word} ")
    assert "S3CRET" not in reason.text
    do(client, mend)
    assert look_at_broker(app) == 1


def test_a_broker_that_is_not_there_is_away_and_that_is_all_there_is_to_say() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for scheme in ("redis", "amqp"):
        with pytest.raises(BROKER_ERRORS) as away:
            look_at_broker(celery_app(read_settings(broker_url=f"{scheme}://guest:S3CRET@127.0.0.1:{port}")))
        reason = reason_of(away.value)
        assert reason.word is None
        assert "refused" in reason.sentence
        assert "S3CRET" not in reason.sentence


def test_a_broker_that_is_not_there_fails_a_ring_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(OperationalError):
        ring(celery_app(read_settings(broker_url=f"redis://127.0.0.1:{port}")), some_ids(1))
    assert time.monotonic() - started < 30


def test_a_broker_that_hangs_fails_a_ring_soon(valkey: tuple[Settings, psutil.Process, redis.Redis]) -> None:
    settings, process, _client = valkey
    process.suspend()
    started = time.monotonic()
    with pytest.raises(OperationalError):
        ring(celery_app(settings), some_ids(1))
    assert time.monotonic() - started < 60
    process.resume()


def test_the_bell_never_waits_for_the_broker(valkey: tuple[Settings, psutil.Process, redis.Redis]) -> None:
    settings, process, client = valkey
    app = celery_app(settings)
    bell = Bell(lambda ids: ring(app, ids))
    bell.start()
    process.suspend()
    started = time.monotonic()
    for _ in range(100):
        bell.ring(some_ids(1))
    assert time.monotonic() - started < 60, "5 s each, if it did"
    process.resume()
    until(lambda: client.llen(QUEUE), what="a bell in the queue")


def test_a_sentinel_names_the_broker(valkey: tuple[Settings, psutil.Process, redis.Redis], tmp_path: Path) -> None:
    _settings, _process, client = valkey
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        broker_port, port = one.getsockname()[1], two.getsockname()[1]
    client.config_set("port", broker_port)
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"port {port}\nsentinel monitor ours 127.0.0.1 {broker_port} 1\ndir {tmp_path}\n")
    server = _valkey(tmp_path / "unused.sock", tmp_path)[0]
    with subprocess.Popen([server, str(configuration), "--sentinel"], stdout=subprocess.DEVNULL) as sentinel:
        try:
            app = celery_app(read_settings(broker_url=f"sentinel://127.0.0.1:{port}", broker_sentinel_master="ours"))

            def rung() -> bool:
                with contextlib.suppress(OperationalError):
                    ring(app, some_ids(1))
                return bool(client.llen(QUEUE))

            until(rung, what="a bell through the sentinel")
        finally:
            sentinel.kill()


@contextlib.contextmanager
def a_tls_server(authority: trustme.CA) -> Iterator[tuple[int, list[bool]]]:
    """A port where TLS is spoken and nothing else; and of each connection, whether its client was content."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    content: list[bool] = []
    with socket.create_server(("", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted, _address = listener.accept()
                    with contextlib.closing(accepted):
                        accepted.settimeout(PATIENCE_S)
                        try:
                            with context.wrap_socket(accepted, server_side=True) as encrypted:
                                content.append(bool(encrypted.recv(1)))  # who is not says nothing else
                        except OSError:
                            content.append(False)

        serving = threading.Thread(target=serve)
        serving.start()
        yield listener.getsockname()[1], content
        listener.shutdown(socket.SHUT_RDWR)
        serving.join()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # a client that tries again drops what it had
@pytest.mark.parametrize("scheme", ["rediss", "sentinels", "amqps"])
def test_tls_with_a_broker_is_verified_unless_its_url_says_otherwise(scheme: str, tmp_path: Path) -> None:
    authority, path = trustme.CA(), tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))

    def connect(settings: Settings) -> None:
        with (
            contextlib.suppress(OperationalError, OSError, AMQPError, redis.RedisError),
            celery_app(settings) as app,
            app.connection_for_write() as connection,
        ):
            connection.connect()
            connection.default_channel.client.ping()  # type: ignore[attr-defined]  # Redis connects for a command

    def content(host: str, query: str = "", ca_file: Path | None = None) -> bool:
        with a_tls_server(authority) as (port, seen):
            user = "me:hunter2@" if scheme == "amqps" else ""
            settings = read_settings(broker_url=f"{scheme}://{user}{host}:{port}/{query}", broker_ca_file=ca_file)
            threading.Thread(target=connect, args=(settings,), daemon=True).start()  # it tries again for long
            return bool(until(lambda: seen, what="a connection")[0])

    assert not content("127.0.0.1"), "its certificate is of nobody who is trusted"
    assert content("127.0.0.1", ca_file=path)
    assert not content("127.0.0.2", ca_file=path), "its certificate is of another name"
    assert content("127.0.0.1", "?ssl_cert_reqs=none")
    assert content("127.0.0.2", "?ssl_cert_reqs=none")
    gc.collect()  # here, and not in another test
