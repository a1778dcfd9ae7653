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
SINCE = 10
"""So many more may be taken while the test runs: half a one in each second, on however slow a machine."""


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


async def taken(made: list[tuple[Throttle, SharedLimit]], token: str, requests: int) -> int:
    """Return how many of so many requests with *token* are taken, each told everywhere before the next comes."""
    number = 0
    for place in range(requests):
        throttle, together = made[place % len(made)]
        refused = refusal(throttle, token)
        number += refused is None
        assert refused is None or (refused.status == 429 and 1 <= int(refused.headers["Retry-After"]) <= 60)
        while together._telling:
            await asyncio.sleep(0.001)
    return number


def test_a_tokens_limit_holds_over_all_processes_together(valkey: Broker) -> None:
    made = processes(valkey[0], 3)
    number = asyncio.run(taken(made, "a", 3 * A_MINUTE))
    assert A_MINUTE <= number <= A_MINUTE + SINCE, "and one for each that was told too late"
    assert asyncio.run(taken(made, "b", 9)) == 9, "each token has its own"
    for _, together in made:
        together.close()


def test_without_its_broker_each_process_counts_for_itself(valkey: Broker) -> None:
    settings, process, _client = valkey
    made = processes(settings, 2)
    process.kill()
    process.wait(PATIENCE_S)
    number = asyncio.run(taken(made, "a", 4 * A_MINUTE))
    assert 2 * A_MINUTE <= number <= 2 * A_MINUTE + SINCE
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
