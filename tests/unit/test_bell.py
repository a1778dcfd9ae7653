"""The bell: rung at once while that is seldom; under load the ids gather, and none is lost or rung for twice."""

import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import pytest

from api.live.bell import Bell
from shared.registration import RegistrationId
from tests.running import until

Rung = list[list[RegistrationId]]


@pytest.fixture
def rung() -> Rung:
    return []


@pytest.fixture
def ids() -> Iterator[RegistrationId]:
    return (RegistrationId(f"registration-{number}") for number in count())


class HeldClock:
    """A clock that stands still, but for pauses, which end when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []
        self.pause_over = threading.Semaphore(0)

    def sleep(self, seconds: float) -> None:
        if seconds > 0:
            self.pauses.append(seconds)
            self.pause_over.acquire()
            self.now += seconds


@pytest.fixture
def clock() -> Iterator[HeldClock]:
    clock = HeldClock()
    yield clock
    clock.pause_over.release(1000)


@pytest.fixture
def bell(rung: Rung, clock: HeldClock) -> Bell:
    bell = Bell(lambda ids: rung.append([*ids]), a_second=8, at_once=4, clock=lambda: clock.now, sleep=clock.sleep)
    bell.start()
    return bell


def ring_one_by_one(bell: Bell, rung: Rung, ids: Sequence[RegistrationId]) -> None:
    for number, each in enumerate(ids, len(rung) + 1):
        bell.ring([each])
        until(partial(has, rung, number), what=f"the bell for {each}")


def has(rung: Rung, number: int) -> bool:
    return len(rung) >= number


def test_the_first_bells_are_rung_at_once(
    clock: HeldClock, bell: Bell, rung: Rung, ids: Iterator[RegistrationId]
) -> None:
    some = [next(ids) for _ in range(4)]
    ring_one_by_one(bell, rung, some)
    assert rung == [[each] for each in some]
    assert clock.pauses == []


def test_those_that_follow_gather_for_one_bell(
    clock: HeldClock, bell: Bell, rung: Rung, ids: Iterator[RegistrationId]
) -> None:
    def is_at_once(number: int) -> bool:
        bell.ring([RegistrationId(f"first-{number}")])
        until(lambda: len(rung) > number or clock.pauses, what="a bell, or the pause before it")
        return not clock.pauses

    before = next(number for number in range(20) if not is_at_once(number))
    gathered = [next(ids) for _ in range(1000)]
    for each in gathered:
        bell.ring([each])
    assert len(rung) == before
    clock.pause_over.release()
    until(lambda: len(rung) > before, what="the bell after the pause")
    assert rung[before:] == [[f"first-{before}", *gathered]]


def test_under_load_the_bells_keep_their_distance(
    clock: HeldClock, bell: Bell, rung: Rung, ids: Iterator[RegistrationId]
) -> None:
    clock.pause_over.release(20)
    ring_one_by_one(bell, rung, [next(ids) for _ in range(20)])
    assert len(clock.pauses) >= 15
    assert set(clock.pauses) == {1 / 8}


def test_after_a_rest_bells_are_rung_at_once_again(
    clock: HeldClock, bell: Bell, rung: Rung, ids: Iterator[RegistrationId]
) -> None:
    ring_one_by_one(bell, rung, [next(ids) for _ in range(4)])
    clock.now += 1
    ring_one_by_one(bell, rung, [next(ids) for _ in range(4)])
    assert clock.pauses == []


def test_a_burst_rings_few_bells_and_for_each_id_once_and_in_order(rung: Rung, ids: Iterator[RegistrationId]) -> None:
    bell = Bell(lambda ids: rung.append([*ids]), a_second=4, at_once=2)
    bell.start()
    burst = [next(ids) for _ in range(500)]
    for each in burst:
        bell.ring([each])
        time.sleep(0.0005)
    until(lambda: sum(map(len, rung)) >= len(burst), what="a bell for each")
    assert [each for ids in rung for each in ids] == burst
    assert len(rung) < len(burst) / 5
