"""On Dramatiq, with its Redis broker and its own defaults: a process for each core, eight threads each."""

import os

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from bench.peers import job

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_BROKER_URL"]))


@dramatiq.actor
def verify(name: str, url: str, checksum: str) -> None:
    job.verify(name, url, checksum)


def send(jobs: list[tuple[str, str, str]]) -> None:
    for each in jobs:
        verify.send(*each)
