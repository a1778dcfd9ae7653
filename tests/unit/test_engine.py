"""Every order of events an engine may meet, drawn by Hypothesis: a clock of its own, a fake wire, a fake store.

No attempt is settled twice or forgotten, no place or slot leaks, no task is left, and leaving takes no time.
"""

import asyncio
import math
import selectors
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any
from unittest.mock import patch

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from shared.egress import Egress
from shared.errors import DigestMismatch, Shortage, StoreUnavailable, Truncated
from shared.registration import Claim, Digest, Progress, RegistrationId, Settlement, Status, Waiting
from tests.conftest import a_parsed_submission
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.engine import YOUNG_S, Engine
from worker.retry import RetryPolicy
from worker.room import Room
from worker.slots import Slot
from worker.verify import Verifier

DOWNLOADS, EACH_TARGET, LEASE_S, DEADLINE_S = 4, 2, 20.0, 60.0
BODY = b"x" * 10
HOSTS = ("one.example.com", "two.example.com", "three.example.com")
EGRESS = Egress()
ROOM = 8
LUCK = st.integers(0, 9)


class _NoSelector(selectors.SelectSelector):
    """Nothing ever arrives: all there is are timers."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return []


class Clock(asyncio.SelectorEventLoop):
    """A loop whose time passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_NoSelector())

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Run until nobody has anything to do at this moment."""
        for _turn in range(200):
            self.call_soon(self.stop)
            self.run_forever()
            if not self._ready:  # type: ignore[attr-defined]  # of asyncio's own
                return
        raise AssertionError("it does not come to rest")

    def pass_by(self, seconds: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now + seconds
        self.settle()
        while (timers := self._scheduled) and min(timers).when() <= until:  # type: ignore[attr-defined]
            self.now = max(self.now, min(timers).when())
            self.settle()
        self.now = until
        self.settle()


class FakeStore:
    """A store that can be away, and what became of each registration in it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.away = False
        self.urls: dict[RegistrationId, str] = {}
        self.by: dict[RegistrationId, str] = {}
        self.epochs: Counter[RegistrationId] = Counter()
        self.status: dict[RegistrationId, Status] = {}
        self.lease_ends: dict[RegistrationId, float] = {}
        self.due: dict[RegistrationId, float] = {}
        self.settled: list[tuple[RegistrationId, int, Status]] = []
        self.claimed_at: dict[RegistrationId, float] = {}
        self.youngest_renewed_s = math.inf

    async def _answer(self) -> None:
        await asyncio.sleep(0.001)
        if self.away:
            raise StoreUnavailable("It is away.")

    def _is_due(self, id_: RegistrationId) -> bool:
        return (self.status[id_] is Status.QUEUED and self.due[id_] <= self.clock.now) or (
            self.status[id_] is Status.VERIFYING and self.lease_ends[id_] <= self.clock.now
        )

    async def look(self, registration_ids: Iterable[RegistrationId]) -> list[Waiting]:
        await self._answer()
        return [Waiting(each, self.urls[each], self.by[each]) for each in registration_ids if self._is_due(each)]

    async def claim(self, registration_id: RegistrationId) -> Claim | None:
        await self._answer()
        if not self._is_due(registration_id):
            return None
        self.epochs[registration_id] += 1
        self.claimed_at[registration_id] = self.clock.now
        self.status[registration_id] = Status.VERIFYING
        self.lease_ends[registration_id] = self.clock.now + LEASE_S
        submission = a_parsed_submission(artifactUrl=self.urls[registration_id])
        return Claim(registration_id, self.epochs[registration_id], 1, submission, None, self.by[registration_id])

    def is_live(self, registration_id: RegistrationId, epoch: int) -> bool:
        return self.status[registration_id] is Status.VERIFYING and self.epochs[registration_id] == epoch

    async def renew(self, progress: Progress) -> bool:
        self.youngest_renewed_s = min(
            self.youngest_renewed_s, self.clock.now - self.claimed_at[progress.registration_id]
        )
        await self._answer()
        ours = self.is_live(progress.registration_id, progress.epoch)
        if ours:
            self.lease_ends[progress.registration_id] = self.clock.now + LEASE_S
        return ours

    async def settle(self, settlement: Settlement) -> Status | None:
        await self._answer()
        claim = settlement.claim
        if not self.is_live(claim.registration_id, claim.epoch):
            return None
        self.status[claim.registration_id] = settlement.status
        self.due[claim.registration_id] = self.clock.now + (settlement.due_in_s or 0)
        self.settled.append((claim.registration_id, claim.epoch, settlement.status))
        return settlement.status

    async def versions(self, name: str) -> Mapping[str, str]:
        await self._answer()
        return {}


