"""What the databases do for each statement of the hot path: they find rows by an index, however many there are."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from shared.errors import ArtifactMissing
from shared.registration import Progress, Settlement
from shared.store.counters import Counters
from shared.store.database import Database
from shared.store.events import Events
from shared.store.registrations import Look, Store, Wish
from shared.store.webhooks import Places, Tried, Webhooks
from tests.conftest import a_parsed_submission
from tests.contracts import OPERATOR, digest_of, postpone, register, reject, submit
from tests.stores import a_store
from tests.verifying import terms


class Plans:
    """The plan of every statement that a database runs."""

    def __init__(self, database: Database) -> None:
        self.steps: dict[str, list[str]] = {}
        event.listen(database.engine, "before_cursor_execute", self._explain)

    def _explain(
        self, _connection: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        parameters = parameters[0] if many else parameters
        if statement.split(maxsplit=1)[0] in {"SELECT", "UPDATE", "DELETE", "INSERT", "WITH"}:
            plan = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)
            self.steps[statement] = [step[3] for step in plan]

    @property
    def scans(self) -> dict[str, list[str]]:
        """The statements that look at every row of a table, or sort what they found."""
        bad = ("SCAN registrations", "SCAN plugins", "USE TEMP B-TREE")
        return {said: steps for said, steps in self.steps.items() if any(each.startswith(bad) for each in steps)}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with a_store("sqlite", tmp_path, "") as database:
        yield database


BY_ID = "INDEX sqlite_autoindex_registrations_1 (id=?)"
READ = {
    **dict.fromkeys(("waiting", "claim", "register", "end", "note_attempts", "renew", "write_plugins"), (BY_ID,)),
    "settled": (BY_ID, "INDEX sqlite_autoindex_plugins_1 (id=?)"),
    "standing": ("INDEX sqlite_autoindex_plugins_2 (name_key=? AND version=?)",),
    "queue": (),
}
"""By which indices each hot statement finds what is there."""


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
    store.work([Look((first.id, second.id))], terms())
    store.ring_due(10)
    store.fail_used_up(3)
    store.settled([first.id, second.id])
    store.registrations(limit=10, before=third.id)
    store.plugins(limit=10, before="plugin-")
    assert len(plans.steps) > 10
    assert plans.scans == {}
    assert store._hot._texts.keys() == READ.keys()
    for name, text in store._hot._texts.items():
        found = [step for step in plans.steps[text] if re.search(" (registrations|plugins) ", step)]
        # The index of what is in flight is no scan either, and costs as much.
        assert bool(found) is bool(READ[name]), name
        assert all(step.endswith(READ[name]) for step in found), (name, found)


def test_nothing_of_the_feed_or_of_webhooks_looks_at_every_row(database: Database) -> None:
    store, counters, feed, hooks = Store(database), Counters(database), Events(database), Webhooks(database)
    plans = Plans(database)
    hook, _ = hooks.create("https://h.example.com/", OPERATOR, label="", kinds=(), names=(), secret=True)
    first = submit(store, a_parsed_submission(name="one"))
    store.cancel(first.id, OPERATOR)
    counters.count()
    counters.tell_counted()
    assert counters.all_counted
    feed.after(0, limit=10)
    feed.after(0, limit=10, names=["o*"])
    feed.newest()
    feed.forget(older_than_s=60, limit=10)
    (trial,) = hooks.begin(Places(8, 4, {}))
    hooks.end(Tried(trial, 500, "no"))
    hooks.deliveries(hook.id, limit=10, before="delivery-x")
    hooks.forget(older_than_s=60, limit=10)
    store.prune(older_than_s=60, limit=10)
    bad = ("SCAN registrations", "SCAN events", "SCAN deliveries", "USE TEMP B-TREE")
    indexed = "USING COVERING INDEX registrations_to_count", "USING INDEX registrations_to_count"
    scans = {
        statement: step
        for statement, steps in plans.steps.items()
        for step in steps
        if step.startswith(bad)
        and not step.endswith(indexed)
        and not (step.startswith("USE TEMP") and statement.startswith("SELECT webhooks."))  # of which there are few
    }
    assert scans == {}


def touched(database: Database, backlog: int, group: int) -> dict[str, list[str]]:
    """Return, for each hot statement, how PostgreSQL finds a group's rows in a backlog, without statistics."""
    store = Store(database)
    with database.write() as connection:
        for table in ("registrations", "plugins"):
            connection.exec_driver_sql(f"ALTER TABLE {table} SET (autovacuum_enabled = off)")
    for _ in range(backlog // 100):
        store.submit([(a_parsed_submission(), "tests") for _ in range(100)])
    ids = [each.id for each in store.registrations(limit=3 * group)]
    found: dict[str, list[str]] = {}

    def explain(_connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        names = [name for name, text in store._hot._texts.items() if text == statement]
        for name in names:
            with cursor.connection.cursor() as asking:
                asking.execute(f"EXPLAIN {statement}", parameters)
                plan = [row[0].strip() for row in asking.fetchall()]
            found[name] = [
                step.removeprefix("->  ")
                for step in plan
                if re.search("(?<!Subquery )Scan .*on (registrations|plugins)", step)
            ]

    event.listen(database.engine, "before_cursor_execute", explain)
    claims = store.work([Wish(each) for each in ids], terms())
    assert all(claims)
    store.work([Look(tuple(ids))], terms())
    store.renew([Progress(each.registration_id, each.epoch, 1, None) for each in claims], lease_s=60)
    store.work([Settlement.registered(each, digest_of(each.submission)) for each in claims[:group]], terms())
    gone = ArtifactMissing("It is gone.").failure()
    store.work([Settlement.rejected(each, gone) for each in claims[group : 2 * group]], terms())
    store.settled(ids)
    store.submit([(a_parsed_submission(), "tests") for _ in range(group)])
    return found


@pytest.mark.parametrize("group", [1, 32])
def test_postgresql_looks_a_groups_rows_up_by_their_ids_without_statistics_too(
    postgresql_url: str, group: int
) -> None:
    """With a plain ``status`` it took the index of all that is in flight: 9 ms for 32 claims, with 3,000 queued."""
    with a_store("postgresql", Path(), postgresql_url) as database:
        found = touched(database, 3000, group)
    assert found.keys() == READ.keys()
    for name, steps in found.items():
        assert bool(steps) is bool(READ[name]), name
        # In a table that is as good as empty either index of names will do.
        indices = (
            ("one_plugin ", "plugins_by_name ") if name == "standing" else ("registrations_pkey ", "plugins_pkey ")
        )
        assert all(each.startswith(tuple(f"Index Scan using {index}" for index in indices)) for each in steps), steps


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_renewing_costs_the_same_for_each_however_many_there_are(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    """Lists of cases made it grow with the square, 93 ms for 500 claims: the text must be as long for any number."""
    with a_store(kind, tmp_path, request.getfixturevalue("postgresql_url")) as database:
        store, statements = Store(database), list[str]()
        event.listen(
            database.engine,
            "before_cursor_execute",
            lambda _connection, _cursor, statement, *_: statements.append(statement),
        )
        claims = [store.claim(submit(store, a_parsed_submission()).id, **asdict(terms())) for _ in range(20)]
        for count in (1, 20):
            statements.clear()
            progress = [Progress(each.registration_id, each.epoch, 1, 5) for each in claims[:count] if each]
            assert len(store.renew(progress, lease_s=60)) == count
            renewing = [each for each in statements if each.startswith("UPDATE")]
            assert renewing == [store._hot._texts["renew"]]
