"""Give a peer's queue its jobs: ``python -m bench.peers.send QUEUE ARTIFACTS FIRST COUNT``, or make the table."""

import importlib
import json
import sys
import time

from sqlmodel import SQLModel

from bench.origin import small_checksum
from bench.peers.job import engine


def main() -> None:
    if sys.argv[1] == "tables":
        SQLModel.metadata.create_all(engine())
        print("null")
        return
    queue, artifacts, first, count = *sys.argv[1:3], int(sys.argv[3]), int(sys.argv[4])
    numbers = range(first, first + count)
    jobs = [(f"plugin {each}", f"{artifacts}/small/{each}", small_checksum(each)) for each in numbers]
    peer = importlib.import_module(f"bench.peers.{queue}_job")
    started = time.monotonic()
    peer.send(jobs)
    print(json.dumps({"started": started, "seconds": time.monotonic() - started}))


if __name__ == "__main__":
    main()
