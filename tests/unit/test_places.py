"""Places are counted exactly: what is taken is left, however the end comes."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from api.http.places import Caps, Held, Places
from api.http.problems import Problem
from api.http.proxies import Proxies
from shared.settings import Settings

SMALL: dict[str, Any] = {
    "max_requests_per_token": 2,
    "max_waits_per_token": 2,
    "max_waits_per_address": 3,
    "max_streams_per_token": 2,
    "max_streams_per_address": 3,
}


def scope(address: str = "192.0.2.1") -> dict[str, Any]:
    return {"type": "http", "client": (address, 40_000), "headers": []}


async def serve(app: Callable[[Scope], Coroutine[Any, Any, None]], address: str = "192.0.2.1") -> None:
    """Have *app* serve a request as it is served outside: within what is held."""

    async def asgi(scope: Scope, _receive: Receive, _send: Send) -> None:
        await app(scope)

    async def receive() -> dict[str, Any]:
        raise AssertionError("nothing is read")

    async def send(_message: object) -> None:
        raise AssertionError("nothing is sent")

    await Held(asgi)(scope(address), receive, send)


@pytest.fixture
def caps() -> Caps:
    return Caps(Settings(**SMALL), Proxies([]))


def test_there_are_so_many_for_each_and_what_is_left_is_free() -> None:
    places = Places(2)
    assert [places.take("a") for _ in range(3)] == [True, True, False]
    assert places.take("b")
    places.leave("a")
    assert [places.take("a") for _ in range(2)] == [True, False]
    assert len(places) == 3
    for who in ("a", "a", "b"):
        places.leave(who)
    assert len(places) == 0
    assert not places._taken, "nobody is remembered who holds nothing"


def test_no_limit_is_none() -> None:
    places = Places(0)
    assert all(places.take("a") for _ in range(10_000))


@pytest.mark.parametrize("end", ["answer", "problem", "error", "cancel"])
def test_a_request_leaves_its_places_however_it_ends(caps: Caps, end: str) -> None:
    async def app(scope: Scope) -> None:
        caps.request(scope, "token")
        caps.stream(scope, "token")
        with caps.waiting(scope, "token") as free:
            assert free
            if end == "problem":
                raise Problem("forbidden", "no")
            if end == "error":
                raise RuntimeError
            if end == "cancel":
                await asyncio.Event().wait()

    async def one() -> None:
        serving = asyncio.create_task(serve(app))
        await asyncio.sleep(0)
        if end == "cancel":
            serving.cancel()
        await asyncio.wait({serving})
        assert bool(serving.cancelled() or serving.exception()) is (end != "answer")

    for _ in range(5):
        asyncio.run(one())
    assert not any(len(places) for places in (caps._requests, *caps._waits, *caps._streams))


def test_who_is_refused_holds_nothing(caps: Caps) -> None:
    async def second(scope: Scope) -> None:
        caps.stream(scope, "other")
        with pytest.raises(Problem) as refused:
            await serve(third)
        assert refused.value.status == 429
        assert "Your address" in str(refused.value)

    async def third(scope: Scope) -> None:
        caps.stream(scope, "third")

    async def first(scope: Scope) -> None:
        caps.stream(scope, "token")
        caps.stream(scope, "token")
        with pytest.raises(Problem, match="This token has 2 event streams"):
            await serve(again)
        await serve(second)

    async def again(scope: Scope) -> None:
        caps.stream(scope, "token")

    asyncio.run(serve(first))
    assert not any(len(places) for places in caps._streams)


def test_there_are_so_many_places_to_wait_for_each_token_and_each_address(caps: Caps) -> None:
    one, other = scope(), scope("192.0.2.2")
    with caps.waiting(one, "a") as first, caps.waiting(one, "a") as second, caps.waiting(one, "a") as third:
        assert (first, second, third) == (True, True, False)
        with caps.waiting(one, "b") as fourth, caps.waiting(one, "c") as fifth, caps.waiting(other, "c") as elsewhere:
            assert (fourth, fifth, elsewhere) == (True, False, True)
    assert not any(len(places) for places in caps._waits)
