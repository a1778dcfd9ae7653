"""On RQ, with its worker pool. Each job is forked; the parent imports it first, as its documentation advises."""

import os

from redis import Redis
from rq import Queue

from bench.peers import job

verify = job.verify


def send(jobs: list[tuple[str, str, str]]) -> None:
    queue = Queue(connection=Redis.from_url(os.environ["BENCH_BROKER_URL"]))
    for each in jobs:
        queue.enqueue(verify, *each, result_ttl=0)
