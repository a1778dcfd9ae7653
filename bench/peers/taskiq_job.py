"""On taskiq, with the Redis stream broker that its documentation recommends because it acknowledges."""

import asyncio
import os

from taskiq_redis import RedisStreamBroker

from bench.peers import job

broker = RedisStreamBroker(url=os.environ["BENCH_BROKER_URL"])


@broker.task
def verify(name: str, url: str, checksum: str) -> None:
    job.verify(name, url, checksum)


async def _send(jobs: list[tuple[str, str, str]]) -> None:
    await broker.startup()
    for each in jobs:
        await verify.kiq(*each)
    await broker.shutdown()


def send(jobs: list[tuple[str, str, str]]) -> None:
    asyncio.run(_send(jobs))
