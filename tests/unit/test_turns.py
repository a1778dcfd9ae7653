"""Turns: so many at once, unless they take long."""

import threading
import time

import pytest

from tests.running import until
from worker import turns as module
from worker.turns import Turns


class Clock:
    """A clock that stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_no_more_than_so_many_have_a_turn_while_all_are_quick() -> None:
    turns, now, most = Turns(3, patience_s=30), 0, 0
    counting = threading.Lock()

    def work() -> None:
        nonlocal now, most
        for _ in range(20):
            with turns.turn():
                with counting:
                    now += 1
                    most = max(most, now)
                time.sleep(0.001)
                with counting:
                    now -= 1

    threads = [threading.Thread(target=work) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most == 3


def test_who_takes_long_holds_up_nobody() -> None:
    turns = Turns(2, patience_s=0.05)
    begun: list[int] = []
    ends = threading.Event()

    def slow(number: int) -> None:
        with turns.turn():
            begun.append(number)
            ends.wait()

    threads = [threading.Thread(target=slow, args=(number,)) for number in range(9)]
    for each in threads:
        each.start()
    try:
        until(lambda: len(begun) == len(threads), what="all of them under way, none of them done")
    finally:
        ends.set()
    for each in threads:
        each.join()
    with turns.turn(), turns.turn():
        pass  # those that lapsed and then ended have kept nothing


def test_those_that_lapsed_make_room_for_no_more_than_so_many(clock: Clock) -> None:
    turns = Turns(1, patience_s=30)
    begun: list[str] = []

    def next_one() -> None:
        with turns.turn():
            begun.append("next")

    with turns.turn():
        clock.now += 31
        with turns.turn():
            thread = threading.Thread(target=next_one)
            thread.start()
            time.sleep(0.05)
            assert begun == []
        thread.join()
    assert begun == ["next"]


def test_a_turn_that_ends_is_somebody_elses_at_once() -> None:
    turns = Turns(1, patience_s=30)
    ended: list[str] = []

    def next_one() -> None:
        with turns.turn():
            ended.append("next")

    with turns.turn():
        thread = threading.Thread(target=next_one)
        thread.start()
        time.sleep(0.05)
        assert ended == []
    thread.join()
    assert ended == ["next"]


def test_a_turn_ends_with_its_block_whatever_happens_there() -> None:
    turns = Turns(1, patience_s=30)
    for _ in range(3):
        try:
            with turns.turn():
                raise ZeroDivisionError  # noqa: TRY301
        except ZeroDivisionError:
            pass
