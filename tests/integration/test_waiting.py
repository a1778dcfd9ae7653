"""Waiting and taking in: one surprise ends neither loop, and nobody waits for ever."""

import asyncio
from collections.abc import Iterable, Sequence

import pytest

from api.live import submissions as intake_module
from api.live.outcomes import Outcomes
from api.live.submissions import Submissions
from shared.errors import StoreUnavailable
from shared.registration import Accepted, Outcome, Registration, RegistrationId, Submission
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import WRONG, claim, reject, submit
from tests.fakes import FakeBell


class Surprising(Store):
    """A store that fails in a way nobody foresaw, as often as *surprises* says."""

    surprises = 1

    def settled(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
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
    return Surprising(store._database)


def test_a_surprise_while_looking_does_not_end_the_waiting(surprising: Surprising, store: Store) -> None:
    registration = submit(store, a_parsed_submission())
    reject(store, claim(store, registration), WRONG)

    async def wait() -> Registration | None:
        outcomes = Outcomes(surprising)
        running = asyncio.create_task(outcomes.run())
        try:
            return await outcomes.wait(registration.id, 60)
        finally:
            running.cancel()

    settled = asyncio.run(wait())
    assert settled is not None
    assert settled.id == registration.id


def test_a_surprise_while_committing_is_told_to_its_group_alone(surprising: Surprising) -> None:
    bell = FakeBell()

    async def take_two() -> Outcome:
        intake = Submissions(surprising, bell)
        running = asyncio.create_task(intake.run())
        try:
            with pytest.raises(RuntimeError):
                await intake.submit(a_parsed_submission(), "tests")
            return await intake.submit(a_parsed_submission(), "tests")
        finally:
            running.cancel()

    taken = asyncio.run(take_two())
    assert isinstance(taken, Accepted)
    assert bell.rung == [[taken.registration.id]]


def test_what_the_store_does_not_take_in_time_is_given_up(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake_module, "SUBMIT_WITHIN_S", 0.1)
    bell = FakeBell()

    async def take() -> None:
        intake = Submissions(store, bell)
        with pytest.raises(StoreUnavailable):
            await intake.submit(a_parsed_submission(), "tests")  # nobody runs it
        monkeypatch.undo()
        running = asyncio.create_task(intake.run())
        await intake.submit(a_parsed_submission(), "tests")
        running.cancel()

    asyncio.run(take())
    assert len(store.registrations(limit=10)) == 1, "who was told 503 is not stored afterwards"


def test_waiting_ends_when_the_process_is_told_to_stop(store: Store) -> None:
    registration = submit(store, a_parsed_submission())

    async def wait() -> list[Registration | None]:
        outcomes = Outcomes(store)
        running = asyncio.create_task(outcomes.run())
        waiting = [asyncio.create_task(outcomes.wait(registration.id, 60)) for _ in range(3)]
        await asyncio.sleep(0.05)
        outcomes.leave()
        answers = await asyncio.gather(*waiting)
        running.cancel()
        return [*answers, await outcomes.wait(registration.id, 60)]

    assert asyncio.run(wait()) == [None] * 4
