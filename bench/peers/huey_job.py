"""On Huey, with a Redis queue and the process workers that its documentation advises where the CPU counts."""

import os

from huey import RedisHuey

from bench.peers import job

huey = RedisHuey("peer", url=os.environ["BENCH_BROKER_URL"], results=False)


@huey.task()
def verify(name: str, url: str, checksum: str) -> None:
    job.verify(name, url, checksum)


def send(jobs: list[tuple[str, str, str]]) -> None:
    for each in jobs:
        verify(*each)