class FakeWire:
    """Downloads that stall until they are told how to go on."""

    def __init__(self) -> None:
        self.stalled: dict[RegistrationId, asyncio.Future[str]] = {}
        self.connected: Counter[str] = Counter()

    async def __call__(self, url: str, attempt: Attempt, slot: Slot, intake: Intake, /) -> None:
        target = EGRESS.check_url(url)
        await slot.move(target)
        id_ = attempt.claim.registration_id
        while True:
            self.connected[target.host] += 1
            assert self.connected[target.host] <= EACH_TARGET, "a slot for each that is connected to (invariant 15)"
            self.stalled[id_] = asyncio.get_running_loop().create_future()
            try:
                told = await self.stalled[id_]
            finally:
                self.connected[target.host] -= 1
                del self.stalled[id_]
            if not told.startswith("redirect "):
                break
            target = EGRESS.check_url(f"https://{told.removeprefix('redirect ')}/")
            await slot.move(target)
        if told == "break":
            raise Truncated("It broke.")
        if told == "short":
            raise Shortage("Too little.")
        if told == "surprise":
            raise ZeroDivisionError
        intake.take(BODY if told == "finish" else b"other")


async def unexplained(
    _claim: Claim, _computed: Digest, _intake: Intake, _versions: Mapping[str, str]
) -> DigestMismatch:
    await asyncio.sleep(0.01)
    return DigestMismatch("They differ.")


