"""What SQLite does for each statement of the hot path: it finds rows by an index, however many there are."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from shared.database import Database, open_database
from shared.errors import ArtifactMissing
from shared.registration import Progress
from shared.store import Store
from tests.conftest import a_parsed_submission
from tests.contracts import digest_of, postpone, register, reject, submit


class Plans:
    """The plan of every statement that a database runs."""

    def __init__(self, database: Database) -> None:
        self.steps: dict[str, list[str]] = {}
        event.listen(database._engine, "before_cursor_execute", self._explain)

    def _explain(self, _connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "INSERT"}:
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.steps[statement] = [step[3] for step in plan]

    @property
    def scans(self) -> dict[str, list[str]]:
        """The statements that look at every row of a table, or sort what they found."""
        bad = ("SCAN registrations", "SCAN plugins", "USE TEMP B-TREE")
        return {said: steps for said, steps in self.steps.items() if any(each.startswith(bad) for each in steps)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    database.migrate()
    yield database
    database.close()


def test_no_statement_of_the_hot_path_looks_at_every_row(database: Database) -> None:
    store = Store(database)
    plans = Plans(database)
    first, second, third = (submit(store, a_parsed_submission(name=name)) for name in ("one", "two", "three"))
    store.submit([(a_parsed_submission(name="one"), "again"), (a_parsed_submission(name="four"), "new")])
    claims = [store.claim(each.id, worker="w", lease_s=60, max_attempts=3) for each in (first, second, third)]
    assert all(claims)
    one, two, three = (claim for claim in claims if claim)
    store.renew([Progress(one.registration_id, one.epoch, 1, None)], lease_s=60)
    register(store, one, digest_of(one.submission))
    reject(store, two, ArtifactMissing("It is gone.").failure())
    postpone(store, three, ArtifactMissing("It is gone.").failure(), delay_s=0)
    store.ring_due(10)
    store.fail_used_up(3)
    store.settled([first.id, second.id])
    store.registrations(limit=10, before=third.id)
    store.plugins(limit=10, before="plugin-")
    assert len(plans.steps) > 10
    assert plans.scans == {}
