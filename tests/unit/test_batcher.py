"""What tasks ask for at the same time is one call; each has its own answer, and nobody who is alone waits."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StoreUnavailable
from shared.store.batcher import BUSY_FROM, MAX_GROUP, Batcher


class Store:
    """Doubles what it is asked, and can be held in the middle of a call."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.lingered: list[float] = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.entered = threading.Event()
        self.fails: Callable[[Sequence[int]], None] = lambda _group: None

    def __call__(self, group: Sequence[int]) -> list[int]:
        self.entered.set()
        self.go_on.wait()
        self.groups.append([*group])
        self.fails(group)
        return [2 * each for each in group]


def run(store: Store, story: Callable[["Batcher[int, int]"], Coroutine[Any, Any, None]]) -> None:
    async def told() -> None:
        thread: Batcher[int, int] = Batcher(store, sleep=store.lingered.append)
        try:
            await story(thread)
        finally:
            store.go_on.set()
            thread.close()

    asyncio.run(told())


async def hold(store: Store, thread: "Batcher[int, int]") -> "asyncio.Task[int]":
    """Have the thread be in the middle of a call, for a 0."""
    store.go_on.clear()
    store.entered.clear()
    first = asyncio.create_task(thread.ask(0))
    await asyncio.to_thread(store.entered.wait)
    return first


def test_who_is_alone_is_a_group_of_its_own() -> None:
    store = Store()

    async def story(thread: "Batcher[int, int]") -> None:
        for number in range(3):
            assert await thread.ask(number) == 2 * number

    run(store, story)
    assert store.groups == [[0], [1], [2]]


def test_what_waits_while_the_store_is_busy_is_the_next_group_in_its_order() -> None:
    store = Store()

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        rest = [asyncio.create_task(thread.ask(number)) for number in range(1, 6)]
        await asyncio.sleep(0)
        store.go_on.set()
        assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]

    run(store, story)
    assert store.groups == [[0], [1, 2, 3, 4, 5]]


def test_a_group_has_an_end() -> None:
    store = Store()

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        rest = [asyncio.create_task(thread.ask(number)) for number in range(2 * MAX_GROUP + 1)]
        await asyncio.sleep(0)
        store.go_on.set()
        await asyncio.gather(first, *rest)

    run(store, story)
    assert [len(each) for each in store.groups] == [1, MAX_GROUP, MAX_GROUP, 1]


@pytest.mark.parametrize(("size", "lingers"), [(BUSY_FROM - 1, False), (BUSY_FROM, True)])
def test_after_a_group_that_is_not_small_more_are_let_come(size: int, lingers: bool) -> None:
    store = Store()

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        rest = [asyncio.create_task(thread.ask(number)) for number in range(size)]
        await asyncio.sleep(0)
        store.go_on.set()
        await asyncio.gather(first, *rest)
        assert store.lingered == []
        await thread.ask(0)
        assert bool(store.lingered) is lingers

    run(store, story)


def test_a_store_that_is_away_is_told_to_each_and_asked_once() -> None:
    store = Store()

    def away(_group: Sequence[int]) -> None:
        raise StoreUnavailable("It is away.")

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        store.fails = away
        rest = [asyncio.create_task(thread.ask(number)) for number in (1, 2)]
        await asyncio.sleep(0)
        store.go_on.set()
        answers = await asyncio.gather(first, *rest, return_exceptions=True)
        assert all(isinstance(each, StoreUnavailable) for each in answers)
        store.fails = lambda _group: None
        assert await thread.ask(3) == 6

    run(store, story)
    assert store.groups == [[0], [1, 2], [3]]


def test_one_that_fails_takes_no_other_along() -> None:
    store = Store()

    def dislike_two(group: Sequence[int]) -> None:
        if 2 in group:
            raise ValueError("two")

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        store.fails = dislike_two
        rest = [asyncio.create_task(thread.ask(number)) for number in (1, 2, 3)]
        await asyncio.sleep(0)
        store.go_on.set()
        answers: list[Any] = await asyncio.gather(first, *rest, return_exceptions=True)
        _, one, two, three = answers
        assert (one, three) == (2, 6)
        assert isinstance(two, ValueError)

    run(store, story)
    assert store.groups == [[0], [1, 2, 3], [1], [2], [3]]


def test_who_does_not_wait_any_more_is_in_nobodys_way() -> None:
    store = Store()

    async def story(thread: "Batcher[int, int]") -> None:
        first = await hold(store, thread)
        gone, stays = (asyncio.create_task(thread.ask(number)) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        store.go_on.set()
        assert await first == 0
        assert await stays == 4

    run(store, story)
    assert store.groups == [[0], [2]], "what was given up is not done afterwards"


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), max_size=40))
def test_everybody_is_answered(pauses: list[int]) -> None:
    async def one(thread: "Batcher[int, int]", number: int, pause: int) -> int:
        for _turn in range(pause):
            await asyncio.sleep(0)
        return await thread.ask(number)

    async def story(thread: "Batcher[int, int]") -> None:
        answers = await asyncio.gather(*(one(thread, number, pause) for number, pause in enumerate(pauses)))
        assert answers == [2 * number for number in range(len(pauses))]

    run(Store(), story)
