"""On Celery, prefork, as its documentation has it for many short tasks: prefetching plenty, results ignored."""

import os

from celery import Celery

from bench.peers import job

app = Celery("peer", broker=os.environ["BENCH_BROKER_URL"])
app.conf.task_ignore_result = True
app.conf.worker_prefetch_multiplier = 64


@app.task
def verify(name: str, url: str, checksum: str) -> None:
    job.verify(name, url, checksum)


def send(jobs: list[tuple[str, str, str]]) -> None:
    for each in jobs:
        verify.delay(*each)
