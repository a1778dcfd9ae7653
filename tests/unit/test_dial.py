"""The race for a connection: sockets that lost are closed, and all downloads together race with a bounded number."""

import asyncio
from collections.abc import Callable
from typing import cast

from worker.fetch.dial import MAX_AT_ONCE, MAX_RACING, _at_once, _give_up, _racing
from worker.fetch.wire import Wire


class Connected:
    """A connection that was made just when nobody wanted it any more."""

    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_was_connected_too_late_is_closed() -> None:
    async def lost(made: Connected, *, before: bool) -> None:
        async def connect() -> Wire:
            return cast("Wire", made)

        task = asyncio.ensure_future(connect())
        if before:
            await task
        _give_up(task)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert task.cancelled() or made.closed

    for before in (True, False):
        asyncio.run(lost(Connected(), before=before))


def test_all_downloads_together_race_with_a_bounded_number() -> None:
    async def racing(count: int, then: Callable[[], None]) -> None:
        tasks = [cast("asyncio.Task[Wire]", asyncio.ensure_future(asyncio.sleep(60))) for _ in range(count)]
        _racing.update(tasks)
        try:
            then()
        finally:
            for each in tasks:
                each.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def is_at_most(number: int) -> Callable[[], None]:
        def check() -> None:
            assert _at_once([]) == number

        return check

    asyncio.run(racing(MAX_RACING - 1, is_at_most(MAX_AT_ONCE)))
    asyncio.run(racing(MAX_RACING, is_at_most(1)))
    assert _at_once([]) == MAX_AT_ONCE
