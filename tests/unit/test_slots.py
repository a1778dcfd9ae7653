"""Slots of what is connected to: bounded for each target, moved from hop to hop, never lost."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.egress import Egress, Target
from worker.slots import Busy, Slot, Slots

HERE, THERE = Target("https", "here.example", 443), Target("https", "there.example", 443)
LONG_S = 60.0
_OPEN = Egress(frozenset({"http", "https"}), (range(1, 65536),))


def run(work: Callable[[], Coroutine[None, None, None]]) -> None:
    asyncio.run(work())


@pytest.mark.parametrize(
    "spellings",
    [
        ["http://h.example:8123/", "http://h.example:08123/a", "http://h.example.:8123/", "http://H.EXAMPLE:8123"],
        ["https://h.example/", "https://h.example:443/", "http://h.example:443/"],
        ["http://[2606:4700::1]:80/", "http://[2606:4700:0:0::1]/"],
    ],
)
def test_every_spelling_of_a_target_has_the_same_slots(spellings: list[str]) -> None:
    slots = Slots(len(spellings))
    for url in spellings:
        target = _OPEN.check_url(url)
        assert slots.free(target)
        slots.take(target)
    assert not any(slots.free(_OPEN.check_url(url)) for url in spellings)


def test_a_slot_that_is_given_back_is_told() -> None:
    told: list[bool] = []
    slots = Slots(1, lambda: told.append(slots.free(HERE)))
    slot = slots.take(HERE)
    assert not slots.free(HERE)
    slot.leave()
    slot.leave()
    assert told == [True]
    assert slots.taken == 0


def test_a_redirect_moves_the_slot() -> None:
    async def story() -> None:
        slots = Slots(1)
        slot = slots.take(HERE)
        await slot.move(HERE)
        await slot.move(THERE)
        assert (slots.free(HERE), slots.free(THERE)) == (True, False)

    run(story)


def test_a_redirect_waits_for_a_slot_and_is_served_before_who_has_not_begun() -> None:
    async def story() -> None:
        freed: list[None] = []
        slots = Slots(1, lambda: freed.append(None))
        first, second = slots.take(HERE), slots.take(THERE)
        await second.move(THERE)
        moving = asyncio.create_task(second.move(HERE, patience_s=LONG_S))
        await asyncio.sleep(0)
        freed.clear()
        first.leave()
        assert not slots.free(HERE), "it went from hand to hand"
        await moving
        assert freed == []
        second.leave()
        assert slots.taken == 0

    run(story)


def test_a_redirect_to_where_nothing_is_free_says_where() -> None:
    async def story() -> None:
        slots = Slots(1)
        slots.take(HERE)
        slot = slots.take(THERE)
        await slot.move(THERE)
        with pytest.raises(Busy) as busy:
            await slot.move(HERE, patience_s=0.01)
        assert busy.value.target == HERE
        assert slots.taken == 1
        slot.leave()
        assert slots.taken == 1
        assert not slots._waiting

    run(story)


def test_who_is_cut_off_while_waiting_takes_no_slot_along() -> None:
    async def story() -> None:
        for given_meanwhile in (False, True):
            slots = Slots(1)
            first, second = slots.take(HERE), slots.take(THERE)
            moving = asyncio.create_task(second.move(HERE, patience_s=LONG_S))
            await asyncio.sleep(0)
            if given_meanwhile:
                first.leave()
            moving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await moving
            first.leave()
            second.leave()
            assert slots.taken == 0
            assert not slots._waiting

    run(story)


def test_who_is_known_to_be_led_somewhere_keeps_a_slot_of_that_while_it_asks_the_first() -> None:
    async def story() -> None:
        slots = Slots(1)
        slot = slots.take(THERE)
        await slot.move(HERE)
        assert (slots.free(HERE), slots.free(THERE)) == (False, False)
        await slot.move(THERE)
        assert (slots.free(HERE), slots.free(THERE)) == (True, False)
        slot.leave()
        assert slots.taken == 0
        slot = slots.take(THERE)
        await slot.move(HERE)
        slot.leave()
        assert slots.taken == 0, "it was not led there this time"

    run(story)


def test_no_more_wait_for_a_target_than_may_download_from_it() -> None:
    async def story() -> None:
        slots = Slots(2)
        for _ in range(2):
            slots.take(HERE)
        others = [slots.take(Target("https", f"h{n}.example", 443)) for n in range(5)]
        moving = [asyncio.create_task(each.move(HERE, patience_s=LONG_S)) for each in others]
        for _turn in range(3):
            await asyncio.sleep(0)
        assert [each.done() for each in moving] == [False, False, True, True, True]
        assert all(isinstance(each.exception(), Busy) for each in moving[2:])
        for each in moving:
            each.cancel()
        await asyncio.gather(*moving, return_exceptions=True)

    run(story)


class Five:
    """Five who take, move, are cut off or leave; each target has two slots."""

    def __init__(self) -> None:
        self.slots = Slots(2)
        self.held: dict[int, Slot] = {}
        self.moving: dict[int, asyncio.Task[None]] = {}

    def take(self, who: int, target: Target) -> None:
        if who not in self.held and self.slots.free(target):
            self.held[who] = self.slots.take(target)

    def move(self, who: int, target: Target) -> None:
        if who in self.held and who not in self.moving:
            self.moving[who] = asyncio.create_task(self.held[who].move(target, patience_s=LONG_S))

    def cut(self, who: int, _target: Target) -> None:
        if who in self.moving:
            self.moving[who].cancel()

    def leave(self, who: int, _target: Target) -> None:
        if who in self.held and who not in self.moving:
            self.held.pop(who).leave()

    async def settled(self) -> None:
        for _turn in range(3):
            await asyncio.sleep(0)
        for each in [each for each, task in self.moving.items() if task.done()]:
            del self.moving[each]
        really = Counter(each for it in self.held.values() for each in (it._held, it._reserve) if each)
        assert all(count <= 2 for count in really.values())
        assert self.slots.taken >= really.total()

    async def end(self) -> None:
        for task in self.moving.values():
            task.cancel()
        await asyncio.gather(*self.moving.values(), return_exceptions=True)
        for slot in self.held.values():
            slot.leave()
        assert self.slots.taken == 0
        assert not self.slots._waiting


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["take", "move", "cut", "leave"]), st.booleans())))
def test_no_slot_is_lost_or_given_twice(steps: list[tuple[int, str, bool]]) -> None:
    async def story() -> None:
        five = Five()
        for who, what, here in steps:
            getattr(five, what)(who, HERE if here else THERE)
            await five.settled()
        await five.end()

    run(story)
