"""Following: a follower hears of its own registration, whatever the poll that is under way was asked for."""

import asyncio
import threading
from collections.abc import Iterable
from dataclasses import replace

import pytest

from api.live.following import Following
from shared.registration import Registration, RegistrationId, Status
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import WRONG, claim, reject, submit


class Held(Store):
    """A store whose polls are held back until they are let go, and that counts them."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.database)
        self.asked: list[list[RegistrationId]] = []
        self.free = threading.Event()

    def some(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
        self.asked.append(list(registration_ids))
        assert self.free.wait(20)
        return super().some(registration_ids)


@pytest.fixture
def held(store: Store) -> Held:
    return Held(store)


def test_who_comes_while_a_poll_is_with_the_store_is_not_told_the_end(held: Held, store: Store) -> None:
    first, second = (submit(store, a_parsed_submission()) for _ in range(2))

    async def follow(following: Following, registration: Registration) -> list[Status]:
        return [each.status async for each in following.changes(registration)]

    async def both() -> tuple[list[Status], list[Status]]:
        following = Following(held)
        running = asyncio.create_task(following.run())
        early = asyncio.create_task(follow(following, first))
        while not held.asked:  # the poll that knows of the first alone has begun
            await asyncio.sleep(0)
        late = asyncio.create_task(follow(following, second))
        await asyncio.sleep(0)
        held.free.set()
        while len(held.asked) < 2:
            await asyncio.sleep(0)
        for each in (first, second):
            reject(store, claim(store, each), WRONG)
        async with asyncio.timeout(20):
            found = await asyncio.gather(early, late)
        running.cancel()
        return found

    for statuses in asyncio.run(both()):
        assert statuses[0] is Status.QUEUED
        assert statuses[-1] is Status.REJECTED
    assert [set(each) for each in held.asked[:2]] == [{first.id}, {first.id, second.id}]


def test_a_registration_that_is_gone_ends_the_following(held: Held, store: Store) -> None:
    registration = submit(store, a_parsed_submission())
    gone = replace(registration, id=RegistrationId("registration-gone"))
    held.free.set()

    async def follow() -> list[Registration]:
        following = Following(held)
        running = asyncio.create_task(following.run())
        async with asyncio.timeout(20):
            found = [each async for each in following.changes(gone)]
        running.cancel()
        return found

    assert asyncio.run(follow()) == [gone]
