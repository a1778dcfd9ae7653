"""One question serves all who wait; no news is lost, and where nothing happens nothing is asked."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from api.live.poller import Poller


class Board:
    """What there is to be found, and when it was asked for. A question can be held in its middle."""

    def __init__(self) -> None:
        self.news: dict[str, int] = {}
        self.changed = 0
        self.asked: list[list[str]] = []
        self.entered, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.fails = 0
        self.versions = 0

    async def fetch(self, keys: Sequence[str]) -> Mapping[str, int]:
        self.asked.append(sorted(keys))
        found = {key: self.news[key] for key in keys if key in self.news}
        self.entered.set()
        await self.go_on.wait()
        if self.fails:
            self.fails -= 1
            raise RuntimeError("cannot start a thread")
        return found

    def tell(self, **news: int) -> None:
        self.news |= news
        self.changed += 1

    def version(self) -> int:
        self.versions += 1
        return self.changed


def run(story: Callable[[Board, "Poller[str, int]"], Coroutine[Any, Any, None]]) -> Board:
    async def told() -> Board:
        board = Board()
        poller: Poller[str, int] = Poller(board.fetch, board.version)
        running = asyncio.create_task(poller.run())
        try:
            async with asyncio.timeout(20):
                await story(board, poller)
        finally:
            running.cancel()
        return board

    return asyncio.run(told())


async def settle() -> None:
    """Give whatever can happen the time to happen."""
    await asyncio.sleep(0.05)


def test_nobody_waits_and_nothing_is_asked() -> None:
    async def story(board: Board, _poller: "Poller[str, int]") -> None:
        board.tell(a=1)
        await settle()

    assert run(story).asked == []


def test_once_all_are_told_nothing_is_looked_at_any_more() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.tell(a=1)
        assert await poller.interest("a") == 1
        await settle()
        board.versions = 0
        await settle()
        assert board.versions == 0

    run(story)


def test_who_comes_while_nothing_happens_is_asked_for_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        waiting = poller.interest("a")
        await settle()
        board.news["b"] = 2
        async with asyncio.timeout(5):
            assert await poller.interest("b") == 2
        waiting.cancel()

    for each in ("TICK_S", "IDLE_TICK_S"):
        monkeypatch.setattr(f"api.live.poller.{each}", 60.0)
    run(story)


def test_for_who_has_just_come_the_version_is_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        first = poller.interest("a")
        await settle()
        second = poller.interest("b")  # while nothing happens, too
        await settle()
        board.tell(a=1, b=2)
        async with asyncio.timeout(5):
            assert [*await asyncio.gather(first, second)] == [1, 2]

    monkeypatch.setattr("api.live.poller.IDLE_TICK_S", 60.0)
    run(story)


def test_all_who_wait_are_one_question_and_each_is_told_its_own() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        waiting = [poller.interest(key) for key in ("a", "b", "a")]
        board.tell(a=1, b=2)
        assert await asyncio.gather(*waiting) == [1, 2, 1]

    assert run(story).asked == [["a", "b"]]


def test_while_nothing_changes_nothing_is_asked_again() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        waiting = poller.interest("a")
        await settle()
        assert board.asked == [["a"]]
        board.tell(b=1)  # a change, and nothing of ours
        await settle()
        assert board.asked == [["a"], ["a"]]
        board.tell(a=1)
        assert await waiting == 1

    run(story)


def test_what_is_committed_while_the_question_is_under_way_is_found_by_the_next() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.go_on.clear()
        waiting = poller.interest("a")
        await board.entered.wait()
        board.tell(a=1)  # too late for that question
        board.go_on.set()
        assert await waiting == 1

    assert len(run(story).asked) == 2


def test_who_comes_while_the_question_is_under_way_is_told_by_the_next_round_alone() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.tell(a=1)
        board.go_on.clear()
        first = poller.interest("a")
        await board.entered.wait()
        second = poller.interest("a")
        board.news["a"] = 2
        board.go_on.set()
        assert [await first, await second] == [1, 2], "it may know more than a question that is older"

    run(story)


@pytest.mark.parametrize("times", [1, 3])
def test_a_question_that_fails_is_asked_again_though_nothing_changes(times: int) -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.tell(a=1)
        board.fails = times
        assert await poller.interest("a") == 1

    assert len(run(story).asked) == times + 1


def test_a_version_that_stays_the_same_is_not_believed_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        waiting = poller.interest("a")
        await settle()
        board.news["a"] = 1  # and nobody says so
        assert await waiting == 1

    monkeypatch.setattr("api.live.poller.DOUBT_S", 0.1)
    assert len(run(story).asked) >= 2


def test_who_is_told_of_a_change_looks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        poller.wake()  # nobody waits: that is no news
        waiting = poller.interest("a")
        await settle()
        board.tell(a=1)
        poller.wake()
        async with asyncio.timeout(5):
            assert await waiting == 1

    monkeypatch.setattr("api.live.poller.TICK_S", 60.0)
    assert len(run(story).asked) == 2


def test_who_lost_interest_is_not_asked_for_again() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        gone, stays = poller.interest("a"), poller.interest("b")
        await settle()
        gone.cancel()
        board.tell(c=1)
        await settle()  # the round that finds it gone
        board.tell(b=1)
        assert await stays == 1

    assert run(story).asked[-1] == ["b"]


def test_a_round_that_took_long_is_followed_by_a_pause_as_long() -> None:
    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.go_on.clear()
        waiting, begun = poller.interest("a"), time.monotonic()
        await board.entered.wait()
        await asyncio.sleep(0.2)
        board.go_on.set()
        board.tell(a=1)
        assert await waiting == 1
        assert time.monotonic() - begun >= 0.4, "half of the time is left to others"

    run(story)


def test_leaving_lets_everybody_go_and_nobody_in() -> None:
    """Whose question is under way, too: a store that hangs must not hold up who was told to stop."""

    async def story(board: Board, poller: "Poller[str, int]") -> None:
        board.go_on.clear()
        asked_for = poller.interest("a")
        await board.entered.wait()
        waits = poller.interest("b")
        poller.leave()
        assert [await asked_for, await waits, await poller.interest("c")] == [None] * 3
        board.go_on.set()

    run(story)
