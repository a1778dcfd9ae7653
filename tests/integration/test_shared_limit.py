"""A token's limit holds over all api processes together, by the broker; without it each counts for itself."""

import asyncio

import psutil
import pytest
import redis

from api.http.limits import Throttle
from api.http.problems import Problem
from api.live.shared_limit import SharedLimit
from shared.queues import celery_app
from shared.settings import Settings
from tests.integration.test_queue import valkey
from tests.running import PATIENCE_S

__all__ = ["valkey"]  # the fixture

Broker = tuple[Settings, psutil.Process, redis.Redis]
A_MINUTE = 30


def processes(settings: Settings, number: int) -> list[tuple[Throttle, SharedLimit]]:
    """Return the throttles of so many api processes, as they would have them."""
    made = []
    for _ in range(number):
        together = SharedLimit(celery_app(settings), A_MINUTE)
        made.append((Throttle(bad_tokens_a_minute=0, requests_a_minute=A_MINUTE, elsewhere=together.tell), together))
    return made


def refusal(throttle: Throttle, token: str) -> Problem | None:
    try:
        throttle.request_with(token)
    except Problem as problem:
        return problem
    return None


async def taken(throttles: list[Throttle], token: str, requests: int) -> int:
    """Return how many of so many requests with *token* are taken, each told everywhere before the next comes."""
    number = 0
    for place in range(requests):
        refused = refusal(throttles[place % len(throttles)], token)
        number += refused is None
        assert refused is None or (refused.status == 429 and 1 <= int(refused.headers["Retry-After"]) <= 60)
        await asyncio.sleep(0.02)
    return number


def test_a_tokens_limit_holds_over_all_processes_together(valkey: Broker) -> None:
    made = processes(valkey[0], 3)
    throttles = [throttle for throttle, _ in made]
    number = asyncio.run(taken(throttles, "a", 3 * A_MINUTE))
    assert A_MINUTE <= number <= A_MINUTE + 2 * len(made), "a portion for each that is told too late"
    assert asyncio.run(taken(throttles, "b", 9)) == 9, "each token has its own"
    for _, together in made:
        together.close()


def test_without_its_broker_each_process_counts_for_itself(valkey: Broker) -> None:
    settings, process, _client = valkey
    made = processes(settings, 2)
    process.kill()
    process.wait(PATIENCE_S)
    number = asyncio.run(taken([throttle for throttle, _ in made], "a", 4 * A_MINUTE))
    assert number == 2 * A_MINUTE
    for _, together in made:
        together.close()


@pytest.mark.parametrize("requests", [0])
def test_no_limit_tells_nobody(requests: int) -> None:
    told: list[str] = []
    throttle = Throttle(
        bad_tokens_a_minute=0, requests_a_minute=requests, elsewhere=lambda token, *_: told.append(token)
    )
    throttle.request_with("a")
    assert told == []
