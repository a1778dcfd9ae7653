"""The queue: names, and the Celery configuration that both sides need. It carries bells, and nothing else.

A bell is a list of registration ids (invariant 9); losing or doubling one changes nothing.
"""

import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from amqp.exceptions import ChannelError
from celery import Celery
from kombu import Producer, Queue

from shared.broker import TellingWhenBlocked
from shared.registration import RegistrationId
from shared.settings import Settings

QUEUE = "registry.bells"
CLOCK_QUEUE = "registry.clock"
"""What runs by the clock has a queue of its own, so that it is not counted among the bells."""
TICK_LIVES_S = 7200
"""Ticks that nobody took are dropped after this: longer than any clock of ours is wrong, shorter than a night."""
VERIFY_TASK = "registry.verify"
SWEEP_TASK = "registry.sweep"
PRUNE_TASK = "registry.prune"
PRUNE_EVERY_S = 3600.0
IDS_PER_BELL = 32
ANSWERED_WITHIN_S = 60
"""A worker answers a bell in seconds, whatever waits (invariant 12). One that took longer was taken by nobody."""
PROBE = "registry.probe"
PROBE_LIVES_S = 60
NO_SUCH_QUEUE = 404
CONFIRMED_WITHIN_S = 5.0
"""How long RabbitMQ may take to say that it has a message. Without this limit py-amqp waits for ever."""


def celery_app(settings: Settings) -> Celery:
    """Return a Celery app for *settings*; nothing is connected yet.

    Raises:
        BadSettings: they name no broker.
    """
    app = Celery("plugin-registry", set_as_current=False)
    app.conf.update(_configuration(settings))
    return app


def ring(app: Celery, registration_ids: Sequence[RegistrationId]) -> None:
    """Ring for *registration_ids*, with as few bells as they fit in.

    Raises:
        *BROKER_ERRORS: the broker did not take a bell within its time limits.
    """
    with _publishing(app) as producer:
        for start in range(0, len(registration_ids), IDS_PER_BELL):
            bell = (list(registration_ids[start : start + IDS_PER_BELL]),)
            app.send_task(VERIFY_TASK, args=bell, producer=producer, retry=False, confirm_timeout=CONFIRMED_WITHIN_S)


def send_tick(app: Celery, task: str, options: Mapping[str, Any]) -> None:
    """Send *task*, which runs by the clock.

    Raises:
        *BROKER_ERRORS: the broker did not take it within its time limits.
    """
    with _publishing(app) as producer:
        app.send_task(task, producer=producer, retry=False, **options)


@contextmanager
def _publishing(app: Celery) -> Iterator[Producer]:
    with app.producer_or_acquire() as producer:
        try:
            yield producer
        except Exception:
            producer.connection.collect()  # or the pool would go on handing out a link that died in silence
            raise


def messages_waiting(app: Celery) -> int:
    """Return how many messages wait in the broker; it counts them without taking any.

    Raises:
        *BROKER_ERRORS: the broker did not answer.
    """
    with _channel(app) as channel:
        return _count(channel)


def look_at_broker(app: Celery) -> int:
    """Return how many messages wait in a broker that takes messages, which one that answers need not do.

    It is given one that nobody waits for: a key that expires, or a message that no queue takes.

    Raises:
        *BROKER_ERRORS: it did not answer, or refused.
    """
    with _channel(app) as channel:
        if channel.connection.client.transport.driver_type == "redis":
            channel.client.set(PROBE, "", ex=PROBE_LIVES_S)
        else:
            exchange = app.amqp.queues[QUEUE].exchange
            producer = app.amqp.Producer(channel, auto_declare=False)
            producer.publish(
                "", routing_key=PROBE, exchange=exchange, declare=[exchange], confirm_timeout=CONFIRMED_WITHIN_S
            )
        return _count(channel)


def open_redis(app: Celery) -> tuple[Any, Any]:
    """Return a connection of kombu's to the Redis or Valkey that is the broker, and the pool of connections in it.

    Raises:
        *BROKER_ERRORS: it did not answer.
    """
    connection = app.connection_for_read()
    channel: Any = connection.channel()
    return connection, channel.pool


@contextmanager
def _channel(app: Celery) -> Iterator[Any]:
    """Open a channel on a connection of its own, which each of the addresses in its URL is tried for once."""
    connection = app.connection_for_read()
    try:
        connection.ensure_connection(max_retries=max(0, len(connection.alt) - 1))
        yield connection.channel()
    except BaseException:
        connection.collect()  # to take leave of a broker that listens no more would take for ever
        raise
    connection.release()


