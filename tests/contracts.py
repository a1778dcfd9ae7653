"""What every store promises, as tests: a subclass names the store. Invariants are those of the design."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle, product
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text, update

from shared.errors import DigestMismatch, Failure, Truncated
from shared.fields import NAME, normalised
from shared.registration import (
    Accepted,
    AlreadyRegistered,
    Claim,
    Digest,
    Operator,
    OverQuota,
    Plugin,
    Progress,
    Registration,
    RegistrationId,
    Settlement,
    Status,
    Submission,
    Taken,
    Terms,
    Trip,
    host_of,
)
from shared.store.acknowledgements import Acknowledgements
from shared.store.actions import Actions
from shared.store.counters import Counters
from shared.store.database import Database
from shared.store.hot import MAX_FOR_NOTHING
from shared.store.registrations import Asked, Look, Renewal, Store, Wish
from shared.store.sessions import Sessions, name_of
from shared.store.snapshot import StoreSnapshots
from shared.store.tables import attempts, registrations
from shared.store.tokens import MAX_PATTERNS, Credential, LastAdmin, Token, Tokens, mint
from shared.store.upstreams import Upstreams
from shared.store.workers import Workers
from tests.conftest import RING_AGAIN_AFTER_S, a_parsed_submission
from tests.running import until

LEASE_S = 30.0
WRONG = DigestMismatch("They differ.", declared="sha256:" + "0" * 64, computed="sha256:" + "1" * 64).failure()
BROKEN = Truncated("The connection broke.").failure()
OPERATOR = Operator("on call", "token-1")


def submit(store: Store, submission: Submission) -> Registration:
    (outcome,) = store.submit([(submission, "tests")])
    assert isinstance(outcome, Accepted)
    return outcome.registration


def claim(store: Store, registration: Registration, *, lease_s: float = LEASE_S, max_attempts: int = 5) -> Claim:
    claimed = store.claim(registration.id, worker="tests", lease_s=lease_s, max_attempts=max_attempts)
    assert claimed is not None
    return claimed


def digest_of(submission: Submission) -> Digest:
    return Digest(submission.checksum.removeprefix("sha256:"), 123)


def now(store: Store, registration_id: RegistrationId) -> Registration:
    found = store.registration(registration_id)
    assert found is not None
    return found


def let_pass(store: Store, seconds: float) -> None:
    """Have everything in *store* be due so much sooner, as if that time had passed.

    What must not be due yet is then far from it, on a machine that is busy too, and nobody waits for what must be.
    """
    with store.database.write() as connection:
        sooner = text("UPDATE registrations SET due_at = due_at - :ms, ring_at = ring_at - :ms")
        connection.execute(sooner, {"ms": int(seconds * 1000)})


def register(store: Store, claim: Claim, digest: Digest | None = None) -> Status | None:
    return store.settle(Settlement.registered(claim, digest or digest_of(claim.submission)))


def reject(store: Store, claim: Claim, failure: Failure) -> bool:
    return store.settle(Settlement.rejected(claim, failure)) is not None


def fail(store: Store, claim: Claim, failure: Failure) -> bool:
    return store.settle(Settlement.failed(claim, failure)) is not None


def postpone(store: Store, claim: Claim, failure: Failure, *, delay_s: float) -> bool:
    return store.settle(Settlement.postponed(claim, failure, delay_s=delay_s)) is not None


def release(store: Store, claim: Claim) -> bool:
    return store.settle(Settlement.released(claim)) is not None


def claim_as_a_group(
    store: Store, *registrations: Registration, worker: str = "tests", max_attempts: int = 5
) -> list[Claim | None]:
    return store.work([Wish(each.id) for each in registrations], Terms(worker, LEASE_S, max_attempts))


def register_as_a_group(store: Store, *claims: Claim) -> list[Status | None]:
    settlements = [Settlement.registered(each, digest_of(each.submission)) for each in claims]
    return store.work(settlements, Terms("tests", LEASE_S, 5))


def plugins_of_registered_ones(store: Store) -> dict[str, Plugin]:
    """Return the plugins there are, each of which is that of one registration that is registered, by name."""
    plugins = store.plugins(limit=1000)
    registered = store.registrations(limit=1000, filters={"status": Status.REGISTERED})
    became = {each.plugin_id: (each.submission.name, each.submission.version) for each in registered}
    assert became == {each.id: (each.name, each.version) for each in plugins}
    assert len(became) == len(registered)
    return {each.name: each for each in plugins}


class StoreContract:
    """Run by every store there is; the fixture `store` gives a fresh one."""

    def test_a_submission_is_queued_and_keeps_what_was_submitted(self, store: Store) -> None:
        submission = a_parsed_submission(configSchema='{"type": "object"}', pluginRuntime="go")
        accepted = submit(store, submission)
        assert accepted == now(store, accepted.id)
        assert accepted.submission == submission
        assert (accepted.status, accepted.attempts, accepted.plugin_id) == (Status.QUEUED, 0, None)
        assert abs(accepted.created_at.timestamp() - time.time()) < 60

    def test_an_identical_submission_joins_the_one_in_flight(self, store: Store) -> None:
        submission = a_parsed_submission(name="Nginx log")
        first = submit(store, submission)
        spelled_otherwise = submission.model_copy(update={"name": "nginx_LOG"})
        (second,) = store.submit([(spelled_otherwise, "somebody else")])
        assert isinstance(second, Accepted)
        assert not second.new
        assert second.registration.id == first.id
        assert len(store.registrations(limit=10)) == 1

    def test_identical_submissions_of_one_group_share_one_registration(self, store: Store) -> None:
        submission = a_parsed_submission()
        outcomes = store.submit([(submission, "tests")] * 3)
        assert len({each.registration.id for each in outcomes if isinstance(each, Accepted)}) == 1
        assert [each.new for each in outcomes if isinstance(each, Accepted)] == [True, False, False]

    def test_identical_submissions_at_once_are_one_registration(self, store: Store) -> None:
        submission = a_parsed_submission()
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _n: store.submit([(submission, "tests")])[0], range(24)))
        accepted = [each for each in outcomes if isinstance(each, Accepted)]
        assert len(accepted) == 24
        assert len({each.registration.id for each in accepted}) == 1
        assert sum(each.new for each in accepted) == 1

    def test_a_submitter_has_no_more_in_flight_than_its_quota(self, database: Database) -> None:
        store = Store(database, max_in_flight=2)
        submissions = [a_parsed_submission() for _ in range(4)]
        first, second, third, of_another = store.submit(
            [(each, by) for each, by in zip(submissions, ["a", "a", "a", "b"], strict=True)]
        )
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert third == OverQuota(2)
        assert isinstance(of_another, Accepted)
        assert len(store.registrations(limit=10)) == 3, "what is refused leaves nothing behind"
        again, refused = store.submit([(submissions[0], "a"), (submissions[2], "a")])
        assert isinstance(again, Accepted), "what is in flight is joined, whatever the quota"
        assert not again.new
        assert refused == OverQuota(2)
        register(store, claim(store, first.registration))
        (known,) = store.submit([(submissions[0], "a")])
        assert isinstance(known, AlreadyRegistered)
        (third,) = store.submit([(submissions[2], "a")])
        assert isinstance(third, Accepted), "what has ended makes room"

    def test_a_quota_holds_for_one_submission_that_a_group_has_twice(self, database: Database) -> None:
        store = Store(database, max_in_flight=1)
        one, other = a_parsed_submission(), a_parsed_submission()
        outcomes = store.submit([(one, "a"), (other, "a"), (one, "b"), (other, "a")])
        assert [isinstance(each, OverQuota) for each in outcomes] == [False, True, False, True]
        assert len(store.registrations(limit=10)) == 1

    def test_what_an_operator_has_tried_again_is_not_counted(self, database: Database) -> None:
        store = Store(database, max_in_flight=1)
        failed = submit(store, a_parsed_submission())
        fail(store, claim(store, failed), BROKEN)
        submit(store, a_parsed_submission())
        (outcome,) = store.retry([now(store, failed.id)], Operator("tests", "token-1"))
        assert isinstance(outcome, Accepted)

    def test_what_a_token_without_a_label_has_tried_again_is_of_its_id(self, store: Store) -> None:
        failed = submit(store, a_parsed_submission())
        fail(store, claim(store, failed), BROKEN)
        (outcome,) = store.retry([now(store, failed.id)], Operator("", "token-1"))
        assert isinstance(outcome, Accepted)
        assert claim(store, outcome.registration).submitted_by == "token-1"

    def test_a_claim_is_for_one(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        with ThreadPoolExecutor(8) as pool:
            claims = list(
                pool.map(
                    lambda n: store.claim(registration.id, worker=str(n), lease_s=LEASE_S, max_attempts=5), range(16)
                )
            )
        (only,) = [each for each in claims if each is not None]
        assert (only.epoch, only.attempt) == (1, 1)
        assert now(store, registration.id).status is Status.VERIFYING

    def test_registering_writes_the_plugin_and_settles_the_registration(self, store: Store) -> None:
        submission = a_parsed_submission(pluginRuntime="go")
        claimed = claim(store, submit(store, submission))
        settled = register(store, claimed, digest_of(submission))
        assert settled is Status.REGISTERED
        became = now(store, claimed.registration_id)
        assert became.status is Status.REGISTERED
        assert became.plugin_id is not None
        plugin = store.plugin(became.plugin_id)
        assert plugin is not None
        assert plugin.model_dump(exclude={"id", "registered_at"}) == submission.model_dump()
        assert [each.id for each in store.plugins(limit=10)] == [plugin.id]

    def test_no_plugin_is_seen_before_its_registration_succeeded(self, store: Store) -> None:
        first, second = submit(store, a_parsed_submission()), submit(store, a_parsed_submission())
        claim(store, first)
        reject(store, claim(store, second), WRONG)
        assert store.plugins(limit=10) == []

    def test_a_submission_identical_to_a_plugin_returns_the_plugin(self, store: Store) -> None:
        submission = a_parsed_submission()
        registration = submit(store, submission)
        register(store, claim(store, registration), digest_of(submission))
        (again,) = store.submit([(submission, "tests")])
        assert isinstance(again, AlreadyRegistered)
        assert again.plugin.id == now(store, registration.id).plugin_id
        assert isinstance(store.preview(submission), AlreadyRegistered)
        assert len(store.registrations(limit=10)) == 1

    @pytest.mark.parametrize(
        "change",
        [
            {"checksum": "sha256:" + "cd" * 32},
            {"plugin_type": "trace"},
            {"config_schema": "true"},
            {"plugin_runtime": "python"},
        ],
    )
    def test_a_taken_name_and_version_is_told(self, store: Store, change: dict[str, str]) -> None:
        submission = a_parsed_submission()
        register(store, claim(store, submit(store, submission)), digest_of(submission))
        other = submission.model_copy(update=change)
        (outcome,) = store.submit([(other, "tests")])
        assert isinstance(outcome, Taken)
        assert isinstance(store.preview(other), Taken)
        assert len(store.registrations(limit=10)) == 1

    @pytest.mark.parametrize("query", ["", "?", "?sig=2&expires=9", "?sig=%2F/../"])
    def test_a_url_that_was_signed_anew_is_the_same(self, store: Store, query: str) -> None:
        submission = a_parsed_submission(artifactUrl="https://artifacts.example.com/a.tar.gz?sig=1")
        registration = submit(store, submission)
        register(store, claim(store, registration), digest_of(submission))
        again = submission.model_copy(update={"artifact_url": f"https://artifacts.example.com/a.tar.gz{query}"})
        (outcome,) = store.submit([(again, "tests")])
        assert outcome == store.preview(again) == AlreadyRegistered(store.plugins(limit=1)[0])
        assert outcome.plugin.artifact_url.endswith("?sig=1")

    @pytest.mark.parametrize(
        "url", ["https://artifacts.example.com/b.tar.gz?sig=1", "https://b.example.com/a.tar.gz"]
    )
    def test_the_same_content_from_another_url_is_told_as_that(self, store: Store, url: str) -> None:
        submission = a_parsed_submission(artifactUrl="https://artifacts.example.com/a.tar.gz?sig=1")
        register(store, claim(store, submit(store, submission)), digest_of(submission))
        other = submission.model_copy(update={"artifact_url": url})
        (outcome,) = store.submit([(other, "tests")])
        assert isinstance(outcome, Taken)
        failure = outcome.conflict.failure()
        assert (failure.cause, failure.facts["pluginId"]) == ("same-content", store.plugins(limit=1)[0].id)
        another = other.model_copy(update={"checksum": "sha256:" + "cd" * 32})
        (outcome,) = store.submit([(another, "tests")])
        assert isinstance(outcome, Taken)
        assert outcome.conflict.failure().cause == "conflict"

    def test_two_that_were_signed_differently_are_one_plugin_and_neither_is_blamed(self, store: Store) -> None:
        one = a_parsed_submission(artifactUrl="https://artifacts.example.com/a.tar.gz?sig=1")
        two = one.model_copy(update={"artifact_url": "https://artifacts.example.com/a.tar.gz?sig=2"})
        first, second = claim(store, submit(store, one)), claim(store, submit(store, two))
        register(store, first, digest_of(one))
        register(store, second, digest_of(two))
        late = now(store, second.registration_id)
        assert late.failure is not None
        assert (late.failure.cause, late.failure.facts["pluginId"]) == (
            "registered-meanwhile",
            now(store, first.registration_id).plugin_id,
        )
        assert len(store.plugins(limit=10)) == 1

    def test_the_first_to_finish_has_the_name_and_the_other_is_told(self, store: Store) -> None:
        ours = a_parsed_submission()
        theirs = ours.model_copy(update={"checksum": "sha256:" + "cd" * 32})
        first, second = claim(store, submit(store, ours)), claim(store, submit(store, theirs))
        assert register(store, second, digest_of(theirs)) is Status.REGISTERED
        assert register(store, first, digest_of(ours)) is Status.REJECTED
        won, lost = now(store, second.registration_id), now(store, first.registration_id)
        assert (won.status, lost.status, lost.plugin_id) == (Status.REGISTERED, Status.REJECTED, None)
        assert lost.failure is not None
        assert lost.failure.code == "conflict"
        assert lost.failure.facts == {"pluginId": won.plugin_id, "checksum": theirs.checksum}
        assert len(store.plugins(limit=10)) == 1

    def test_a_failed_registration_frees_its_name(self, store: Store) -> None:
        submission = a_parsed_submission()
        first = submit(store, submission)
        reject(store, claim(store, first), WRONG)
        assert submit(store, submission).id != first.id

    def test_a_lease_that_ran_out_can_be_claimed_again(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        first = claim(store, registration)
        let_pass(store, LEASE_S)
        second = claim(store, registration)
        assert (second.epoch, second.attempt) == (first.epoch + 1, 2)

    def test_a_stale_worker_can_write_nothing_on_a_live_registration(self, store: Store) -> None:
        submission = a_parsed_submission()
        registration = submit(store, submission)
        stale = claim(store, registration)
        let_pass(store, LEASE_S)
        live = claim(store, registration)
        before = now(store, registration.id)
        assert register(store, stale, digest_of(submission)) is None
        assert not reject(store, stale, WRONG)
        assert not fail(store, stale, BROKEN)
        assert not postpone(store, stale, BROKEN, delay_s=1)
        assert not release(store, stale)
        assert store.renew([Progress(stale.registration_id, stale.epoch, 99, 99)], lease_s=LEASE_S) == set()
        assert now(store, registration.id) == before
        assert store.plugins(limit=10) == []
        assert register(store, live, digest_of(submission)) is not None

    def test_a_final_state_never_changes(self, store: Store) -> None:
        for settle in (
            lambda it: register(store, it, digest_of(it.submission)),
            lambda it: reject(store, it, WRONG),
            lambda it: fail(store, it, BROKEN),
        ):
            registration = submit(store, a_parsed_submission())
            claimed = claim(store, registration)
            assert settle(claimed)
            let_pass(store, LEASE_S)
            before = now(store, registration.id)
            assert before.status.final
            assert register(store, claimed, digest_of(claimed.submission)) is None
            assert not reject(store, claimed, WRONG)
            assert not fail(store, claimed, BROKEN)
            assert not postpone(store, claimed, BROKEN, delay_s=0)
            assert not release(store, claimed)
            assert store.claim(registration.id, worker="w", lease_s=1, max_attempts=99) is None
            assert store.ring_due(10) == []
            assert store.fail_used_up(1) == []
            assert now(store, registration.id) == before

    def test_attempts_are_counted_at_the_claim_and_run_out(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        for _ in range(2):
            claim(store, registration, max_attempts=2)  # and its worker dies
            let_pass(store, LEASE_S)
        assert store.claim(registration.id, worker="w", lease_s=1, max_attempts=2) is None
        assert store.fail_used_up(2) == [registration.id]
        ended = now(store, registration.id)
        assert ended.status is Status.FAILED
        assert ended.attempts == 2
        assert ended.failure is not None
        assert ended.failure.code == "attempts-used-up"

    def test_what_two_workers_were_lost_with_is_failed_and_takes_no_third_along(self, store: Store) -> None:
        deadly, innocent = submit(store, a_parsed_submission()), submit(store, a_parsed_submission())
        claim(store, deadly, lease_s=30, max_attempts=9)
        claim(store, innocent, lease_s=30, max_attempts=9)
        let_pass(store, 30)
        assert store.fail_used_up(9) == []
        assert postpone(store, claim(store, innocent, max_attempts=9), BROKEN, delay_s=0)
        claim(store, deadly, lease_s=30, max_attempts=9)
        let_pass(store, 30)
        assert store.claim(deadly.id, worker="w", lease_s=1, max_attempts=9) is None
        assert store.fail_used_up(9) == [deadly.id]
        ended = now(store, deadly.id)
        assert (ended.status, ended.attempts) == (Status.FAILED, 2)
        assert ended.failure is not None
        assert (ended.failure.code, ended.failure.cause) == ("attempts-used-up", "workers-lost")
        assert ended.failure.fault == "registry"
        assert ended.failure.retryable
        assert claim(store, innocent, max_attempts=9).attempt == 3, "one lease that ran out is no reason"

    def test_a_lease_that_a_living_worker_could_not_renew_is_no_reason_to_suspect_the_artifact(
        self, store: Store, database: Database
    ) -> None:
        workers = Workers(database)
        registration = submit(store, a_parsed_submission())
        for worker in ("away", "away", "away", "lost", "another"):
            workers.here(worker, max_downloads=1)
            claimed = store.claim(registration.id, worker=worker, lease_s=30, max_attempts=9)
            assert claimed is not None, worker
            let_pass(store, 30)
            assert store.fail_used_up(9) == []
            if worker != "away":
                assert sum(workers.count_lost(missed=2) for _ in range(2))
        assert store.claim(registration.id, worker="w", lease_s=1, max_attempts=9) is None
        assert store.fail_used_up(9) == [registration.id]

    def test_a_worker_is_lost_that_sweeps_in_a_row_have_not_heard_of_and_is_counted_once(
        self, store: Store, database: Database
    ) -> None:
        workers = Workers(database)
        workers.here("one", max_downloads=1)
        workers.here("two", max_downloads=1)
        assert workers.count_lost(missed=3) == 0
        assert workers.count_lost(missed=3) == 0
        workers.here("one", max_downloads=1)
        assert workers.count_lost(missed=3) == 1
        workers.gone("one")
        assert workers.count_lost(missed=3) == 0
        workers.here("two", max_downloads=1)
        assert [workers.count_lost(missed=3) for _ in range(4)] == [0, 0, 1, 0]
        assert StoreSnapshots(database).take().counters["workers_lost", ()] == 2

    def test_a_claim_in_its_last_attempt_is_not_failed_while_its_lease_lasts(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        claim(store, registration, max_attempts=1)
        assert store.fail_used_up(1) == []

    def test_a_postponed_registration_waits_its_time(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        assert postpone(store, claim(store, registration), BROKEN, delay_s=60)
        waiting = now(store, registration.id)
        assert (waiting.status, waiting.failure) == (Status.QUEUED, BROKEN)
        assert waiting.next_attempt_at is not None
        assert waiting.next_attempt_at > waiting.updated_at
        assert store.claim(registration.id, worker="w", lease_s=1, max_attempts=5) is None
        assert store.ring_due(10) == []
        let_pass(store, 60)
        assert store.ring_due(10) == [registration.id]
        assert claim(store, registration).attempt == 2

    def test_a_released_claim_costs_no_attempt_and_is_due_at_once(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        assert release(store, claim(store, registration))
        assert now(store, registration.id).attempts == 0
        assert store.ring_due(10) == [registration.id]
        assert claim(store, registration).attempt == 1

    def test_renewing_extends_the_lease_and_notes_progress(self, store: Store) -> None:
        first, second = submit(store, a_parsed_submission()), submit(store, a_parsed_submission())
        claims = [claim(store, first), claim(store, second)]
        let_pass(store, LEASE_S)
        progress = [
            Progress(claims[0].registration_id, 1, 10, 100),
            Progress(claims[1].registration_id, 1, 20, None),
        ]
        assert store.renew(progress, lease_s=LEASE_S) == {(first.id, 1), (second.id, 1)}
        assert store.claim(first.id, worker="w", lease_s=1, max_attempts=5) is None
        assert [
            (each.bytes_downloaded, each.artifact_bytes) for each in (now(store, first.id), now(store, second.id))
        ] == [
            (10, 100),
            (20, None),
        ]
        assert store.renew([], lease_s=LEASE_S) == set()

    def test_the_sweep_rings_for_what_nobody_claimed_and_not_twice_at_once(self, store: Store) -> None:
        missed = submit(store, a_parsed_submission())
        assert store.ring_due(10) == []  # its own bell may still be on its way
        let_pass(store, RING_AGAIN_AFTER_S)
        assert store.ring_due(10) == [missed.id]
        assert store.ring_due(10) == []
        let_pass(store, RING_AGAIN_AFTER_S)
        assert store.ring_due(10) == [missed.id]

    def test_the_sweep_rings_for_a_dead_workers_claim(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        claim(store, registration)
        let_pass(store, LEASE_S)
        assert store.ring_due(10) == [registration.id]

    def test_the_sweep_takes_no_more_than_it_is_given_room_for_and_the_longest_due_first(self, store: Store) -> None:
        waiting = []
        for _ in range(5):
            waiting.append(submit(store, a_parsed_submission()).id)
            time.sleep(0.002)  # the store's clock tells milliseconds apart
        let_pass(store, RING_AGAIN_AFTER_S)
        assert store.ring_due(0) == []
        assert store.ring_due(-3) == []
        assert set(store.ring_due(2)) == set(waiting[:2])
        assert set(store.ring_due(10)) == set(waiting[2:])

    def test_lists_are_paged_newest_first_and_filtered(self, store: Store) -> None:
        submissions = [a_parsed_submission(name=f"Paged Plugin {n % 2}", version=f"1.0.{n}") for n in range(7)]
        ids = [submit(store, each).id for each in submissions]
        pages = [store.registrations(limit=3), *[[]] * 3]
        for n in range(1, 4):
            pages[n] = store.registrations(limit=3, before=pages[n - 1][-1].id) if pages[n - 1] else []
        assert [each.id for page in pages for each in page] == ids[::-1]
        odd = store.registrations(limit=10, filters={"name": "paged-plugin_1"})
        assert [each.id for each in odd] == ids[1::2][::-1]
        assert store.registrations(limit=10, filters={"status": "failed"}) == []
        assert [each.id for each in store.registrations(limit=10, filters={"version": "1.0.3"})] == [ids[3]]

    def test_a_list_limited_to_names_is_full_pages_of_those_alone(self, store: Store) -> None:
        submissions = [a_parsed_submission(name=f"team-{'ab'[n % 2]}-{n}") for n in range(14)]
        ours = [submit(store, each).id for each in submissions][1::2][::-1]
        pages, before = [], None
        while found := store.registrations(limit=3, before=before, names=["team-b-*"]):
            pages.append([each.id for each in found])
            before = found[-1].id
        assert pages == [ours[:3], ours[3:6], ours[6:]]
        nobodys = store.registrations(limit=3, filters={"name": "team-a-0"}, names=["team-b-*"])
        assert nobodys == []
        both = store.registrations(limit=20, names=["team-b-*", "TEAM_A 2"])
        assert {each.id for each in both} > set(ours)
        assert len(both) == len(ours) + 1

    def test_a_list_limited_to_names_holds_exactly_what_a_token_for_these_may_use(self, store: Store) -> None:
        letters = [text for n in range(1, 5) for text in map("".join, product("aB-", repeat=n))]
        names = list({normalised(text): text for text in letters if re.fullmatch(NAME, text)}.values())
        store.submit([(a_parsed_submission(name=name), "tests") for name in names])
        parts = [*"aAbB-_. *?*?%\\", "[ab]", "[!b]"]
        patterns = st.lists(st.sampled_from(parts), max_size=6).map("".join)

        @given(st.lists(patterns, min_size=1, max_size=3))
        @settings(max_examples=200, deadline=None)
        def holds(limits: list[str]) -> None:
            token = Token("id", "label", frozenset(), tuple(limits), datetime.now(UTC), None, None)
            listed = store.registrations(limit=len(names), names=limits)
            assert {each.submission.name for each in listed} == set(filter(token.may_use_name, names))

        holds()

    def test_a_list_may_be_limited_to_as_many_names_as_a_token(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission(name="plugin-of-ours"))
        limits = [*(f"other-{n}-*" for n in range(MAX_PATTERNS - 1)), "plugin-of-*"]
        assert [each.id for each in store.registrations(limit=3, names=limits)] == [registration.id]
        assert Actions(store.database).list(limit=3, names=limits) == []

    def test_what_is_long_over_is_pruned_and_plugins_never(self, store: Store) -> None:
        running = submit(store, a_parsed_submission())
        claimed = submit(store, a_parsed_submission())
        claim(store, claimed)
        over = [submit(store, a_parsed_submission()) for _ in range(3)]
        for each in over:
            assert register(store, claim(store, each), digest_of(each.submission)) is not None
        assert store.prune(older_than_s=60, limit=10) == 0
        time.sleep(0.01)
        assert store.prune(older_than_s=0, limit=2) == 0, "not before they are counted"
        assert Counters(store.database).count() == 3
        assert store.prune(older_than_s=0, limit=2) == 2
        assert [each.id for each in store.registrations(limit=10)] == [over[2].id, claimed.id, running.id]
        assert store.prune(older_than_s=0, limit=2) == 1
        assert {each.id for each in store.registrations(limit=10)} == {running.id, claimed.id}
        assert len(store.plugins(limit=10)) == 3
        (again,) = store.submit([(over[0].submission, "tests")])
        assert isinstance(again, AlreadyRegistered)

    def test_settled_tells_only_of_final_ones(self, store: Store) -> None:
        running, done = submit(store, a_parsed_submission()), submit(store, a_parsed_submission())
        reject(store, claim(store, done), WRONG)
        (settled,) = (each.registration for each in store.settled([running.id, done.id]))
        assert settled.id == done.id
        assert settled.failure == WRONG

    def test_a_failure_is_kept_whole(self, store: Store) -> None:
        failure = Failure("a-code", "What happened: \u00e4 \U0001f600.", "upstream", True, {"declared": "x"})
        registration = submit(store, a_parsed_submission())
        fail(store, claim(store, registration), failure)
        assert now(store, registration.id).failure == failure

    def test_what_is_not_there_is_none(self, store: Store) -> None:
        assert store.registration("registration-none") is None
        assert store.plugin("plugin-none") is None
        assert store.claim(RegistrationId("registration-none"), worker="w", lease_s=1, max_attempts=5) is None
        assert store.settled([]) == []

    def test_of_a_group_each_is_claimed_once_and_who_asks_twice_has_it_once(self, store: Store) -> None:
        first, second, third = (submit(store, a_parsed_submission()) for _ in range(3))
        claims = claim_as_a_group(store, third, first, second, first)
        assert [each and each.registration_id for each in claims] == [third.id, first.id, second.id, None]
        assert [(each.epoch, each.attempt, each.submission) for each in claims if each] == [
            (1, 1, its.submission) for its in (third, first, second)
        ]
        assert {(now(store, each.id).status, now(store, each.id).attempts) for each in (first, second, third)} == {
            (Status.VERIFYING, 1)
        }

    def test_of_a_group_only_what_is_due_is_claimed(self, store: Store) -> None:
        due, held, over, waiting = (submit(store, a_parsed_submission()) for _ in range(4))
        claim(store, held)
        reject(store, claim(store, over, lease_s=0), WRONG)
        postpone(store, claim(store, waiting), BROKEN, delay_s=LEASE_S)
        before = [now(store, each.id) for each in (held, over, waiting)]
        claims = claim_as_a_group(store, held, over, due, waiting)
        assert [each and each.registration_id for each in claims] == [None, None, due.id, None]
        assert [now(store, each.id) for each in (held, over, waiting)] == before

    def test_a_group_of_successes_writes_every_plugin_and_settles_every_registration(self, store: Store) -> None:
        claims = [claim(store, submit(store, a_parsed_submission())) for _ in range(4)]
        settlements = [
            Settlement.registered(each, Digest("ab" * 32, size_bytes))
            for size_bytes, each in enumerate(reversed(claims))
        ]
        assert store.work(settlements, Terms("tests", LEASE_S, 5)) == [Status.REGISTERED] * 4
        settled = [now(store, each.registration_id) for each in reversed(claims)]
        assert [(each.status, each.bytes_downloaded, each.artifact_bytes) for each in settled] == [
            (Status.REGISTERED, size_bytes, size_bytes) for size_bytes in range(4)
        ]
        plugins = plugins_of_registered_ones(store)
        assert {name: plugin.id for name, plugin in plugins.items()} == {
            each.submission.name: each.plugin_id for each in settled
        }

    @pytest.mark.parametrize(
        "lose",
        [
            pytest.param(lambda store, it: claim(store, now(store, it.registration_id)), id="claimed-again"),
            pytest.param(lambda store, it: store.cancel(it.registration_id, OPERATOR), id="canceled"),
            pytest.param(lambda store, it: reject(store, it, WRONG), id="settled"),
            pytest.param(release, id="released"),
        ],
    )
    def test_of_a_group_the_one_that_was_lost_writes_nothing_and_the_others_are_registered(
        self, store: Store, lose: Callable[[Store, Claim], object]
    ) -> None:
        first, lost, last = (claim(store, submit(store, a_parsed_submission()), lease_s=0.01) for _ in range(3))
        time.sleep(0.05)
        lose(store, lost)
        before = now(store, lost.registration_id)
        settled = register_as_a_group(store, first, lost, last)
        assert settled == [Status.REGISTERED, None, Status.REGISTERED]
        assert now(store, lost.registration_id) == before
        assert plugins_of_registered_ones(store).keys() == {first.submission.name, last.submission.name}

    def test_who_is_twice_in_a_group_is_registered_once(self, store: Store) -> None:
        twice, other = (claim(store, submit(store, a_parsed_submission())) for _ in range(2))
        assert register_as_a_group(store, twice, other, twice) == [Status.REGISTERED] * 3
        assert plugins_of_registered_ones(store).keys() == {twice.submission.name, other.submission.name}

    def test_all_that_a_worker_asks_for_at_once_is_answered_in_its_order(self, store: Store) -> None:
        due, other = (submit(store, a_parsed_submission()) for _ in range(2))
        held, wrong, gone, back = (claim(store, submit(store, a_parsed_submission())) for _ in range(4))
        asked: list[Asked] = [
            Look((other.id, due.id, held.registration_id, RegistrationId("registration-none"))),
            Wish(due.id),
            Settlement.rejected(wrong, WRONG),
            Renewal(Progress(held.registration_id, held.epoch, 1, 2)),
            Renewal(Progress(gone.registration_id, 7, 0, None)),
            Settlement.released(back),
            Settlement.registered(gone, digest_of(gone.submission)),
            Look(()),
        ]
        looked, claimed, rejected, ours, lost, released, registered, nothing = store.work(
            asked, Terms("w", LEASE_S, 5)
        )
        assert [each.id for each in looked] == [other.id], "what was claimed in the same go is no longer to be had"
        assert looked[0].artifact_url == other.submission.artifact_url
        assert looked[0].submitted_by == "tests"
        assert (claimed.registration_id, claimed.submission, claimed.submitted_by) == (
            due.id,
            due.submission,
            "tests",
        )
        assert (ours, lost) == (True, False)
        assert (rejected, released, registered) == (Status.REJECTED, Status.QUEUED, Status.REGISTERED)
        assert nothing == []
        assert (now(store, back.registration_id).attempts, now(store, back.registration_id).claimed_by) == (0, None)

    def test_two_claims_of_one_registration_in_a_group_are_told_apart(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        stale = claim(store, registration)
        let_pass(store, LEASE_S)
        live = claim(store, registration)
        for settlements in ([stale, live], [live, stale]):
            told = register_as_a_group(store, *settlements)
            assert told == [Status.REGISTERED if each is live else None for each in settlements] or told == [None] * 2
        assert now(store, registration.id).status is Status.REGISTERED
        assert len(plugins_of_registered_ones(store)) == 1

    def test_an_attempt_that_is_given_back_counts_for_nothing_and_says_why(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        given_back = Settlement.postponed(claim(store, registration), BROKEN, delay_s=LEASE_S, given_back=True)
        assert store.settle(given_back) is Status.QUEUED
        waiting = now(store, registration.id)
        assert (waiting.attempts, waiting.failure) == (0, BROKEN)
        assert store.claim(registration.id, worker="w", lease_s=1, max_attempts=5) is None, "it is not due yet"

    @pytest.mark.parametrize("outlived", [True, False])
    def test_a_lease_that_ran_out_while_its_worker_lived_costs_no_attempt(
        self, store: Store, database: Database, outlived: bool
    ) -> None:
        registration = submit(store, a_parsed_submission())
        workers = Workers(database)
        workers.here("tests", max_downloads=1)
        for _ in range(3):
            claim(store, registration, max_attempts=1 if outlived else 5)
            let_pass(store, LEASE_S)
            time.sleep(0.005)  # the worker is heard of after the lease has ended, which is to the millisecond
            if outlived:
                workers.here("tests", max_downloads=1)
                assert store.fail_used_up(1) == []
            else:
                with database.write() as connection:
                    connection.execute(text("UPDATE workers SET seen_at = seen_at - 100000"))
        assert now(store, registration.id).attempts == (1 if outlived else 3)

    def test_what_outlives_its_leases_again_and_again_has_an_end(self, store: Store, database: Database) -> None:
        """Invariant 7: whatever it is that keeps its worker from writing, and though the worker lives."""
        registration, workers, claims = submit(store, a_parsed_submission()), Workers(database), 0
        workers.here("tests", max_downloads=1)
        while store.claim(registration.id, worker="tests", lease_s=LEASE_S, max_attempts=3):
            claims += 1
            let_pass(store, LEASE_S)
            time.sleep(0.002)
            workers.here("tests", max_downloads=1)
            assert claims < 100
        assert claims >= MAX_FOR_NOTHING
        assert store.fail_used_up(3) == [registration.id]

    def test_of_two_in_a_group_that_want_one_name_one_has_it_and_the_other_is_told(self, store: Store) -> None:
        ours = a_parsed_submission()
        theirs = ours.model_copy(update={"checksum": "sha256:" + "cd" * 32})
        claims = [claim(store, submit(store, each)) for each in (ours, theirs, a_parsed_submission())]
        *rivals, bystander = register_as_a_group(store, *claims)
        assert bystander is Status.REGISTERED
        assert set(rivals) == {Status.REGISTERED, Status.REJECTED}, "each by itself, and so in any order"
        won, lost = (
            now(store, claims[rivals.index(each)].registration_id) for each in (Status.REGISTERED, Status.REJECTED)
        )
        assert lost.plugin_id is None
        assert lost.failure is not None
        assert lost.failure.code == "conflict"
        assert lost.failure.facts == {"pluginId": won.plugin_id, "checksum": won.submission.checksum}
        assert plugins_of_registered_ones(store)[ours.name].checksum == won.submission.checksum

    def test_of_a_group_the_one_whose_name_is_taken_is_told_and_the_others_are_registered(self, store: Store) -> None:
        taken = a_parsed_submission()
        late = taken.model_copy(update={"plugin_runtime": "python"})
        first, loser, winner, last = (
            claim(store, submit(store, each)) for each in (a_parsed_submission(), late, taken, a_parsed_submission())
        )
        register(store, winner, digest_of(taken))
        settled = register_as_a_group(store, first, loser, last)
        assert settled == [Status.REGISTERED, Status.REJECTED, Status.REGISTERED]
        rejected = now(store, loser.registration_id)
        assert rejected.failure is not None
        assert rejected.failure.code == "conflict"
        assert plugins_of_registered_ones(store).keys() == {each.submission.name for each in (first, winner, last)}

    def test_claims_are_renewed_and_settled_in_groups_by_two_stores_at_once_and_none_is_in_anothers_way(
        self, store: Store, database: Database
    ) -> None:
        stores = (store, Store(database))
        claims = [claim(store, submit(store, a_parsed_submission())) for _ in range(80)]
        progress = [Progress(each.registration_id, each.epoch, 1, None) for each in claims]
        over = threading.Event()

        def renew(order: list[Progress]) -> None:
            while not over.is_set():
                store.renew(order, lease_s=LEASE_S)

        with ThreadPoolExecutor(18) as pool:
            renewing = [pool.submit(renew, each) for each in (progress, progress[::-1])]
            asked = Random(1).sample(claims * 2, len(claims) * 2)
            settling = [pool.submit(register, it, each) for it, each in zip(cycle(stores), asked, strict=False)]
            try:
                settled = Counter(each.result() for each in settling)
            finally:
                over.set()
            for each in renewing:
                each.result()
        assert settled == {Status.REGISTERED: len(claims), None: len(claims)}
        assert plugins_of_registered_ones(store).keys() == {each.submission.name for each in claims}


class TokenContract:
    """What every store of tokens promises."""

    def test_a_token_proves_who_made_it_and_what_it_allows(self, database: Database) -> None:
        tokens = Tokens(database)
        made = tokens.create("ci", ["register", "read"], names=["nginx-*", "apache-*"])
        token = tokens.authenticate(made.text)
        assert token is not None
        assert (token.id, token.label, sorted(token.scopes)) == (made.id, "ci", ["read", "register"])
        assert token.names == ("nginx-*", "apache-*")
        assert tokens.list() == [token]

    def test_a_token_with_another_secret_is_nobodys(self, database: Database) -> None:
        tokens = Tokens(database)
        made = tokens.create("ci", ["read"])
        assert tokens.authenticate(Credential(made.id, "x" * 40).text) is None
        assert tokens.authenticate(mint().text) is None

    def test_an_expired_token_is_refused_by_the_databases_clock(self, database: Database) -> None:
        tokens = Tokens(database)
        lasting, short = (tokens.create("ci", ["read"], lifetime_s=lifetime_s) for lifetime_s in (60, 0.01))
        assert tokens.authenticate(lasting.text) is not None
        until(lambda: tokens.authenticate(short.text) is None, what="the end of the token")

    def test_revoking_works_at_once_and_for_good(self, database: Database) -> None:
        tokens = Tokens(database)
        made = tokens.create("ci", ["read"])
        assert tokens.revoke(made.id)
        revoked_at = tokens.list()[0].revoked_at
        assert tokens.revoke(made.id)
        assert tokens.list()[0].revoked_at == revoked_at
        assert tokens.authenticate(made.text) is None
        for nobody in ("nobody", "a" * 12, "a" * 11 + "\0", "\ud800" * 12):
            assert tokens.revoke(nobody) is None

    @pytest.mark.parametrize("hidden", ["\x1b", "\n", "\u202e", "\u200b"], ids=ascii)
    def test_a_token_whose_label_hides_something_is_not_made(self, database: Database, hidden: str) -> None:
        tokens = Tokens(database)
        with pytest.raises(ValueError, match=f"label must not hold U\\+{ord(hidden):04X}"):
            tokens.create(f"ci{hidden}", ["read"])
        assert tokens.list() == []

    def test_a_token_with_too_many_patterns_is_not_made(self, database: Database) -> None:
        tokens = Tokens(database)
        with pytest.raises(ValueError, match="100 patterns"):
            tokens.create("ci", ["read"], names=[f"team-{n}-*" for n in range(MAX_PATTERNS + 1)])
        assert tokens.list() == []

    def test_a_token_whose_label_or_pattern_is_too_long_is_not_made(self, database: Database) -> None:
        tokens = Tokens(database)
        with pytest.raises(ValueError, match="label may have 200 characters"):
            tokens.create("x" * 201, ["read"])
        with pytest.raises(ValueError, match="may have 100 characters"):
            tokens.create("ci", ["read"], names=["x" * 101])
        assert tokens.list() == []

    def test_a_new_token_is_told_as_it_is_kept_and_its_text_only_then(self, database: Database) -> None:
        tokens = Tokens(database)
        made = tokens.create("ci", ["read", "register", "read"], names=["nginx-*"], lifetime_s=60)
        (kept,) = tokens.list()
        assert kept == tokens.authenticate(made.text)
        assert (made.id, made.label, made.scopes, made.names) == (kept.id, kept.label, kept.scopes, kept.names)
        assert (made.created_at, made.expires_at, made.revoked_at) == (kept.created_at, kept.expires_at, None)
        assert made.text not in repr(made)

    def test_what_a_token_made_and_revoked_is_recorded_once(self, database: Database) -> None:
        tokens = Tokens(database)
        made = tokens.create("ci", ["read"], by=OPERATOR)
        for _ in range(2):
            revoked = tokens.revoke(made.id, by=OPERATOR)
            assert revoked is not None
            assert revoked.revoked_at is not None
        assert tokens.revoke("nobody", by=OPERATOR) is None
        tokens.revoke(tokens.create("by hand", ["read"]).id)
        recorded = [
            (each.what, each.by, each.subject, each.note, each.registration_id)
            for each in Actions(database).list(limit=9)
        ]
        assert recorded == [
            ("revoke-token", OPERATOR.label, made.id, "ci", None),
            ("create-token", OPERATOR.label, made.id, "ci", None),
        ]

    def test_the_last_that_can_make_tokens_is_revoked_only_by_who_has_the_store(self, database: Database) -> None:
        tokens = Tokens(database)
        last, other = (tokens.create(label, ["admin"]) for label in ("last", "other"))
        tokens.create("of some names", ["admin"], names=["nginx-*"])
        tokens.create("of another scope", ["read", "register", "operate"])
        short = tokens.create("over soon", ["admin"], lifetime_s=0.01)
        until(lambda: tokens.authenticate(short.text) is None, what="the end of the token")
        assert tokens.revoke(other.id, by=OPERATOR), "there is another one"
        with pytest.raises(LastAdmin):
            tokens.revoke(last.id, by=OPERATOR)
        assert tokens.authenticate(last.text) is not None
        assert tokens.revoke(other.id, by=OPERATOR), "again does no harm"
        assert tokens.revoke(last.id), "who has the store can make another"
        assert tokens.authenticate(last.text) is None

    def test_of_two_that_revoke_each_other_one_stays(self, database: Database) -> None:
        tokens = Tokens(database)
        for _ in range(10):
            pair = [tokens.create(label, ["admin"]) for label in ("one", "other")]
            together = threading.Barrier(2)

            def revoke(token_id: str, together: threading.Barrier = together) -> bool:
                together.wait()
                try:
                    return tokens.revoke(token_id, by=OPERATOR) is not None
                except LastAdmin:
                    return False

            with ThreadPoolExecutor(2) as pool:
                assert sorted(pool.map(revoke, [each.id for each in pair])) == [False, True]
            for each in pair:
                tokens.revoke(each.id)


class SessionContract:
    """What holds of a session at the page; the fixture `database` gives a migrated one."""

    def test_a_session_is_its_tokens_until_it_is_closed(self, database: Database) -> None:
        _tokens, sessions, token = signing_in(database)
        secret, other = sessions.open(token), sessions.open(token)
        assert sessions.whose(secret) == token
        assert sessions.good() == {name_of(secret), name_of(other)}
        sessions.close(secret)
        assert sessions.whose(secret) is None
        assert sessions.whose(other) == token, "each is ended by itself"
        assert sessions.whose("nobody's") is None

    def test_a_session_expires_by_the_databases_clock(self, database: Database) -> None:
        tokens, sessions, token = signing_in(database)
        short = Sessions(database, tokens, lifetime_s=0.01)
        secret = short.open(token)
        until(lambda: short.whose(secret) is None, what="the end of the session")
        assert sessions.good() == set()
        kept = sessions.open(token)  # forgets those that are over
        assert sessions.good() == {name_of(kept)}

    def test_a_session_ends_with_its_token(self, database: Database) -> None:
        tokens, sessions, token = signing_in(database)
        secret = sessions.open(token)
        tokens.revoke(token.id)
        assert sessions.whose(secret) is None
        assert sessions.good() == set()


def signing_in(database: Database) -> tuple[Tokens, Sessions, Token]:
    tokens = Tokens(database)
    token = tokens.authenticate(tokens.create("on call", ["read", "operate"]).text)
    assert token is not None
    return tokens, Sessions(database, tokens), token


class OperatorContract:
    """What operators see and do, on every database there is; the fixture `database` gives a migrated one."""

    def test_each_attempt_is_kept_with_what_it_saw_and_goes_with_its_registration(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        first = claim(store, registration)
        hops = ("https://mirror.example.com/a",)
        store.settle(replace(Settlement.postponed(first, BROKEN, delay_s=0), trip=Trip(7, hops)))
        store.settle(Settlement.released(claim(store, registration)))
        third = claim(store, registration)
        assert store.settle(replace(Settlement.registered(third, digest_of(third.submission)), trip=Trip(123, hops)))
        told = store.attempts(now(store, registration.id))
        assert [(each.epoch, each.worker, each.trip, each.failure) for each in told] == [
            (1, "tests", Trip(7, hops), BROKEN),
            (3, "tests", Trip(123, hops), None),
        ], "of what was put back nothing is told"
        assert all(each.begun_at <= each.ended_at for each in told)
        Counters(store.database).count()
        assert store.prune(older_than_s=-1, limit=10) == 1
        with store.database.read() as connection:
            assert connection.execute(select(attempts)).all() == []

    def test_a_late_word_notes_no_attempt(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        late = claim(store, registration, lease_s=0)
        again = claim(store, registration)
        assert store.settle(Settlement.rejected(late, WRONG)) is None
        assert store.settle(Settlement.rejected(again, WRONG)) is Status.REJECTED
        assert [each.epoch for each in store.attempts(now(store, registration.id))] == [again.epoch]

    def test_from_a_paused_host_nothing_is_claimed_until_it_is_resumed(self, store: Store) -> None:
        upstreams = Upstreams(store.database)
        there = submit(store, a_parsed_submission(artifactUrl="https://Broken.example.com:8443/a.tgz"))
        elsewhere = submit(store, a_parsed_submission())
        under_way = claim(store, submit(store, a_parsed_submission(artifactUrl="https://broken.example.com:8443/b")))
        host = "broken.example.com:8443"
        assert upstreams.pause(host, OPERATOR, "it is on fire")
        assert not upstreams.pause(host, OPERATOR, "again")
        looked = store.work([Look((there.id, elsewhere.id))], Terms("w", 9, 5))[0]
        assert [each.id for each in looked] == [elsewhere.id]
        assert store.claim(there.id, worker="w", lease_s=9, max_attempts=5) is None
        assert store.ring_due(10) == [], "and nobody rings for it"
        with store.database.write() as connection:
            connection.execute(update(registrations).values(ring_at=0))
        assert store.ring_due(10) == [elsewhere.id]
        assert register(store, under_way) is Status.REGISTERED, "what is under way goes on"
        seen = upstreams.seen(host)
        assert (seen.paused and seen.paused.note, seen.in_flight) == ("it is on fire", 1)
        assert [each.id for each in seen.newest][-1] == there.id
        snapshot = StoreSnapshots(store.database).take()
        claim(store, elsewhere)
        assert snapshot.oldest_due_s is not None
        assert [each.host for each in snapshot.paused] == [host]
        assert StoreSnapshots(store.database).take().oldest_due_s is None, "what waits for an operator is not late"
        assert upstreams.resume(host, OPERATOR)
        assert not upstreams.resume(host, OPERATOR)
        assert StoreSnapshots(store.database).take().paused == []
        assert store.ring_due(10) == [there.id], "at once"
        assert claim(store, there)
        found = [
            (each.what, each.subject, each.note, each.registration_id)
            for each in Actions(store.database).list(limit=9)
        ]
        assert found == [("resume", host, None, None), ("pause", host, "it is on fire", None)]

    def test_what_waits_for_a_paused_host_takes_nobodys_place_in_the_sweep(self, store: Store) -> None:
        paused = "https://broken.example.com/a"
        store.submit([(a_parsed_submission(artifactUrl=paused), "tests") for _ in range(20)])
        Upstreams(store.database).pause("broken.example.com", OPERATOR, "")
        other = submit(store, a_parsed_submission())
        with store.database.write() as connection:
            connection.execute(update(registrations).values(ring_at=0))
        assert store.ring_due(1) == [other.id]
        with store.database.read() as connection:
            waits = connection.execute(select(registrations.c.ring_at, registrations.c.created_at)).all()
        assert sum(row.ring_at > row.created_at + 3_000_000 for row in waits) == 20, "not looked at for an hour"

    def test_the_sweep_notes_hosts_that_an_older_release_did_not(self, store: Store) -> None:
        old = [submit(store, a_parsed_submission(artifactUrl=f"https://h{n}.example.com/")) for n in range(3)]
        with store.database.write() as connection:
            connection.execute(update(registrations).values(host=None))
        assert [store.note_hosts(2) for _ in range(3)] == [2, 1, 0]
        for n, each in enumerate(old):
            assert [it.id for it in store.registrations(limit=3, filters={"host": f"h{n}.example.com"})] == [each.id]

    @pytest.mark.parametrize(
        "url", ["https://a.example:443/x", "https://A.example./x", "https://a.example.:443/", "https://a.example"]
    )
    def test_one_host_has_one_name_however_a_url_spells_it(self, url: str) -> None:
        assert host_of(url) == "a.example"

    def test_an_alert_is_acknowledged_for_a_while(self, store: Store) -> None:
        acknowledgements = Acknowledgements(store.database)
        acknowledgements.acknowledge("no-workers", OPERATOR, "being moved", for_s=60)
        acknowledgements.acknowledge("no-workers", OPERATOR, "being moved, still", for_s=60)
        acknowledgements.acknowledge("broker-away", OPERATOR, "over by now", for_s=-1)
        (known,) = acknowledgements.good().values()
        assert (known.alert, known.by, known.note) == ("no-workers", OPERATOR.label, "being moved, still")
        assert (known.until - known.at).total_seconds() == 60
        assert acknowledgements.withdraw("no-workers", OPERATOR)
        assert not acknowledgements.withdraw("no-workers", OPERATOR)
        assert acknowledgements.good() == {}
        whats = [each.what for each in Actions(store.database).list(limit=9, filters={"subject": "no-workers"})]
        assert whats == ["withdraw", "acknowledge", "acknowledge"]

    def test_a_retry_belongs_to_the_trace_of_what_it_tries_again(self, store: Store) -> None:
        trace = f"00-{'ab' * 16}-{'cd' * 8}-01"
        (accepted,) = store.submit([(a_parsed_submission(), "tests")], traces=[trace])
        assert isinstance(accepted, Accepted)
        reject(store, claim(store, accepted.registration), WRONG)
        (again,) = store.retry([now(store, accepted.registration.id)], OPERATOR)
        assert isinstance(again, Accepted)
        assert claim(store, again.registration).trace == trace

    def test_a_retry_is_a_new_registration_and_leaves_the_old_one_as_it_was(self, store: Store) -> None:
        old = rejected(store)
        (outcome,) = store.retry([old], OPERATOR)
        assert isinstance(outcome, Accepted)
        assert outcome.new
        assert (outcome.registration.retry_of, outcome.registration.attempts) == (old.id, 0)
        assert outcome.registration.submission == old.submission
        assert now(store, old.id) == replace(old, retried_as=outcome.registration.id)
        (action,) = Actions(store.database).list(limit=10)
        assert (action.by, action.what, action.registration_id) == ("on call", "retry", old.id)
        assert action.became == outcome.registration.id

    def test_a_second_retry_joins_the_first_and_is_not_recorded(self, store: Store) -> None:
        old = rejected(store)
        first, second = (store.retry([old], OPERATOR)[0] for _ in range(2))
        assert isinstance(first, Accepted)
        assert isinstance(second, Accepted)
        assert second.registration.id == first.registration.id
        assert len(Actions(store.database).list(limit=10)) == 1

    def test_what_was_registered_meanwhile_is_not_tried_again(self, store: Store) -> None:
        old = rejected(store)
        claimed = claim(store, submit(store, old.submission))
        register(store, claimed, digest_of(old.submission))
        (outcome,) = store.retry([old], OPERATOR)
        assert isinstance(outcome, AlreadyRegistered)
        assert Actions(store.database).list(limit=10) == []

    def test_a_queued_one_is_canceled_and_never_claimed(self, store: Store) -> None:
        registration = submit(store, a_parsed_submission())
        canceled = store.cancel(registration.id, OPERATOR)
        assert canceled is not None
        assert canceled.status is Status.CANCELED
        assert canceled.failure is not None
        assert canceled.failure.code == "canceled"
        assert store.claim(registration.id, worker="w", lease_s=LEASE_S, max_attempts=5) is None
        of_it = Actions(store.database).list(limit=10, filters={"registration_id": registration.id})
        assert [each.what for each in of_it] == ["cancel"]

    def test_the_worker_of_a_canceled_one_can_write_nothing_more(self, store: Store) -> None:
        claimed = claim(store, submit(store, a_parsed_submission()))
        assert store.cancel(claimed.registration_id, OPERATOR) is not None
        assert store.renew([Progress(claimed.registration_id, claimed.epoch, 1, None)], lease_s=LEASE_S) == set()
        assert register(store, claimed, digest_of(claimed.submission)) is None
        assert not fail(store, claimed, BROKEN)
        assert now(store, claimed.registration_id).status is Status.CANCELED
        assert store.plugins(limit=10) == []

    def test_a_final_one_is_not_canceled(self, store: Store) -> None:
        old = rejected(store)
        assert store.cancel(old.id, OPERATOR) is None
        assert now(store, old.id) == old
        assert Actions(store.database).list(limit=10) == []

    def test_a_canceled_name_is_free_again(self, store: Store) -> None:
        first = submit(store, a_parsed_submission())
        store.cancel(first.id, OPERATOR)
        assert submit(store, first.submission).id != first.id

    def test_actions_are_listed_newest_first_and_by_page(self, store: Store) -> None:
        ids = [submit(store, a_parsed_submission()).id for _ in range(3)]
        for each in ids:
            store.cancel(each, OPERATOR)
        first, second = Actions(store.database).list(limit=2)
        (third,) = Actions(store.database).list(limit=2, before=second.id)
        assert [each.registration_id for each in (first, second, third)] == ids[::-1]

    def test_actions_limited_to_names_are_those_on_registrations_of_such_names(self, store: Store) -> None:
        theirs, ours = (submit(store, a_parsed_submission(name=name)) for name in ("team-a-x", "team-b-x"))
        for each in (theirs, ours, submit(store, a_parsed_submission(name="team-b-y"))):
            store.cancel(each.id, OPERATOR)
        store.retry([now(store, ours.id)], OPERATOR)
        listed = Actions(store.database).list(limit=10, names=["team-b-*"])
        assert [each.what for each in listed] == ["retry", "cancel", "cancel"]
        assert theirs.id not in {each.registration_id for each in listed}
        of_theirs = {"registration_id": theirs.id}
        assert Actions(store.database).list(limit=10, filters=of_theirs, names=["team-b-*"]) == []
        assert len(Actions(store.database).list(limit=1, before=listed[0].id, names=["team-b-*"])) == 1

    def test_each_registration_is_counted_once(self, store: Store, database: Database) -> None:
        counters, snapshots = Counters(database), StoreSnapshots(database)
        registered = claim(store, submit(store, a_parsed_submission()))
        register(store, registered, digest_of(registered.submission))
        rejected(store)
        submit(store, a_parsed_submission())
        assert [counters.count(), counters.count()] == [2, 0]
        seen = snapshots.take()
        assert seen.kept == {"registered": 1, "rejected": 1}
        assert seen.counters["outcomes", ("registered", "", "", "")] == 1
        assert seen.counters["outcomes", ("rejected", "digest-mismatch", "digest-mismatch", "submitter")] == 1
        assert seen.counters["bytes", ()] == 123
        assert sum(value for (name, _labels), value in seen.counters.items() if name == "total_bucket") == 2
        assert (seen.queued, seen.verifying) == (1, 0)
        assert [(each.registered, each.failed) for each in seen.minutes] == [(1, 1)]
        assert seen.settled_a_second > 0

    def test_counting_at_once_counts_once(self, store: Store, database: Database) -> None:
        for _ in range(20):
            rejected(store)
        with ThreadPoolExecutor(4) as pool:
            counted = list(pool.map(lambda _n: Counters(database).count(at_most=7), range(8)))
        assert sum(counted) == 20
        assert StoreSnapshots(database).take().kept == {"rejected": 20}

    def test_pruning_takes_from_what_is_kept_and_from_nothing_else(self, store: Store, database: Database) -> None:
        rejected(store)
        Counters(database).count()
        time.sleep(0.01)
        assert store.prune(older_than_s=0, limit=10) == 1
        seen = StoreSnapshots(database).take()
        assert seen.kept == {"rejected": 0}
        assert sum(value for (name, _labels), value in seen.counters.items() if name == "outcomes") == 1

    def test_claims_and_lost_leases_never_go_down(self, store: Store, database: Database) -> None:
        registration = submit(store, a_parsed_submission())
        claim(store, registration, lease_s=0)
        time.sleep(0.01)
        second = claim(store, registration)
        release(store, second)
        third = claim(store, registration)
        seen = StoreSnapshots(database).take()
        assert (seen.counters["claims", ()], seen.counters["leases_lost", ()]) == (3, 1)
        reject(store, third, WRONG)
        for _ in range(2):
            seen = StoreSnapshots(database).take()
            assert (seen.counters["claims", ()], seen.counters["leases_lost", ()]) == (3, 1)
            Counters(database).count()

    def test_a_lease_that_ran_out_for_the_last_time_is_counted_too(self, store: Store, database: Database) -> None:
        claim(store, submit(store, a_parsed_submission()), lease_s=0, max_attempts=1)
        time.sleep(0.01)
        assert len(store.fail_used_up(1)) == 1
        assert StoreSnapshots(database).take().counters["leases_lost", ()] == 1

    def test_the_oldest_due_is_the_one_that_could_be_claimed_the_longest(
        self, store: Store, database: Database
    ) -> None:
        assert StoreSnapshots(database).take().oldest_due_s is None
        later = claim(store, submit(store, a_parsed_submission()))
        postpone(store, later, BROKEN, delay_s=60)
        assert StoreSnapshots(database).take().oldest_due_s is None
        assert StoreSnapshots(database).take().retrying == {"truncated": 1}
        submit(store, a_parsed_submission())
        time.sleep(0.05)
        submit(store, a_parsed_submission())
        seen = StoreSnapshots(database).take()
        assert seen.oldest_due_s is not None
        assert 0.05 <= seen.oldest_due_s < 60

    def test_a_download_of_which_nothing_arrives_is_told_from_one_that_moves(
        self, store: Store, database: Database
    ) -> None:
        still, moving = (claim(store, submit(store, a_parsed_submission())) for _ in range(2))
        before = StoreSnapshots(database).take().downloads
        time.sleep(0.01)
        store.renew(
            [
                Progress(still.registration_id, still.epoch, 0, 10),
                Progress(moving.registration_id, moving.epoch, 5, 10),
            ],
            lease_s=LEASE_S,
        )
        after = {each.id: each for each in StoreSnapshots(database).take().downloads}
        progressed = {each.id: after[each.id].progressed_at != each.progressed_at for each in before}
        assert progressed == {still.registration_id: False, moving.registration_id: True}

    def test_the_worst_upstreams_come_first(self, store: Store, database: Database) -> None:
        good = claim(store, submit(store, a_parsed_submission(artifactUrl="https://good.example.com/a")))
        register(store, good, digest_of(good.submission))
        bad = claim(store, submit(store, a_parsed_submission(artifactUrl="https://bad.example.com/a")))
        reject(store, bad, WRONG)
        Counters(database).count()
        worst, best = StoreSnapshots(database).take().upstreams
        assert (worst.host, worst.settled, worst.failed) == ("bad.example.com", 1, 1)
        assert (best.host, best.settled, best.failed) == ("good.example.com", 1, 0)

    def test_of_many_upstreams_the_worst_are_shown(self, store: Store, database: Database) -> None:
        for number in range(12):
            good = claim(
                store, submit(store, a_parsed_submission(artifactUrl=f"https://good-{number}.example.com/a"))
            )
            register(store, good, digest_of(good.submission))
        reject(
            store, claim(store, submit(store, a_parsed_submission(artifactUrl="https://bad.example.com/a"))), WRONG
        )
        Counters(database).count()
        shown = StoreSnapshots(database).take().upstreams
        assert len(shown) == 10
        assert shown[0].host == "bad.example.com"

    def test_a_worker_is_seen_with_what_it_holds_until_it_leaves(self, store: Store, database: Database) -> None:
        workers = Workers(database)
        workers.here("tests", max_downloads=8)
        claim(store, submit(store, a_parsed_submission()))
        (seen,) = StoreSnapshots(database).take().workers
        assert (seen.id, seen.max_downloads, seen.holding, seen.alive) == ("tests", 8, 1, True)
        workers.gone("tests")
        assert StoreSnapshots(database).take().workers == []

    def test_the_place_in_the_queue_is_how_many_came_before(self, store: Store, database: Database) -> None:
        first, second = submit(store, a_parsed_submission()), submit(store, a_parsed_submission())
        assert [StoreSnapshots(database).ahead_of(each) for each in (first, second)] == [0, 1]

    def test_the_sweep_is_marked(self, database: Database) -> None:
        assert StoreSnapshots(database).take().swept_s_ago is None
        for _ in range(2):
            Counters(database).mark("sweep")
        ago = StoreSnapshots(database).take().swept_s_ago
        assert ago is not None
        assert ago < 60


def rejected(store: Store) -> Registration:
    registration = submit(store, a_parsed_submission())
    assert reject(store, claim(store, registration), WRONG)
    return now(store, registration.id)
