"""What a worker does with bells it holds when its Redis or Valkey goes away.

Celery 5.7 closes a lost connection twice. If a bell is held, kombu's channel then wants to give it back, or a task
that has ended meanwhile wants to acknowledge it, over a connection that knows no broker any more: an
`AttributeError`, which Celery takes for a fault of its own, and the worker ends. Said as a connection error, the bell
is given up, the worker reconnects, and the sweep rings again.
"""

from functools import wraps
from typing import Any

from kombu.transport import redis
from redis.exceptions import ConnectionError as RedisConnectionError


def outlive_broker() -> None:
    """Make channels whose connection was given up say so with an error that Celery recovers from."""
    channel: Any = redis.Channel  # its types lack what is private
    parameters = channel._connparams  # where kombu looks its broker up

    @wraps(parameters)
    def connparams(self: Any, asynchronous: bool = False) -> dict[str, Any]:
        if self.connection is None or self.connection.client is None:
            raise RedisConnectionError("the connection to the broker was given up")
        found: dict[str, Any] = parameters(self, asynchronous)
        return found

    channel._connparams = connparams
