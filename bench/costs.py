"""What the store's work costs, in a process of its own: ``python -m bench.costs ROUNDS ROWS URL ROWS URL``.

The work alternates between the two stores, so that whatever disturbs us disturbs both. It prints, for each kind of
work and each store, the median milliseconds of each round.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import count

from bench.filling import id_of
from shared.registration import Accepted, Progress, RegistrationId, Submission, Terms
from shared.store.database import open_database
from shared.store.registrations import Store, Wish
from worker.sweep import sweep

REPEATED = 40
PAGE = 50
RENEWED = 500
RENEWING = f"renewing {RENEWED} claims"
_numbers = count()


class Costs:
    """The kinds of work on one store."""

    def __init__(self, rows: int, url: str) -> None:
        self._store = Store(open_database(url), ring_again_after_s=3600)
        self._submitted: list[RegistrationId] = []
        self._held: list[Progress] = []
        deep = max(rows - 999 * PAGE, PAGE)  # the page 1,000, or where there are not so many the last
        self.work: dict[str, Callable[[], object]] = {
            "submission": self._submit,
            "claim": self._claim,
            RENEWING: self._renew,
            "sweep": self._sweep,
            "list of plugins, page 1": lambda: self._store.plugins(limit=PAGE + 1),
            "list of plugins, page 1,000": lambda: self._store.plugins(limit=PAGE + 1, before=id_of("plugin", deep)),
            "list of registrations, page 1,000": lambda: self._store.registrations(
                limit=PAGE + 1, before=id_of("registration", deep)
            ),
            "list of failed registrations": lambda: self._store.registrations(
                limit=PAGE + 1, filters={"status": "failed"}
            ),
        }

    def _submit(self) -> None:
        number = next(_numbers)
        submission = Submission.model_validate(
            {
                "name": f"new plugin {number}",
                "version": "1.0.0",
                "pluginType": "log",
                "artifactUrl": f"https://artifacts.example.com/new/{number}",
                "checksum": f"sha256:{number:064x}",
            }
        )
        (outcome,) = self._store.submit([(submission, "bench")])
        assert isinstance(outcome, Accepted)
        self._submitted.append(outcome.registration.id)

    def _claim(self) -> None:
        assert self._store.claim(self._submitted.pop(), worker="bench", lease_s=3600, max_attempts=5) is not None

    def _renew(self) -> None:
        if not self._held:
            for _ in range(RENEWED):
                self._submit()
            ids = [self._submitted.pop() for _ in range(RENEWED)]
            claims = self._store.work([Wish(each) for each in ids], Terms("bench", 3600, 5))
            self._held = [Progress(each.registration_id, each.epoch, 1, None) for each in claims]
        assert len(self._store.renew(self._held, lease_s=3600)) == RENEWED

    def _sweep(self) -> None:
        sweep(self._store, waiting=lambda: 0, ring=lambda _ids: None, max_attempts=5)


def main() -> None:
    rounds = int(sys.argv[1])
    given = sys.argv[2:]
    stores = {rows: Costs(int(rows), url) for rows, url in zip(given[::2], given[1::2], strict=True)}
    kinds = list(next(iter(stores.values())).work)
    found: dict[str, dict[str, list[float]]] = {kind: {rows: [] for rows in stores} for kind in kinds}
    for number in range(-1, rounds):
        for kind in kinds:
            took: dict[str, list[float]] = {rows: [] for rows in stores}
            for _ in range(REPEATED):
                for rows, it in stores.items():
                    started = time.perf_counter()
                    it.work[kind]()
                    took[rows].append((time.perf_counter() - started) * 1000)
            for rows in stores if number >= 0 else ():  # the first round warms up
                found[kind][rows].append(statistics.median(took[rows]))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
