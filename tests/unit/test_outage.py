"""What is told of an outage, and what is not."""

import pytest

from shared.outage import Outage


class Log:
    """Notes what is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def warning(self, event: str, *, reason: str) -> None:
        self.told.append(f"{event}: {reason}")

    def info(self, event: str) -> None:
        self.told.append(event)


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def outage(log: Log) -> Outage:
    return Outage(log, away="away", back="back")


def test_an_outage_is_told_once_and_that_it_is_over_once(outage: Outage, log: Log) -> None:
    outage.over()
    assert log.told == []
    for reason in ("refused", "timed out", "refused"):
        outage.note(reason)
    assert outage.lasts
    assert log.told == ["away: refused"]
    outage.over()
    outage.over()
    assert log.told == ["away: refused", "back"]
    assert not Outage(log, away="away", back="back").lasts
    outage.note("refused")
    assert log.told[2:] == ["away: refused"]


def test_a_word_that_what_is_away_says_itself_is_new_once(outage: Outage, log: Log) -> None:
    outage.note("refused")
    for _ in range(3):
        outage.note("LOADING", word="LOADING")
        outage.note("READONLY", word="READONLY")
        outage.note("timed out")
    assert log.told == ["away: refused", "away: LOADING", "away: READONLY"]


def test_it_is_over_when_it_is_for_all_who_met_it(outage: Outage, log: Log) -> None:
    outage.note("refused", by="one")
    outage.note("refused", by="other")
    outage.over(by="nobody")
    outage.over(by="one")
    assert outage.lasts
    assert log.told == ["away: refused"]
    outage.over(by="other")
    assert log.told == ["away: refused", "back"]
