"""What every store promises of events and webhooks, as tests: a subclass names the store."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from sqlalchemy import delete, select, text, update

from shared.registration import Registration, Settlement
from shared.store import events as event_store
from shared.store.counters import Counters
from shared.store.database import Database, open_database
from shared.store.events import PUBLISHED, SKIPPED, WINDOW, Event, Events, Moved
from shared.store.registrations import Store
from shared.store.tables import deliveries, events, marks, registrations, webhooks
from shared.store.webhooks import (
    AGAIN_AFTER_S,
    DISABLED_AFTER_S,
    LEASE_S,
    NotToRotate,
    Places,
    Tried,
    Webhook,
    Webhooks,
)
from tests.conftest import a_parsed_submission
from tests.contracts import OPERATOR, WRONG, claim, digest_of, submit

URL = "https://hooks.example.com/registry?token=hunter2"


def registered(store: Store, **changes: str) -> Registration:
    registration = submit(store, a_parsed_submission(**changes))
    store.settle(Settlement.registered(claim(store, registration), digest_of(registration.submission)))
    return registration


def rejected(store: Store) -> Registration:
    registration = submit(store, a_parsed_submission())
    store.settle(Settlement.rejected(claim(store, registration), WRONG))
    return registration


def told(database: Database, after: int | None = None, **options: Any) -> list[Event]:
    return list(Events(database).after(after, limit=200, **options).events)


def document(event: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(event.document)
    return found


class EventContract:
    """The feed."""

    def test_each_that_ended_is_told_once_in_order_with_what_became_of_it(
        self, store: Store, database: Database
    ) -> None:
        good, bad, gone = registered(store), rejected(store), submit(store, a_parsed_submission())
        store.cancel(gone.id, OPERATOR)
        submit(store, a_parsed_submission())
        assert told(database) == []
        assert Counters(database).count() == 3
        assert Counters(database).count() == 0
        assert Counters(database).tell_counted() == 0
        found = told(database)
        assert [each.seq for each in found] == [1, 2, 3]
        kinds = {document(each)["data"]["registrationId"]: each.kind for each in found}
        assert kinds == {
            good.id: "registration.registered",
            bad.id: "registration.rejected",
            gone.id: "registration.canceled",
        }
        (of_good,) = (document(each) for each in found if each.kind == "registration.registered")
        plugin = store.plugin(of_good["data"]["pluginId"])
        assert plugin is not None
        assert plugin.checksum == of_good["data"]["checksum"]
        assert abs(datetime.fromisoformat(of_good["timestamp"]) - datetime.now(UTC)) < timedelta(minutes=10)
        (of_bad,) = (document(each)["data"] for each in found if each.kind == "registration.rejected")
        assert (of_bad["code"], of_bad["fault"], of_bad["pluginId"]) == ("digest-mismatch", "submitter", None)
        assert not any("artifact" in key.lower() and "url" in key.lower() for key in of_bad), "no URL"
        assert "://" not in "".join(each.document for each in found)

    def test_what_a_release_without_events_counted_is_told_too_and_what_ended_before_is_not(
        self, store: Store, database: Database
    ) -> None:
        before, beside = registered(store), registered(store)
        with database.write() as connection:
            connection.execute(update(registrations).values(counted=True))
            connection.execute(
                update(registrations).where(registrations.c.id == before.id).values(updated_at=1_000_000)
            )
        assert Counters(database).tell_counted() == 1
        assert Counters(database).tell_counted() == 0
        assert [document(each)["data"]["registrationId"] for each in told(database)] == [beside.id]

    def test_whoever_counts_at_once_gives_numbers_without_gaps_and_none_behind_a_reader(
        self, store: Store, database: Database
    ) -> None:
        read: list[int] = []
        over = threading.Event()

        def follow() -> None:
            after = 0
            while True:
                last = over.is_set()
                page = Events(database).after(after, limit=3)
                read.extend(each.seq for each in page.events)
                assert page.next_after >= after
                after = page.next_after
                if last and not page.events:
                    return

        with ThreadPoolExecutor(4) as pool:
            reader = pool.submit(follow)
            for _ in range(12):
                for _ in range(3):
                    rejected(store)
                counting = [pool.submit(Counters(database).count, at_most=2) for _ in range(3)]
                assert sum(each.result(60) for each in counting) <= 3
            while Counters(database).count():
                pass
            over.set()
            reader.result(60)
        assert read == list(range(1, 37))
        ids = [document(each)["data"]["registrationId"] for each in told(database)]
        assert len(set(ids)) == 36

    def test_a_count_that_fails_takes_no_number_along(
        self, store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registered(store)

        def full(*_: object) -> None:
            raise OSError("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr("shared.store.counters._add_periods", full)
            with pytest.raises(OSError, match="full"):
                Counters(database).count()
        assert told(database) == []
        Counters(database).count()
        assert [each.seq for each in told(database)] == [1]

    def test_a_reader_sees_the_names_it_may_and_goes_on_past_all_others(
        self, store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("nginx logs", "apache", "NGINX.traces", "apache two", "apache three"):
            registered(store, name=name)
        Counters(database).count()
        names = [document(each)["data"]["name"] for each in told(database, names=["nginx-*"])]
        assert names == ["nginx logs", "NGINX.traces"]
        monkeypatch.setattr("shared.store.events.WINDOW", 2)
        page = Events(database).after(3, limit=10, names=["nginx-*"])
        assert (page.events, page.next_after, page.newest) == ([], 5, 5)
        Events(database).skip()
        registered(store, name="nginx last")
        Counters(database).count()
        page = Events(database).after(5, limit=10, names=["nginx-*"])
        assert [each.seq for each in page.events] == [SKIPPED + 6], "numbers that were left out are no windows"
        assert Events(database).after(0, limit=1, names=["nginx-*"]).next_after == 1
        assert WINDOW >= 200, "a page is full where all may be seen"

    def test_who_comes_too_late_or_from_another_store_is_told(self, store: Store, database: Database) -> None:
        for _ in range(5):
            rejected(store)
        Counters(database).count()
        with database.write() as connection:
            connection.execute(update(events).where(events.c.seq <= 3).values(told_at=1_000_000))
        assert Events(database).forget(older_than_s=60, limit=2) == 2
        assert Events(database).forget(older_than_s=60, limit=2) == 1
        assert Events(database).forget(older_than_s=60, limit=2) == 0
        for after in (1, 6):
            with pytest.raises(Moved) as moved:
                told(database, after)
            assert (moved.value.oldest, moved.value.newest) == (4, 5)
        assert [each.seq for each in told(database)] == [4, 5]
        assert [each.seq for each in told(database, 3)] == [4, 5]
        with database.write() as connection:
            connection.execute(update(events).values(told_at=1_000_000))
        assert Events(database).forget(older_than_s=60, limit=100) == 2
        assert told(database, 5) == []
        rejected(store)
        Counters(database).count()
        assert [each.seq for each in told(database, 5)] == [6], "numbers are never given twice"

    def test_what_is_told_or_forgotten_while_a_page_is_read_is_neither_doubled_nor_missed(
        self, store: Store, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """On PostgreSQL each statement of a reader sees what was committed before it."""
        for _ in range(3):
            rejected(store)
        Counters(database).count()
        bounds, meanwhile = event_store._bounds, [lambda: None]

        def then(connection: Any) -> tuple[int, int]:
            found = bounds(connection)
            meanwhile.pop()() if meanwhile else None
            return found

        def tell_more() -> None:
            with closing(open_database(database.engine.url.render_as_string(hide_password=False))) as other:
                rejected(Store(other))
                Counters(other).count()

        def forget() -> None:
            with (
                closing(open_database(database.engine.url.render_as_string(hide_password=False))) as other,
                other.write() as connection,
            ):
                connection.execute(delete(events).where(events.c.seq <= 2))

        monkeypatch.setattr(event_store, "_bounds", then)
        if database.dialect == "postgresql":
            meanwhile[:] = [tell_more]
            page = Events(database).after(0, limit=10)
            assert ([each.seq for each in page.events], page.next_after) == ([1, 2, 3], 3)
            meanwhile[:] = [forget]
            with pytest.raises(Moved):
                Events(database).after(0, limit=10)

    def test_what_nobody_was_told_of_is_not_pruned(self, store: Store, database: Database) -> None:
        rejected(store)
        old = rejected(store)
        with database.write() as connection:  # as a release without events leaves them, the second before the feed
            began = connection.execute(select(marks.c.at).where(marks.c.name == "feed")).scalar_one()
            connection.execute(update(registrations).values(counted=True))
            of_old = update(registrations).where(registrations.c.id == old.id)
            connection.execute(of_old.values(updated_at=began - 1))
        everything: Any = {"older_than_s": -60.0, "limit": 10}
        assert store.prune(**everything) == 1
        assert store.registration(old.id) is None
        assert Counters(database).tell_counted() == 1
        assert store.prune(**everything) == 1

    def test_an_empty_feed_has_nothing_and_begins_with_one(self, store: Store, database: Database) -> None:
        page = Events(database).after(None, limit=10)
        assert (page.events, page.next_after, Events(database).newest()) == ([], 0, 0)
        rejected(store)
        Counters(database).count()
        assert [each.seq for each in told(database, 0)] == [1]

    def test_the_store_itself_refuses_a_second_event_of_a_registration(
        self, store: Store, database: Database
    ) -> None:
        rejected(store)
        Counters(database).count()
        with database.write() as connection:
            connection.execute(update(registrations).values(counted=False, told=False))
        with pytest.raises(Exception, match=r"(?i)unique|one_event"):
            Counters(database).count()
        assert len(told(database)) == 1

    def test_the_last_number_is_a_counter_that_only_grows(self, store: Store, database: Database) -> None:
        for expected in (2, 4):
            rejected(store)
            registered(store)
            Counters(database).count()
            with database.read() as connection:
                value = connection.execute(text("SELECT value FROM counters WHERE name = :name"), {"name": PUBLISHED})
                assert value.scalar_one() == expected


def hook(database: Database, url: str = URL, **options: Any) -> Webhook:
    wanted: dict[str, Any] = {"label": "", "kinds": (), "names": (), "secret": True} | options
    made, _secret = Webhooks(database).create(url, OPERATOR, **wanted)
    return made


def places(total: int = 64, each: int = 4, **under_way: int) -> Places:
    return Places(total, each, Counter(under_way))


def let_pass(database: Database, seconds: float) -> None:
    ms = int(seconds * 1000)
    with database.write() as connection:
        connection.execute(update(deliveries).values(due_at=deliveries.c.due_at - ms))
        connection.execute(update(webhooks).values(failing_since=webhooks.c.failing_since - ms))
        connection.execute(update(webhooks).values(old_secret_until=webhooks.c.old_secret_until - ms))


class WebhookContract:
    """Webhooks and their deliveries."""

    def test_a_hook_is_told_what_it_asked_for_and_of_nothing_before_it(
        self, store: Store, database: Database
    ) -> None:
        rejected(store)
        Counters(database).count()
        everything = hook(database)
        failures = hook(database, kinds=("registration.rejected",))
        of_nginx = hook(database, names=("nginx-*",))
        registered(store, name="nginx logs")
        rejected(store)
        Counters(database).count()
        due = {
            each.id: len(Webhooks(database).deliveries(each.id, limit=10))
            for each in (everything, failures, of_nginx)
        }
        assert due == {everything.id: 2, failures.id: 1, of_nginx.id: 1}
        trials = Webhooks(database).begin(places())
        assert Counter(each.webhook_id for each in trials) == due
        feed = {document(each)["id"]: each.document for each in told(database)}
        assert all(feed[each.event_id] == each.body for each in trials)

    def test_a_trial_that_succeeded_is_the_last(self, store: Store, database: Database) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        (trial,) = Webhooks(database).begin(places())
        assert Webhooks(database).begin(places()) == [], "it is under way"
        Webhooks(database).end(Tried(trial, 204, None))
        let_pass(database, 10 * LEASE_S)
        assert Webhooks(database).begin(places()) == []
        (delivery,) = Webhooks(database).deliveries(it.id, limit=10)
        assert (delivery.status, delivery.trials, delivery.failures, delivery.due_at) == (204, 1, 0, None)
        assert delivery.delivered_at is not None
        assert Webhooks(database).deliveries(it.id, limit=10, open_only=True) == []

    def test_a_trial_that_failed_is_made_again_later_and_later_and_has_an_end(
        self, store: Store, database: Database
    ) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        for number, again_after_s in enumerate((*AGAIN_AFTER_S, 0), 1):
            (trial,) = Webhooks(database).begin(places())
            assert trial.number == number
            Webhooks(database).end(Tried(trial, 500, "It answered 500."))
            assert Webhooks(database).deliveries(it.id, limit=10)[0].failures == number
            if again_after_s:
                let_pass(database, again_after_s - 1)
                assert Webhooks(database).begin(places()) == []
                let_pass(database, 2)
                with database.write() as connection:
                    connection.execute(update(webhooks).values(failing_since=None))
        let_pass(database, 10**6)
        assert Webhooks(database).begin(places()) == []
        (delivery,) = Webhooks(database).deliveries(it.id, limit=10)
        assert (delivery.due_at, delivery.delivered_at, delivery.error) == (None, None, "It answered 500.")
        again = Webhooks(database).redeliver(it.id, delivery.id, OPERATOR)
        assert again is not None
        (trial,) = Webhooks(database).begin(places())
        Webhooks(database).end(Tried(trial, 500, "no"))
        let_pass(database, AGAIN_AFTER_S[0] + 1)
        (trial,) = Webhooks(database).begin(places())
        Webhooks(database).end(Tried(trial, 200, None))
        assert Webhooks(database).deliveries(it.id, limit=10)[0].delivered_at is not None
        assert Webhooks(database).redeliver(it.id, "delivery-x", OPERATOR) is None
        assert Webhooks(database).redeliver("webhook-x", delivery.id, OPERATOR) is None

    def test_who_was_lost_with_a_trial_has_no_say_any_more(self, store: Store, database: Database) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        (lost,) = Webhooks(database).begin(places())
        let_pass(database, LEASE_S + 1)
        (trial,) = Webhooks(database).begin(places())
        assert (lost.delivery_id, lost.number + 1) == (trial.delivery_id, trial.number)
        Webhooks(database).end(Tried(trial, 200, None))
        Webhooks(database).end(Tried(lost, 500, "late"))
        (delivery,) = Webhooks(database).deliveries(it.id, limit=10)
        assert (delivery.status, delivery.error) == (200, None)
        found = Webhooks(database).get(it.id)
        assert found is not None
        assert found.failing_since is None

    def test_a_hook_that_is_gone_or_fails_for_three_days_is_disabled_until_somebody_enables_it(
        self, store: Store, database: Database
    ) -> None:
        gone, failing = hook(database), hook(database, "https://other.example.com/")
        rejected(store)
        Counters(database).count()
        for trial in Webhooks(database).begin(places()):
            Webhooks(database).end(Tried(trial, 410 if trial.webhook_id == gone.id else 503, "no"))
        let_pass(database, DISABLED_AFTER_S + 1)
        (trial,) = Webhooks(database).begin(places())
        assert trial.webhook_id == failing.id
        Webhooks(database).end(Tried(trial, None, "No answer within 20 s."))
        found = {each.id: each for each in Webhooks(database).all()}
        assert found[gone.id].disabled_why == "It answered 410: gone."
        assert found[failing.id].disabled_why == "Nothing could be delivered for three days."
        rejected(store)
        Counters(database).count()
        let_pass(database, 10**6)
        assert Webhooks(database).begin(places()) == []
        enabled = Webhooks(database).enable(failing.id, OPERATOR)
        assert enabled is not None
        assert (enabled.disabled_at, enabled.failing_since) == (None, None)
        trials = Webhooks(database).begin(places())
        assert [each.webhook_id for each in trials] == [failing.id] * 2, "what was due meanwhile as well"
        assert Webhooks(database).enable("webhook-x", OPERATOR) is None

    def test_a_failure_of_long_ago_disables_nobody(self, store: Store, database: Database) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        for again_after_s in (*AGAIN_AFTER_S, 0):
            (trial,) = Webhooks(database).begin(places())
            with database.write() as connection:  # so that it is not disabled for these three days
                connection.execute(update(webhooks).values(failing_since=None))
            Webhooks(database).end(Tried(trial, 500, "no"))
            let_pass(database, again_after_s + 1)
        let_pass(database, 2 * DISABLED_AFTER_S)
        rejected(store)
        Counters(database).count()
        (trial,) = Webhooks(database).begin(places())
        Webhooks(database).end(Tried(trial, 500, "a hiccup"))
        found = Webhooks(database).get(it.id)
        assert found is not None
        assert found.disabled_at is None

    def test_a_shortage_of_ours_counts_for_nothing(self, store: Store, database: Database) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        (trial,) = Webhooks(database).begin(places())
        Webhooks(database).put_back(trial, in_s=5)
        assert Webhooks(database).begin(places()) == []
        let_pass(database, 6)
        (again,) = Webhooks(database).begin(places())
        Webhooks(database).put_back(trial, in_s=0)  # whose time is over
        assert Webhooks(database).begin(places()) == []
        (delivery,) = Webhooks(database).deliveries(it.id, limit=10)
        assert (again.number, delivery.failures) == (2, 0)
        found = Webhooks(database).get(it.id)
        assert found is not None
        assert found.failing_since is None

    def test_a_hook_that_has_many_due_holds_up_no_other_of_its_host(self, store: Store, database: Database) -> None:
        many, other = hook(database, "https://h.example.com/many"), hook(database, "https://h.example.com/other")
        for number in range(10):
            Webhooks(database).test(many.id, "{}", f"event-{number}")
        Webhooks(database).test(other.id, "{}", "event-x")
        trials = Webhooks(database).begin(places())
        assert Counter(each.webhook_id for each in trials) == {many.id: 3, other.id: 1}

    def test_one_that_is_disabled_meanwhile_is_told_nothing_more(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        it = hook(database)
        Webhooks(database).test(it.id, "{}", "event-1")
        with database.write() as connection:
            connection.execute(update(webhooks).values(disabled_at=1, disabled_why="x"))
        monkeypatch.setattr("shared.store.webhooks._WITH_SOMETHING_DUE", select(webhooks))  # it was not, just before
        assert Webhooks(database).begin(places()) == []

    def test_one_that_fails_and_then_succeeds_begins_anew(self, store: Store, database: Database) -> None:
        it = hook(database)
        for _ in range(2):
            rejected(store)
        Counters(database).count()
        first, second = Webhooks(database).begin(places())
        Webhooks(database).end(Tried(first, 500, "no"))
        let_pass(database, DISABLED_AFTER_S - 60)
        Webhooks(database).end(Tried(second, 200, None))
        found = Webhooks(database).get(it.id)
        assert found is not None
        assert (found.failing_since, found.disabled_at) == (None, None)

    def test_a_host_has_its_places_and_takes_nobody_elses(self, store: Store, database: Database) -> None:
        slow = [hook(database, f"https://slow.example.com/{number}") for number in range(5)]
        quick = hook(database, "https://quick.example.com/")
        for _ in range(3):
            rejected(store)
        Counters(database).count()
        trials = Webhooks(database).begin(places())
        assert Counter(each.host for each in trials) == {"slow.example.com": 4, "quick.example.com": 3}
        assert Webhooks(database).begin(places(**{"slow.example.com": 4})) == []
        assert len(Webhooks(database).begin(places(total=1))) == 1
        assert {each.webhook_id for each in trials} <= {quick.id, *(each.id for each in slow)}

    def test_a_secret_is_told_once_and_the_one_before_is_good_for_a_day(
        self, store: Store, database: Database
    ) -> None:
        it, first = Webhooks(database).create(URL, OPERATOR, label="a", kinds=(), names=(), secret=True)
        assert first is not None
        assert first.startswith("whsec_")
        without, none = Webhooks(database).create(URL, OPERATOR, label="b", kinds=(), names=(), secret=False)
        assert (none, without.signed_with_secret) == (None, False)
        rotated = Webhooks(database).rotate(it.id, OPERATOR)
        assert rotated is not None
        for each in (it.id, without.id):
            with pytest.raises(NotToRotate):
                Webhooks(database).rotate(each, OPERATOR)
        rejected(store)
        Counters(database).count()
        signing = {each.webhook_id: each.secrets for each in Webhooks(database).begin(places())}
        assert signing == {it.id: (rotated[1], first), without.id: ()}
        let_pass(database, 90_000)
        signing = {each.webhook_id: each.secrets for each in Webhooks(database).begin(places())}
        assert signing[it.id] == (rotated[1],)
        assert first not in repr(Webhooks(database).all())
        assert Webhooks(database).rotate("webhook-x", OPERATOR) is None

    def test_a_hook_that_is_removed_takes_its_deliveries_along(self, store: Store, database: Database) -> None:
        it = hook(database)
        rejected(store)
        Counters(database).count()
        (trial,) = Webhooks(database).begin(places())
        assert Webhooks(database).remove(it.id, OPERATOR)
        assert not Webhooks(database).remove(it.id, OPERATOR)
        Webhooks(database).end(Tried(trial, 200, None))
        with database.read() as connection:
            assert connection.execute(select(deliveries)).all() == []

    def test_what_is_tried_says_nothing_of_an_event(self, database: Database) -> None:
        it = hook(database)
        assert Webhooks(database).test("webhook-x", "{}", "event-1") is None
        made = Webhooks(database).test(it.id, "{}", "event-1")
        assert made is not None
        (trial,) = Webhooks(database).begin(places())
        assert (trial.event_id, trial.body) == ("event-1", "{}")
        assert told(database) == []

    def test_old_deliveries_are_forgotten(self, store: Store, database: Database) -> None:
        it = hook(database)
        for _ in range(3):
            rejected(store)
        Counters(database).count()
        with database.write() as connection:
            connection.execute(update(deliveries).values(created_at=1_000_000))
        assert Webhooks(database).forget(older_than_s=60, limit=2) == 2
        assert Webhooks(database).forget(older_than_s=60, limit=2) == 1
        assert Webhooks(database).deliveries(it.id, limit=10) == []

    def test_many_that_begin_at_once_begin_each_trial_once(self, store: Store, database: Database) -> None:
        hook(database)
        hook(database, "https://other.example.com/")
        for _ in range(20):
            rejected(store)
        Counters(database).count()
        random = Random(1)

        def begin_all() -> list[str]:
            begun: list[str] = []
            while trials := Webhooks(database).begin(places(each=random.randint(1, 3))):
                begun += [each.delivery_id for each in trials]
            return begun

        with ThreadPoolExecutor(4) as pool:
            begun = [each for work in [pool.submit(begin_all) for _ in range(4)] for each in work.result(60)]
        assert len(begun) == len(set(begun)) == 40
