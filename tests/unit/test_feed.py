"""The feed for those who follow it: one question to the store serves all, in order, whoever comes when."""

import asyncio
import json
import threading
from collections.abc import Sequence
from typing import Any, cast

from api.live.feed import KEPT, Feed
from shared.store.counters import Counters
from shared.store.events import Event, EventPage, Events, Moved

FOLLOWERS = 1000


class Told:
    """A store's feed, and how often it was asked."""

    def __init__(self, number: int = 0) -> None:
        self.events = [self._event(seq) for seq in range(1, number + 1)]
        self.asked = 0
        self.oldest = 1
        self.all_counted = True

    @staticmethod
    def _event(seq: int) -> Event:
        return Event(seq, "registration.registered", "odd" if seq % 2 else "even", json.dumps({"seq": seq}))

    def more(self, number: int = 1) -> None:
        self.events += [self._event(len(self.events) + 1 + each) for each in range(number)]

    def newest(self) -> int:
        return len(self.events)

    def after(self, seq: int | None, *, limit: int, names: Sequence[str] = ()) -> EventPage:
        self.asked += 1
        seq = self.oldest - 1 if seq is None else seq
        if not self.oldest - 1 <= seq <= len(self.events):
            raise Moved(self.oldest, len(self.events))
        window = self.events[seq : seq + limit]
        found = [each for each in window if not names or each.name_key in names]
        return EventPage(found, window[-1].seq if window else seq, len(self.events))


def a_feed(told: Told) -> Feed:
    return Feed(cast("Events", told), cast("Counters", told), lambda: len(told.events))


async def read(feed: Feed, after: int, number: int, names: Sequence[str] = ()) -> list[int]:
    seqs: list[int] = []
    async for page in feed.follow(after, names):
        seqs += [each.seq for each in page.events]
        if len(seqs) >= number:
            break
    return seqs[:number]


def test_a_thousand_that_follow_cost_one_question() -> None:
    async def all_of_them() -> None:
        told = Told(3)
        feed = a_feed(told)
        running = asyncio.create_task(feed.run())
        following = [asyncio.create_task(read(feed, 3, 2)) for _ in range(FOLLOWERS)]
        await asyncio.sleep(0.5)
        before = told.asked
        told.more(2)
        found = await asyncio.wait_for(asyncio.gather(*following), 60)
        assert found == [[4, 5]] * FOLLOWERS
        assert told.asked - before <= 5
        running.cancel()
        feed.close()

    asyncio.run(all_of_them())


def test_whoever_comes_when_reads_all_in_order_and_those_of_its_names() -> None:
    async def some() -> None:
        told = Told(10)
        feed = a_feed(told)
        running = asyncio.create_task(feed.run())
        early = asyncio.create_task(read(feed, 0, 3000))
        even = asyncio.create_task(read(feed, 0, 1500, ["even"]))
        for _ in range(30):
            told.more(100)
            await asyncio.sleep(0.02)
        late = asyncio.create_task(read(feed, 2500, 500))
        behind = asyncio.create_task(read(feed, 0, 3000))
        assert await asyncio.wait_for(early, 60) == list(range(1, 3001))
        assert await asyncio.wait_for(even, 60) == list(range(2, 3001, 2))
        assert await asyncio.wait_for(late, 60) == list(range(2501, 3001))
        assert await asyncio.wait_for(behind, 60) == list(range(1, 3001)), "who is far behind is told by the store"
        assert len(feed._kept) <= 2 * KEPT
        running.cancel()
        feed.close()

    asyncio.run(some())


def test_who_comes_while_a_round_is_under_way_sleeps_past_nothing() -> None:
    """The event is known by the end of a round that did not ask for this follower."""

    async def some() -> None:
        told = Told(10)
        feed = a_feed(told)
        running = asyncio.create_task(feed.run())
        first = asyncio.create_task(read(feed, 10, 1))
        await asyncio.sleep(0.3)
        entered, go_on = asyncio.Event(), threading.Event()
        loop, after = asyncio.get_running_loop(), told.after

        def slowly(*arguments: Any, **options: Any) -> EventPage:
            loop.call_soon_threadsafe(entered.set)
            assert go_on.wait(60)
            return after(*arguments, **options)

        told.after = slowly  # type: ignore[method-assign]
        told.more()
        await entered.wait()
        second = asyncio.create_task(read(feed, 10, 1))
        await asyncio.sleep(0.2)
        told.after = after  # type: ignore[method-assign]
        go_on.set()
        assert await asyncio.wait_for(first, 60) == [11]
        assert await asyncio.wait_for(second, 5) == [11], "before another event comes"
        running.cancel()
        feed.close()

    asyncio.run(some())


def test_after_a_time_without_followers_the_store_is_asked_once_for_where_it_is() -> None:
    async def some() -> None:
        told = Told(1)
        feed = a_feed(told)
        running = asyncio.create_task(feed.run())
        first = asyncio.create_task(read(feed, 1, 1))
        await asyncio.sleep(0.3)
        told.more()
        assert await asyncio.wait_for(first, 60) == [2]
        told.more(50_000)
        followers = [asyncio.create_task(read(feed, 50_002, 1)) for _ in range(100)]
        await asyncio.sleep(0.5)
        asked = told.asked
        told.more()
        assert await asyncio.wait_for(asyncio.gather(*followers), 60) == [[50_003]] * 100
        assert told.asked - asked <= 5
        running.cancel()
        feed.close()

    asyncio.run(some())


def test_who_can_not_go_on_is_let_go_and_the_others_are_not() -> None:
    async def some() -> None:
        told = Told(5)
        feed = a_feed(told)
        running = asyncio.create_task(feed.run())
        with_newest = asyncio.create_task(read(feed, 5, 1))
        await asyncio.sleep(0.3)
        told.events, told.oldest = told.events[:2], 1  # another store was put in this one's place
        assert await asyncio.wait_for(with_newest, 60) == []
        fresh = asyncio.create_task(read(feed, 2, 1))
        await asyncio.sleep(0.3)
        told.more()
        assert await asyncio.wait_for(fresh, 60) == [3]
        feed.leave()
        assert await asyncio.wait_for(read(feed, 3, 1), 60) == [], "we are told to stop"
        running.cancel()
        feed.close()

    asyncio.run(some())