class Machine(RuleBasedStateMachine):
    """Bells, hosts, operators, a store and a worker that leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self._patched: list[Any] = [
            patch("time.monotonic", self.clock.time),
            patch("tests.conftest.a_submission", _submission),
            patch("worker.engine.Room", partial(Room, ROOM)),
        ]
        for each in self._patched:
            each.start()
        self.store = FakeStore(self.clock)
        self.wire = FakeWire()
        self.left = False
        self.engine = self.clock.run_until_complete(self._engine())

    async def _engine(self) -> Engine:
        verifier = Verifier(
            keeper=self.store,
            fetch=self.wire,
            explain=unexplained,
            retry=RetryPolicy(5, 2, 300),
            max_bytes=100,
        )
        return Engine(
            self.store,
            verifier,
            EGRESS,
            downloads=DOWNLOADS,
            downloads_each_target=EACH_TARGET,
            lease_s=LEASE_S,
            deadline_s=DEADLINE_S,
        )

    @rule(hosts=st.lists(st.tuples(st.sampled_from(HOSTS), st.sampled_from("ab")), min_size=1, max_size=6))
    def submit(self, hosts: list[tuple[str, str]]) -> None:
        ids = []
        for host, by in hosts:
            id_ = RegistrationId(f"registration-{len(self.store.status)}")
            self.store.urls[id_], self.store.by[id_] = f"https://{host}/{id_}", by
            self.store.status[id_], self.store.due[id_] = Status.QUEUED, self.clock.now
            ids.append(id_)
        self._ring(ids)

    @rule(times=st.integers(1, 3))
    def sweep(self, times: int) -> None:
        """Ring for all that is in flight, a few times at once: bells are doubled."""
        for _ in range(times):
            self.clock.create_task(self.engine.offer([*self._in_flight()]))
        self.clock.settle()

    def _in_flight(self) -> list[RegistrationId]:
        return [id_ for id_, status in self.store.status.items() if not status.final]

    def _ring(self, ids: list[RegistrationId]) -> None:
        self.clock.create_task(self.engine.offer(ids))
        self.clock.settle()

    @rule(
        which=st.integers(0, 9),
        how=st.sampled_from(
            ["finish", "finish", "differ", "break", "short", "surprise", *(f"redirect {h}" for h in HOSTS)]
        ),
    )
    def go_on(self, which: int, how: str) -> None:
        stalled = [each for each in self.wire.stalled.values() if not each.done()]
        if stalled:
            stalled[which % len(stalled)].set_result(how)
            self.clock.settle()

    @rule(seconds=st.sampled_from([0.0005, 0.001, 0.01, 1, 3, 3, 5, 30, 100]))
    def pass_by(self, seconds: float) -> None:
        self.clock.pass_by(seconds)
        if seconds >= 3 and not self.store.away:
            assert all(self.store.status[each] is Status.VERIFYING for each in self.wire.stalled), (
                "it was told to stop"
            )

    @rule(host=st.sampled_from(HOSTS), luck=LUCK)
    def leave_in_the_middle_of_a_claim(self, host: str, luck: int) -> None:
        self.submit([(host, "a")])
        self.clock.pass_by(0.001)
        self.leave(luck)

    @rule(which=st.integers(0, 9))
    def cancel(self, which: int) -> None:
        """An operator ends one; its worker finds out when it renews."""
        live = [id_ for id_, status in self.store.status.items() if status is Status.VERIFYING]
        if live:
            self.store.status[live[which % len(live)]] = Status.CANCELED

    @rule(which=st.integers(0, 9))
    def lose(self, which: int) -> None:
        """Another worker has it now."""
        live = [id_ for id_, status in self.store.status.items() if status is Status.VERIFYING]
        if live:
            lost = live[which % len(live)]
            self.store.epochs[lost] += 1
            self.store.lease_ends[lost] = self.clock.now + LEASE_S

    @rule(away=st.sampled_from([False, False, True]))
    def store_goes_or_comes(self, away: bool) -> None:
        self.store.away = away

    @rule(luck=LUCK)
    def leave(self, luck: int) -> None:
        """Leave, seldom: nothing happens any more after that."""
        if luck != 7:
            return
        self.engine.begin_no_more()
        leaving = self.clock.create_task(self.engine.leave())
        self.clock.settle()
        if not self.store.away:
            self.clock.pass_by(0.9)
            assert leaving.done(), "leaving takes less than a second"
            assert not self.engine._tasks
            assert not self.wire.stalled
        self.left = True

    @invariant()
    def no_place_or_slot_is_given_twice(self) -> None:
        assert len(self.engine._tasks) <= DOWNLOADS
        assert self.engine._live.keys() <= self.engine._tasks.keys()
        assert self.engine._slots.taken <= 2 * len(self.engine._tasks), "one in reserve on the way there"
        assert not set(self.engine._room) & self.engine._tasks.keys()

    @invariant()
    def nobody_waits_who_may_begin(self) -> None:
        if not self.engine._leaving and len(self.engine._tasks) < DOWNLOADS:
            targets = {target for lines in self.engine._room._lines.values() for target in lines}
            assert not any(self.engine._has_slot(each) for each in targets)

    @invariant()
    def what_is_young_is_not_renewed(self) -> None:
        assert self.store.youngest_renewed_s > YOUNG_S - 0.01, "to the answer's millisecond"

    @invariant()
    def nobody_downloads_beyond_its_lease(self) -> None:
        for id_ in self.wire.stalled:
            assert self.engine._live[id_].lease_ends >= self.clock.now

    @invariant()
    def nothing_is_settled_twice(self) -> None:
        most = Counter((id_, epoch) for id_, epoch, _ in self.store.settled).most_common(1)
        assert not most or most[0][1] == 1
        ended = Counter(id_ for id_, _, status in self.store.settled if status.final)
        assert all(count == 1 for count in ended.values())

    def teardown(self) -> None:
        try:
            self._once_faults_stop()
        finally:
            for each in self._patched:
                each.stop()
            self.engine._renewing.cancel()
            with suppress(asyncio.CancelledError):
                self.clock.run_until_complete(self.engine._renewing)
            self.clock.close()

    def _once_faults_stop(self) -> None:
        """Everything ends, and nothing is left behind. Who has left has forgotten nothing that the store holds."""
        self.store.away = False
        self.clock.pass_by(DEADLINE_S + LEASE_S)
        if not self.left:
            for _round in range(60):
                self._ring(self._in_flight())
                self.clock.pass_by(10)
                for each in list(self.wire.stalled.values()):
                    each.set_result("finish")
                self.clock.pass_by(10)
            assert all(status.final for status in self.store.status.values()), "nothing is forgotten"
        assert not self.engine._tasks
        assert not self.engine._live
        assert len(self.engine._room) == 0
        assert self.engine._slots.taken == 0
        assert not self.engine._slots._waiting
        assert not self.wire.stalled
        tasks = asyncio.all_tasks(self.clock) - {self.engine._renewing}
        assert not tasks, tasks


def _submission(**changes: str) -> dict[str, str]:
    """Return what `a_submission` does, declaring BODY."""
    digest = Intake(max_bytes=100)
    digest.take(BODY)
    return {
        "name": "plugin",
        "version": "1.0.0",
        "pluginType": "log",
        "checksum": digest.digest().checksum,
        **changes,
    }


def test_the_engine_keeps_its_promises_whatever_happens() -> None:
    patient = settings(
        max_examples=150,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    run_state_machine_as_test(Machine, settings=patient)
