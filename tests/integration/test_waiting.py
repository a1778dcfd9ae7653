"""Waiting and taking in: one surprise ends neither loop, and nobody waits for ever."""

import asyncio
import threading
from collections.abc import Iterable, Sequence

import pytest

from api.live.outcomes import Outcomes
from api.live.submissions import Submissions
from shared.errors import StoreUnavailable
from shared.registration import Accepted, Outcome, RegistrationId, Settled, Submission
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import WRONG, claim, reject, submit
from tests.fakes import FakeBell
from tests.running import PATIENCE_S


class Surprising(Store):
    """A store that fails in a way nobody foresaw, as often as *surprises* says."""

    surprises = 1

    def settled(self, registration_ids: Iterable[RegistrationId]) -> list[Settled]:
        self._surprise()
        return super().settled(registration_ids)

    def submit(
        self, submissions: Sequence[tuple[Submission, str]], *, traces: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        self._surprise()
        return super().submit(submissions)

    def _surprise(self) -> None:
        if self.surprises:
            self.surprises -= 1
            raise RuntimeError("cannot start a thread")


@pytest.fixture
def surprising(store: Store) -> Surprising:
    return Surprising(store.database)


def test_a_surprise_while_looking_does_not_end_the_waiting(surprising: Surprising, store: Store) -> None:
    registration = submit(store, a_parsed_submission())
    reject(store, claim(store, registration), WRONG)

    async def wait() -> Settled | None:
        outcomes = Outcomes(surprising, int)
        running = asyncio.create_task(outcomes.run())
        try:
            return await outcomes.wait(registration.id, 60)
        finally:
            running.cancel()

    settled = asyncio.run(wait())
    assert settled is not None
    assert settled.registration.id == registration.id


def test_a_surprise_while_committing_is_told_to_its_group_alone(surprising: Surprising) -> None:
    bell = FakeBell()

    async def take_two() -> Outcome:
        submissions = Submissions(surprising, bell)
        with pytest.raises(RuntimeError):
            await submissions.submit(a_parsed_submission(), "tests")
        return await submissions.submit(a_parsed_submission(), "tests")

    taken = asyncio.run(take_two())
    assert isinstance(taken, Accepted)
    assert bell.rung == [[taken.registration.id]]


class Held(Store):
    """A store that takes nothing until it is let go."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.database)
        self.entered, self.free = threading.Event(), threading.Event()

    def submit(
        self, submissions: Sequence[tuple[Submission, str]], *, traces: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        self.entered.set()
        assert self.free.wait(PATIENCE_S)
        return super().submit(submissions, traces=traces)


def test_what_the_store_does_not_take_in_time_is_given_up(store: Store) -> None:
    held, bell = Held(store), FakeBell()
    first, late, last = (a_parsed_submission(name=name) for name in ("first", "late", "last"))

    async def take() -> None:
        submissions = Submissions(held, bell, within_s=0.1)
        under_way = asyncio.create_task(submissions.submit(first, "tests"))
        await asyncio.to_thread(held.entered.wait)
        with pytest.raises(StoreUnavailable):
            await submissions.submit(late, "tests")
        with pytest.raises(StoreUnavailable):
            await under_way
        held.free.set()
        await submissions.submit(last, "tests")

    asyncio.run(take())
    names = {each.submission.name for each in store.registrations(limit=10)}
    assert names == {"first", "last"}, "of what was told 503, that alone is stored which was under way"
    assert len(bell.rung) == 2, "and rung for"


def test_who_would_be_one_too_many_is_told_to_come_again(store: Store) -> None:
    held = Held(store)

    async def take() -> None:
        submissions = Submissions(held, FakeBell(), max_waiting=1)
        under_way = asyncio.create_task(submissions.submit(a_parsed_submission(name="first"), "tests"))
        await asyncio.to_thread(held.entered.wait)
        waiting = asyncio.create_task(submissions.submit(a_parsed_submission(name="second"), "tests"))
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="Too many"):
            await submissions.submit(a_parsed_submission(name="third"), "tests")
        held.free.set()
        await asyncio.gather(under_way, waiting)

    asyncio.run(take())


def test_waiting_ends_when_the_process_is_told_to_stop(store: Store) -> None:
    registration = submit(store, a_parsed_submission())

    async def wait() -> list[Settled | None]:
        outcomes = Outcomes(store, int)
        running = asyncio.create_task(outcomes.run())
        waiting = [asyncio.create_task(outcomes.wait(registration.id, 60)) for _ in range(3)]
        await asyncio.sleep(0.05)
        outcomes.leave()
        answers = await asyncio.gather(*waiting)
        running.cancel()
        return [*answers, await outcomes.wait(registration.id, 60)]

    assert asyncio.run(wait()) == [None] * 4
