"""Ours, on the worker's real path, in a process of its own: ``python -m bench.verify``.

Egress checks, deadline, limits, lease and progress are all on; the store is a fresh SQLite with
``synchronous=FULL``. Only the submission does not come by HTTP. Answers are lines of JSON.

    serve CHECKSUM               for each URL on stdin: wall and CPU seconds of its verification
    memory CHECKSUM URL COUNT    growth of the resident set with COUNT verifications at once, to their end
    hold CHECKSUM URL COUNT      the same of downloads that do not end, after four seconds
"""

import json
import os
import resource
import sys
import tempfile
import time
from itertools import count

import psutil

from shared.logs import configure_logs
from shared.registration import Accepted, Registration, RegistrationId, Submission
from shared.settings import read_settings
from shared.store.database import open_database
from shared.store.schema import migrate
from worker.running import Running

HELD_S = 4.0


class Verifications:
    """An engine on a fresh store."""

    def __init__(self, folder: str, checksum: str, at_once: int) -> None:
        settings = read_settings(
            database_url=f"sqlite:///{folder}/registry.db", max_downloads_per_host=at_once, downloads=at_once
        )
        database = open_database(settings.database_url)
        migrate(database)
        self.running = Running(settings, database)
        self._checksum = checksum
        self._numbers = count()

    def submit(self, url: str) -> RegistrationId:
        """Submit one artifact, and return its registration."""
        number = next(self._numbers)
        fields = {"name": f"p{number}", "version": "1.0.0", "pluginType": "log", "checksum": self._checksum}
        submission = Submission.model_validate({**fields, "artifactUrl": url.replace("{n}", str(number))})
        (outcome,) = self.running.store.submit([(submission, "bench")])
        assert isinstance(outcome, Accepted)
        return outcome.registration.id

    def look(self, registration_id: RegistrationId) -> Registration:
        """Return how a registration stands."""
        found = self.running.store.registration(registration_id)
        assert found is not None
        return found


def cpu_s() -> float:
    """Return the user and system seconds of this process until now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def timed(it: Verifications, url: str) -> dict[str, float]:
    """Verify one artifact."""
    registration_id = it.submit(url)
    wall, cpu = time.perf_counter(), cpu_s()
    it.running.offer([registration_id])
    it.running.wait_for([registration_id])
    found = {"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}
    assert it.look(registration_id).status == "registered", it.look(registration_id)
    return found


def memory(it: Verifications, url: str, at_once: int, *, held_s: float | None) -> dict[str, float]:
    """Verify *at_once* artifacts; return how far the resident set grew for each of them, at its highest.

    With *held_s* they do not end, and are looked at for so long.
    """
    if held_s is None:
        timed(it, url)  # what is loaded once is not counted for each
    ids = [it.submit(url) for _ in range(at_once)]
    process = psutil.Process()
    before = highest = process.memory_info().rss
    it.running.offer(ids)
    give_up = time.monotonic() + (held_s or 3600)
    while time.monotonic() < give_up and not all(it.look(each).status.final for each in ids[-1:]):
        highest = max(highest, process.memory_info().rss)
        time.sleep(0.01)
    if not held_s:
        it.running.wait_for(ids)
    ended = [it.look(each) for each in ids]
    wanted = "verifying" if held_s else "registered"
    assert all(each.status == wanted and each.bytes_downloaded for each in ended), ended[0]
    return {"mib": (highest - before) / 2**20 / at_once}


def main() -> None:
    configure_logs(service="bench")  # as the worker does
    what, checksum = sys.argv[1:3]
    with tempfile.TemporaryDirectory() as folder:
        if what == "serve":
            it = Verifications(folder, checksum, 1)
            for line in sys.stdin:
                print(json.dumps(timed(it, line.strip())), flush=True)
            return
        url, at_once = sys.argv[3], int(sys.argv[4])
        it = Verifications(folder, checksum, at_once)
        print(json.dumps(memory(it, url, at_once, held_s=HELD_S if what == "hold" else None)), flush=True)
        if what == "hold":
            os._exit(0)  # its downloads do not end


if __name__ == "__main__":
    main()