def _count(channel: Any) -> int:
    try:
        return int(channel.queue_declare(QUEUE, passive=True).message_count)
    except ChannelError as error:
        if int(error.reply_code or 0) != NO_SUCH_QUEUE:
            raise
        return 0  # on Redis an empty one does not exist


def _configuration(settings: Settings) -> dict[str, Any]:
    tick = {"expires": TICK_LIVES_S, "confirm_timeout": CONFIRMED_WITHIN_S}
    return {
        "broker_url": settings.broker.url,
        "broker_use_ssl": _tls(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker waits for its broker, however long that is away
        "broker_connection_timeout": 2,
        "broker_transport_options": _transport_options(settings),
        "task_queues": [_queue(QUEUE, settings), _queue(CLOCK_QUEUE, settings)],
        "task_routes": {SWEEP_TASK: {"queue": CLOCK_QUEUE}, PRUNE_TASK: {"queue": CLOCK_QUEUE}},
        "broker_heartbeat": 10,  # RabbitMQ: a link that died in silence is noticed after twice this
        # A worker may be back before RabbitMQ knows that its old link is dead, and an exclusive queue would be locked
        # then: Celery's worker ends over that. Unused ones expire by themselves.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        "task_default_queue": QUEUE,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,  # the lease is the truth, so a bell need not be held early
        "task_reject_on_worker_lost": False,  # True would deliver a poison bell for ever
        "task_ignore_result": True,  # outcomes live in the store
        "result_backend": None,
        "task_serializer": "json",
        "accept_content": ["json"],
        "worker_hijack_root_logger": False,  # shared/logs.py speaks for every process
        "worker_send_task_events": False,  # operators turn them on with -E; they halve the rate
        "worker_soft_shutdown_timeout": 5.0,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "beat_schedule": {
            "sweep": {
                "task": SWEEP_TASK,
                "schedule": settings.sweep_interval_s,
                "options": tick,
            },
            "prune": {"task": PRUNE_TASK, "schedule": PRUNE_EVERY_S, "options": tick},
        },
        "beat_max_loop_interval": min(5.0, settings.sweep_interval_s),
        "enable_utc": True,
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    if _is_amqp(settings):
        # A bell counts as rung when the broker has it. There is a read_timeout as well, which py-amqp does not heed.
        return {"confirm_publish": True, "write_timeout": 5, "frame_handler": TellingWhenBlocked()}
    sentinel: dict[str, Any] = {}
    if settings.broker.kind == "sentinel":
        sentinel = {"master_name": settings.broker_sentinel_master}
        if settings.broker.tls:
            sentinel["sentinel_kwargs"] = {"ssl": True, **(_tls(settings) or {})}
    return sentinel | {
        "visibility_timeout": ANSWERED_WITHIN_S,
        # A killed worker's bell comes back after seconds; with the defaults it took a minute and a half.
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        # A black-holed broker must not hold a publisher: without limits that was 40 s.
        "socket_timeout": 5,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }


def _queue(name: str, settings: Settings) -> Queue:
    """Return a queue: on RabbitMQ a quorum queue, which survives the loss of a node."""
    arguments = {"x-queue-type": "quorum"} if _is_amqp(settings) else None
    return Queue(name, routing_key=name, queue_arguments=arguments)


def _tls(settings: Settings) -> dict[str, Any] | None:
    """Return how TLS is spoken with the broker: verified, by name too, unless its URL says otherwise.

    None where there is no TLS. Said in full, because the default of kombu for `rediss` is to verify nothing.
    """
    broker = settings.broker
    if not broker.tls:
        return None
    names = {"ca_certs": settings.broker_ca_file, "certfile": broker.certificate_file, "keyfile": broker.key_file}
    files = {name: str(file) for name, file in names.items() if file is not None}
    if _is_amqp(settings):
        check = getattr(ssl, f"CERT_{broker.check.upper()}")
        # None stands for the host of the URL; where nothing is checked there may be none.
        named = {} if check is ssl.CERT_NONE else {"server_hostname": None}
        return {**files, "cert_reqs": check, **named}
    return {
        **{f"ssl_{name}": file for name, file in files.items()},
        "ssl_cert_reqs": broker.check,
        "ssl_check_hostname": broker.check != "none",
    }


def _is_amqp(settings: Settings) -> bool:
    return settings.broker.kind == "amqp"
