"""The loop on its thread: it answers others, says what holds it up, and leaves nothing behind."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import pytest

from tests.running import until
from worker import loop as loop_module
from worker.loop import LoopThread


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What is logged."""
    told: list[dict[str, Any]] = []

    class Log:
        def warning(self, event: str, **fields: Any) -> None:
            told.append({"event": event, **fields})

    monkeypatch.setattr(loop_module, "log", Log())
    return told


@pytest.fixture
def thread(told: list[dict[str, Any]]) -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


async def hold_everybody_up(seconds: float) -> None:
    time.sleep(seconds)  # that is the point


async def answer(it: object) -> object:
    await asyncio.sleep(0)
    return it


def test_what_holds_the_loop_up_is_logged_with_where_it_was(thread: LoopThread, told: list[dict[str, Any]]) -> None:
    thread.call(hold_everybody_up(0.7))
    until(lambda: told, what="the complaint")
    assert told[0]["event"] == "loop held up"
    assert told[0]["for_ms"] >= 100
    assert "hold_everybody_up (test_loop.py:" in told[0]["by"]


def test_work_is_answered_and_its_errors_are_raised_where_it_was_asked(thread: LoopThread) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    assert thread.call(answer(5)) == 5
    with pytest.raises(ZeroDivisionError):
        thread.call(fail())


def test_who_takes_too_long_is_told_to_stop(thread: LoopThread) -> None:
    stopped: list[bool] = []

    async def never() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            stopped.append(True)

    with pytest.raises(TimeoutError):
        thread.call(never(), within_s=0.05)
    until(lambda: stopped, what="its end")


def test_what_still_runs_is_ended_with_the_loop(told: list[dict[str, Any]]) -> None:
    thread, ended = LoopThread(), list[bool]()

    async def never() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)
        ended.append(True)

    asyncio.run_coroutine_threadsafe(never(), thread.loop)
    thread.call(answer(None))
    thread.close()
    thread.close()
    assert ended == [True]
    assert thread.loop.is_closed()


def test_nobody_waits_for_a_loop_that_was_closed_meanwhile() -> None:
    """As a bell does that is answered while its worker leaves: Celery waits for its thread, and would never end."""

    def call_on(thread: LoopThread) -> None:
        with suppress(CancelledError):
            while True:
                thread.call(answer(5))

    for _ in range(20):
        thread = LoopThread()
        callers = [threading.Thread(target=call_on, args=(thread,), daemon=True) for _ in range(8)]
        for each in callers:
            each.start()
        time.sleep(0.01)
        thread.close()
        for each in callers:
            each.join(10)
        assert not any(each.is_alive() for each in callers)
