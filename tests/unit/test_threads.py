"""What would hold the loop up is done beside it: so many at once, and not for who has left."""

import asyncio
import threading

import pytest

from api.live.threads import Threads


def test_what_is_called_answers_and_raises_as_it_does() -> None:
    async def story() -> None:
        ask = Threads(1, name="tests")
        assert await ask(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError):
            await ask(divmod, 7, 0)
        ask.close()

    asyncio.run(story())


def test_no_more_than_so_many_are_under_way_and_the_loop_goes_on() -> None:
    under_way, most, go = [], [0], threading.Event()

    def hold() -> None:
        under_way.append(1)
        most[0] = max(most[0], len(under_way))
        go.wait()
        under_way.pop()

    async def story() -> None:
        ask = Threads(2, name="tests")
        calls = [asyncio.create_task(ask(hold)) for _ in range(6)]
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in calls), "and the loop goes on"
        go.set()
        await asyncio.gather(*calls)
        ask.close()

    asyncio.run(story())
    assert most == [2]


def test_who_left_before_its_turn_is_not_called_for() -> None:
    called: list[int] = []
    go = threading.Event()

    async def story() -> None:
        ask = Threads(1, name="tests")
        first = asyncio.create_task(ask(go.wait))
        await asyncio.sleep(0)
        second = asyncio.create_task(ask(called.append, 2))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.sleep(0)
        go.set()
        await first
        await ask(called.append, 3)
        ask.close()

    asyncio.run(story())
    assert called == [3]
