"""However many look at the same time, the store is looked at once; a store that is slow is looked at less often."""

import asyncio
import threading
import time
from collections import Counter
from datetime import UTC, datetime

import pytest

from api.http.counts import RequestCounts
from api.live.monitor import FRESH_S, Monitor, Snapshot
from shared.broker import SILENCE, Reason
from shared.errors import StoreUnavailable
from shared.store.counters import Counters, Key
from shared.store.snapshot import StoreSnapshot, StoreSnapshots
from shared.store.workers import WorkerSeen

NOW = datetime(2026, 1, 15, 8, tzinfo=UTC)
WELL = StoreSnapshot(
    taken_at=NOW,
    queued=0,
    verifying=0,
    all_stalled=0,
    oldest_due_s=None,
    retrying={},
    kept={},
    counters={},
    downloads=[],
    workers=[WorkerSeen("host:1", 8, 0, NOW, NOW, True)],
    swept_at=NOW,
    minutes=[],
    upstreams=[],
    failures=[],
    faults={},
    workers_lost=0,
)


class CountingSnapshots(StoreSnapshots):
    """Counts how often it is looked at; away while *away*."""

    def __init__(self) -> None:
        self.taken = 0
        self.away = False

    def take(self) -> StoreSnapshot:
        self.taken += 1
        if self.away:
            raise StoreUnavailable("The store is away.")
        return WELL


class NoCounters(Counters):
    """Notes what is added."""

    def __init__(self) -> None:
        self.added: Counter[Key] = Counter()
        self.away = False

    def count(self, *, at_most: int = 0) -> int:
        return at_most

    def add(self, counted: object) -> None:
        if self.away:
            raise StoreUnavailable("The store is away.")
        self.added.update(counted)  # type: ignore[call-overload]


@pytest.fixture
def clock() -> list[float]:
    """The sum of these is what a clock says that stands still until the test adds to it."""
    return [1000.0]


def test_fifty_viewers_cost_one_look(clock: list[float]) -> None:
    snapshots = CountingSnapshots()
    monitor = Monitor(snapshots, NoCounters(), RequestCounts(), lambda: 3, clock=lambda: sum(clock))

    async def view() -> Snapshot | None:
        async for seen in monitor.snapshots():
            return seen
        return None

    async def all_of_them() -> list[Snapshot | None]:
        return await asyncio.gather(*(view() for _ in range(50)))

    seen = asyncio.run(all_of_them())
    assert snapshots.taken == 1
    assert len({id(each) for each in seen}) == 1, "and one rendering"
    assert seen[0] is not None
    assert seen[0].messages_waiting == 3


def test_a_broker_that_hangs_is_shown_as_away_and_asked_once() -> None:
    asked, hang = [], threading.Event()

    def waiting() -> int:
        asked.append(1)
        hang.wait()
        return 0

    monitor = Monitor(CountingSnapshots(), NoCounters(), RequestCounts(), waiting)

    async def look_twice() -> list[tuple[int | None, Reason | None]]:
        found = [await monitor.broker(), await monitor.broker()]
        hang.set()
        return found

    assert asyncio.run(look_twice()) == [(None, SILENCE)] * 2
    assert asked == [1]


def test_a_store_that_is_away_is_told_to_each_viewer_and_nothing_counted_is_lost(clock: list[float]) -> None:
    snapshots, counters, answers = CountingSnapshots(), NoCounters(), RequestCounts()
    monitor = Monitor(snapshots, counters, answers, lambda: 0, clock=lambda: sum(clock))

    async def look() -> Snapshot | None:
        async for seen in monitor.snapshots():
            return seen
        return None

    snapshots.away = counters.away = True
    answers.count({"method": "GET"}, 200)
    assert asyncio.run(look()) is None
    snapshots.away = counters.away = False
    assert asyncio.run(look()) is None, "for a second nobody asks again"
    assert snapshots.taken == 1
    clock.append(FRESH_S)
    assert asyncio.run(look()) is not None
    assert sum(counters.added.values()) == 1


def test_a_store_that_hangs_holds_nobody_up_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.live.monitor.STORE_WITHIN_S", 1.0)
    snapshots, hang = CountingSnapshots(), threading.Event()
    monkeypatch.setattr(snapshots, "take", hang.wait)
    monitor = Monitor(snapshots, NoCounters(), RequestCounts(), lambda: 0)

    async def look() -> list[object]:
        found = await asyncio.gather(*(monitor.now() for _ in range(20)), return_exceptions=True)
        hang.set()
        return list(found)

    begun = time.monotonic()
    assert {type(each) for each in asyncio.run(look())} == {StoreUnavailable}
    assert time.monotonic() - begun < 10, "all of them together, not one after the other"


def test_what_nobody_foresaw_does_not_end_the_counting() -> None:
    class Surprising(NoCounters):
        def add(self, counted: object) -> None:
            raise RuntimeError("cannot start a thread")

    answers = RequestCounts()
    answers.count({"method": "GET"}, 200)
    Monitor(CountingSnapshots(), Surprising(), answers, lambda: 0).count_answers()
    assert sum(answers.drain().values()) == 1, "it is counted later"


def test_alerts_are_known_though_nobody_looks_and_though_the_store_is_away(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.live.monitor.LOOK_EVERY_S", 0.01)
    snapshots = CountingSnapshots()
    snapshots.away = True
    monitor = Monitor(snapshots, NoCounters(), RequestCounts(), lambda: 0, clock=lambda: sum(clock))

    async def go_on() -> None:
        running = asyncio.create_task(monitor.run())
        while not monitor.alerts:  # a look may have begun before the clock went on
            clock.append(10.0)
            await asyncio.sleep(0.01)
        assert snapshots.taken > 1
        running.cancel()

    asyncio.run(asyncio.wait_for(go_on(), 60))
    assert [each.name for each in monitor.alerts] == ["store-away"]
