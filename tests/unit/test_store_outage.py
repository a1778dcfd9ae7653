"""An outage is told once, with its reason, and its end; not by each who meets it."""

from typing import Any

import pytest
import structlog

from shared.store.outage import MAX_REASONS, OVER_S, StoreOutage


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def told(logs: list[Any]) -> list[tuple[str, Any]]:
    return [(each["event"], each.get("reason", each.get("failed_for_s"))) for each in logs]


def test_an_outage_is_one_line_and_its_end_another(clock: Clock) -> None:
    outage = StoreOutage(clock=clock)
    with structlog.testing.capture_logs() as logs:
        for _ in range(50):
            outage.failed("refused")
            outage.went_well()
            clock.now += 1
        clock.now += OVER_S
        for _ in range(3):
            outage.went_well()
        outage.failed("refused")
    assert told(logs) == [("store away", "refused"), ("store back", 49.0), ("store away", "refused")]


def test_another_reason_is_told_and_there_is_an_end_to_reasons(clock: Clock) -> None:
    outage = StoreOutage(clock=clock)
    with structlog.testing.capture_logs() as logs:
        for number in range(50):
            outage.failed(f"{number % 10}")
    assert told(logs) == [("store away", f"{number}") for number in range(MAX_REASONS)]


def test_a_store_that_takes_one_in_two_is_not_well(clock: Clock) -> None:
    outage = StoreOutage(clock=clock)
    with structlog.testing.capture_logs() as logs:
        outage.failed("busy")
        clock.now += OVER_S / 2
        outage.went_well()
        outage.failed("busy")
    assert told(logs) == [("store away", "busy")]
