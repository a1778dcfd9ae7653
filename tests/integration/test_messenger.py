"""The messenger over real sockets: a hook's name may lead inward by now, and a shortage of ours is nobody's fault."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

from shared.errors import Shortage
from shared.registration import Operator
from shared.settings import read_settings
from shared.signatures import new_key
from shared.store.database import Database
from shared.store.keys import SigningKeys
from shared.store.webhooks import Delivery, Webhooks
from tests.running import until
from worker.digest.lanes import Lanes
from worker.loop import LoopThread
from worker.messenger import Messenger
from worker.running import a_client

OPERATOR = Operator("tests", "token-1")


@contextmanager
def listening() -> Iterator[tuple[int, list[bytes]]]:
    """Listen on loopback; yield the port, and what comes."""
    came: list[bytes] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with closing(connection):
                came.append(connection.recv(65536))
                connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1], came


def delivered(
    database: Database, url: str, port: int, resolve: Callable[..., Any], client: Callable[[Any], Any] = lambda it: it
) -> Delivery:
    """Have a hook at *url* be told something; return how that went."""
    settings = read_settings(
        egress_schemes="http", egress_ports=str(port), egress_allow_networks="127.0.0.1/32", read_timeout_s=5
    )
    hooks = Webhooks(database)
    hook, _ = hooks.create(url, OPERATOR, label="", kinds=(), names=(), secret=True)
    hooks.test(hook.id, json.dumps({"x": "\u00fc"}), "event-1")
    loop = LoopThread()
    made: list[Any] = []

    async def begin() -> None:
        its_client = client(a_client(settings, Lanes(), resolve=resolve))
        made.append(Messenger(hooks, SigningKeys(database, new_key), its_client, settings.egress))
        made[0].look()

    loop.call(begin())

    def over() -> Delivery | None:
        (found,) = hooks.deliveries(hook.id, limit=1)
        return found if found.tried_at or (found.trials and found.due_at and client is short) else None

    try:
        found: Delivery = until(over, what="the end of the trial")
        return found
    finally:
        loop.call(made[0].leave())
        made[0].close()
        loop.close()


def leads_to(address: str) -> Callable[..., Any]:
    async def resolve(*_: object) -> list[str]:
        return [address]

    return resolve


class ShortClient:
    """Has too little of something."""

    agent = "tests"

    def __init__(self) -> None:
        self.asked = 0

    async def post(self, *_: object) -> int:
        self.asked += 1
        raise Shortage("The registry has too little of what a download takes.", cause="open-files")


def short(_client: Any) -> Any:
    return ShortClient()


def test_a_hook_is_told_over_the_egress_of_the_settings(database: Database) -> None:
    with listening() as (port, came):
        delivery = delivered(database, f"http://hooks.example.com:{port}/x", port, leads_to("127.0.0.1"))
    assert delivery.status == 204
    head, _, body = came[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\nHost: hooks.example.com:")
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize("address", ["10.0.0.1", "169.254.169.254", "::1", "127.0.0.2"])
def test_a_hook_whose_name_leads_inward_by_now_is_not_asked(database: Database, address: str) -> None:
    with listening() as (port, came):
        delivery = delivered(database, f"http://hooks.example.com:{port}/", port, leads_to(address))
    assert (delivery.status, came) == (None, [])
    assert delivery.error is not None
    assert "must not reach" in delivery.error


def test_a_hook_that_the_settings_allow_no_more_is_not_asked(database: Database) -> None:
    with listening() as (port, came):
        delivery = delivered(database, f"http://hooks.example.com:{port}/", 8, leads_to("127.0.0.1"))
    assert (delivery.status, came) == (None, [])
    assert delivery.error is not None
    assert "is not allowed here" in delivery.error


def test_a_shortage_of_ours_is_no_failure_of_the_hook(database: Database) -> None:
    delivery = delivered(database, "http://hooks.example.com:8/", 8, leads_to("127.0.0.1"), short)
    assert (delivery.failures, delivery.error) == (0, None)
    (hook,) = Webhooks(database).all()
    assert hook.failing_since is None
