"""The Celery adapter: what a tick and a bell come to."""

import threading
from typing import Any, cast

import pytest

from shared.errors import StoreUnavailable
from shared.logs import get_logger
from shared.outage import Outage
from shared.queues import SWEEP_TASK, VERIFY_TASK, celery_app
from shared.settings import read_settings
from shared.store.registrations import Store
from tests.running import PATIENCE_S, until
from worker.tasks import add_tasks


class SlowStore:
    """A store whose sweeps last until they are let go."""

    def __init__(self) -> None:
        self.sweeps = 0
        self.go_on = threading.Event()

    def fail_used_up(self, _max_attempts: int) -> list[str]:
        self.sweeps += 1
        assert self.go_on.wait(PATIENCE_S)
        return []

    def note_hosts(self, _limit: int) -> int:
        return 0

    def ring_due(self, _limit: int) -> list[str]:
        return []


class Nothing:
    """Counts nothing, and has lost nobody."""

    def count(self) -> int:
        return 0

    def tell_counted(self) -> int:
        return 0

    def mark(self, _name: str) -> None:
        pass

    def count_lost(self, *, missed: int) -> int:
        return 0


def tasks(store: SlowStore, offer: Any = lambda _ids: None) -> Any:
    app = celery_app(read_settings(broker_url="redis://nowhere.example"))
    add_tasks(
        app,
        offer=offer,
        deliver=lambda: None,
        forget_events=lambda: None,
        store=lambda: cast("Store", store),
        counters=lambda: cast("Any", Nothing()),
        workers=lambda: cast("Any", Nothing()),
        max_attempts=5,
        keep_registrations_s=60,
        missed_sweeps=3,
        outage=Outage(get_logger(__name__), away="away", back="back"),
    )
    return app.tasks


def test_two_sweeps_at_once_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would count the bells that wait, and ring for as many as there is room for (invariant 11)."""
    monkeypatch.setattr("worker.tasks.messages_waiting", lambda _app: 0)
    store = SlowStore()
    sweep = tasks(store)[SWEEP_TASK]
    first = threading.Thread(target=sweep)
    first.start()
    until(lambda: store.sweeps, what="the first in the middle")
    sweep()
    assert store.sweeps == 1
    store.go_on.set()
    first.join()
    sweep()
    assert store.sweeps == 2


def test_a_bell_that_finds_no_store_is_over() -> None:
    def offer(_ids: list[str]) -> None:
        raise StoreUnavailable("It is away.")

    tasks(SlowStore(), offer)[VERIFY_TASK](["registration-1"])
