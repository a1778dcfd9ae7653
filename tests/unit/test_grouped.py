"""Grouped: calls that are wanted at the same time are made as one, and each hears of its own alone."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import StoreUnavailable
from shared.grouped import Grouped
from tests.grouping import at_once
from tests.running import until


class Doubling:
    """Doubles what is asked, notes what it is called with, and raises for what it is to refuse."""

    def __init__(self, refused: dict[int, Exception] | None = None) -> None:
        self.refused = refused or {}
        self.called: list[list[int]] = []
        self.doubled: list[int] = []

    def __call__(self, asked: Sequence[int]) -> list[int]:
        self.called.append([*asked])
        for each in asked:
            if each in self.refused:
                raise self.refused[each]
        self.doubled.extend(asked)
        return [2 * each for each in asked]


def test_a_lone_call_is_made_at_once_and_alone() -> None:
    doubling = Doubling()
    grouped = Grouped(doubling)
    assert [grouped(1), grouped(2)] == [2, 4]
    assert doubling.called == [[1], [2]]


def test_what_is_asked_while_a_call_goes_on_is_made_as_one_and_each_has_its_own_answer(
    gate: threading.Event,
) -> None:
    doubling = Doubling()

    def slow(asked: Sequence[int]) -> list[int]:
        answers = doubling(asked)
        gate.wait()
        return answers

    grouped = Grouped(slow)
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(grouped, 0)
        until(lambda: doubling.called)
        others = [pool.submit(grouped, number) for number in range(1, 5)]
        until(lambda: len(grouped._waiting) == len(others))
        gate.set()
        assert [each.result() for each in (first, *others)] == [0, 2, 4, 6, 8]
    alone, together = doubling.called
    assert (alone, sorted(together)) == ([0], [1, 2, 3, 4])


def test_a_group_is_in_the_order_in_which_it_was_asked() -> None:
    doubling = Doubling()
    grouped = Grouped(doubling)
    made = at_once(grouped, *(partial(grouped, each) for each in (3, 1, 2, 1)))
    assert [each.result() for each in made] == [6, 2, 4, 2]
    assert doubling.called == [[3, 1, 2, 1]]


def test_a_failure_the_registry_names_is_told_to_the_whole_group_and_the_call_is_not_repeated() -> None:
    doubling = Doubling({2: StoreUnavailable("It is away.")})
    grouped = Grouped(doubling)
    made = at_once(grouped, *(partial(grouped, each) for each in (1, 2, 3)))
    for each in made:
        with pytest.raises(StoreUnavailable, match="away"):
            each.result()
    assert doubling.called == [[1, 2, 3]]
    assert grouped(4) == 8


def test_after_anything_else_each_is_asked_alone_and_the_bad_one_alone_hears_of_it() -> None:
    doubling = Doubling({2: ValueError("mine alone")})
    grouped = Grouped(doubling)
    first, bad, last = at_once(grouped, *(partial(grouped, each) for each in (1, 2, 3)))
    assert (first.result(), last.result()) == (2, 6)
    with pytest.raises(ValueError, match="mine alone"):
        bad.result()
    assert doubling.called[0] == [1, 2, 3]
    assert sorted(doubling.called[1:]) == [[1], [2], [3]]
    assert grouped(4) == 8


@pytest.mark.parametrize("answers", [[], [1, 2, 3, 4]])
def test_too_few_answers_or_too_many_keep_nobody_waiting(answers: list[int]) -> None:
    ended: list[int] = []
    grouped: Grouped[int, int] = Grouped(lambda _asked: answers)

    def ask(number: int) -> None:
        try:
            grouped(number)
        except ValueError:
            pass
        finally:
            ended.append(number)

    with grouped._turn:
        for number in range(3):
            threading.Thread(target=ask, args=(number,), daemon=True).start()
        until(lambda: len(grouped._waiting) == 3)
    until(lambda: len(ended) == 3, what="the end of each call")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from([None, ValueError, ZeroDivisionError]), min_size=1, max_size=6))
def test_whoever_else_is_in_the_group_each_has_what_is_its_own(errors: list[type[Exception] | None]) -> None:
    doubling = Doubling({number: error(number) for number, error in enumerate(errors) if error})
    grouped = Grouped(doubling)
    made = at_once(grouped, *(partial(grouped, number) for number in range(len(errors))))
    for number, each in enumerate(made):
        if number in doubling.refused:
            assert each.exception() is doubling.refused[number]
        else:
            assert each.result() == 2 * number
    assert sorted(doubling.doubled) == [number for number, error in enumerate(errors) if not error]


def test_of_many_threads_each_is_answered_once_and_with_its_own_answer() -> None:
    every = range(800)
    doubling = Doubling({number: ValueError(number) for number in every[::50]})
    under_way, met = threading.Lock(), threading.Event()

    def one_at_a_time(asked: Sequence[int]) -> list[int]:
        if len(asked) == 1:
            time.sleep(0.0005)
            return doubling(asked)
        if not under_way.acquire(blocking=False):
            met.set()
            return doubling(asked)
        try:
            time.sleep(0.0005)
            return doubling(asked)
        finally:
            under_way.release()

    grouped = Grouped(one_at_a_time)

    def ask(number: int) -> int | Exception:
        try:
            return grouped(number)
        except ValueError as error:
            return error

    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(ask, every))
    assert answers == [doubling.refused.get(number, 2 * number) for number in every]
    assert sorted(doubling.doubled) == [number for number in every if number not in doubling.refused]
    assert not met.is_set(), "no two groups at the same time"
    assert max(len(each) for each in doubling.called) > 1
