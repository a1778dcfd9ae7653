"""The story of a registration on a real store; only the network is a fake."""

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from shared import database as database_module
from shared.database import open_database
from shared.errors import ArtifactMissing, DigestMismatch, RegistryError, Truncated
from shared.registration import Digest, Registration, RegistrationId, Status
from shared.store import Store
from tests.conftest import a_parsed_submission
from tests.contracts import claim, digest_of, let_pass, now, submit
from tests.fakes import FakeBell, FakeFetch
from tests.running import PATIENCE_S, until
from worker import attempts as attempts_module
from worker.artifact import Seen
from worker.attempts import Attempt, Attempts
from worker.digest import digest
from worker.hosts import Hosts
from worker.retry import RetryPolicy
from worker.sweep import sweep
from worker.tasks import answer_bell
from worker.turns import Turns
from worker.verify import Verifier

CONTENT = b"the artifact" * 1000
URL = "https://artifacts.example.com/plugin.tar.gz"
LATER_S = 60.0
TWICE = RetryPolicy(max_attempts=2, base_s=LATER_S, cap_s=LATER_S)


def unexplained(declared: str, computed: Digest, seen: Seen, versions: Mapping[str, str]) -> DigestMismatch:
    return DigestMismatch("They differ.", cause="different-content", declared=declared, computed=computed.checksum)


def a_verifier(
    store: Store, served: bytes | RegistryError, *, lease_s: float = 30, deadline_s: float = 30, slots: int = 64
) -> Verifier:
    return Verifier(
        store=store,
        fetch=FakeFetch({URL: served}),
        explain=unexplained,
        attempts=Attempts(store, lease_s=lease_s, deadline_s=deadline_s),
        hosts=Hosts(slots),
        retry=TWICE,
        worker="tests",
        lease_s=lease_s,
        max_bytes=2**20,
    )


def declared(store: Store, content: bytes = CONTENT) -> Registration:
    checksum = digest([(0, content)], max_bytes=2**30).checksum
    return submit(store, a_parsed_submission(checksum=checksum, artifactUrl=URL))


def while_streaming(verifier: Verifier, act: Callable[[], object] | None = None) -> None:
    """Have *act* happen once, in the middle of the next download; without one, have it stall until it is cut off."""
    fetch = verifier.fetch
    assert isinstance(fetch, FakeFetch)
    pending = [act]

    def once(attempt: Attempt) -> None:
        if pending:
            (pending.pop() or partial(attempt.pause, PATIENCE_S))()

    fetch.while_streaming = once


def test_bytes_that_match_become_a_plugin(store: Store) -> None:
    registration = declared(store)
    a_verifier(store, CONTENT).verify(registration.id)
    settled = now(store, registration.id)
    assert settled.status is Status.REGISTERED
    assert settled.bytes_downloaded == settled.artifact_bytes == len(CONTENT)


def test_bytes_that_differ_are_rejected_with_both_digests(store: Store) -> None:
    registration = declared(store)
    a_verifier(store, b"something else").verify(registration.id)
    settled = now(store, registration.id)
    assert settled.status is Status.REJECTED
    assert settled.failure is not None
    assert settled.failure.facts == {
        "declared": registration.submission.checksum,
        "computed": digest([(0, b"something else")], max_bytes=100).checksum,
    }
    assert store.plugins(limit=10) == []


def test_a_final_error_ends_at_once(store: Store) -> None:
    registration = declared(store)
    a_verifier(store, ArtifactMissing("404")).verify(registration.id)
    settled = now(store, registration.id)
    assert (settled.status, settled.attempts) == (Status.REJECTED, 1)


def test_a_transient_error_is_tried_again_until_the_attempts_run_out(store: Store) -> None:
    registration = declared(store)
    verifier = a_verifier(store, Truncated("broke"))
    verifier.verify(registration.id)
    waiting = now(store, registration.id)
    assert (waiting.status, waiting.attempts) == (Status.QUEUED, 1)
    verifier.verify(registration.id)
    assert now(store, registration.id).attempts == 1, "it was not due yet"
    let_pass(store, LATER_S)
    verifier.verify(registration.id)
    ended = now(store, registration.id)
    assert (ended.status, ended.attempts) == (Status.FAILED, 2)
    assert ended.failure is not None
    assert (ended.failure.code, ended.failure.retryable) == ("truncated", True)


def test_a_transient_error_that_passes_leaves_no_trace(store: Store) -> None:
    registration = declared(store)
    a_verifier(store, Truncated("broke")).verify(registration.id)
    let_pass(store, LATER_S)
    a_verifier(store, CONTENT).verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED
    assert now(store, registration.id).failure is None


@pytest.mark.parametrize("status", ["unknown", "final", "claimed"])
def test_a_bell_for_what_needs_nothing_fetches_nothing(store: Store, status: str) -> None:
    registration = declared(store)
    if status == "final":
        store.register(claim(store, registration), digest_of(registration.submission))
    elif status == "claimed":
        claim(store, registration)
    verifier = a_verifier(store, CONTENT)
    verifier.verify(RegistrationId("registration-unknown") if status == "unknown" else registration.id)
    assert isinstance(verifier.fetch, FakeFetch)
    assert verifier.fetch.fetched == []


def test_a_stale_worker_cannot_register_what_another_claimed(store: Store) -> None:
    registration = declared(store)
    slow = a_verifier(store, CONTENT)

    def let_another_claim() -> None:
        let_pass(store, 30)
        claim(store, registration)

    while_streaming(slow, let_another_claim)
    slow.verify(registration.id)
    assert now(store, registration.id).status is Status.VERIFYING
    assert store.plugins(limit=10) == []


def test_a_stale_worker_cannot_fail_what_another_claimed(store: Store) -> None:
    registration = declared(store)
    slow = a_verifier(store, b"something else")

    def let_another_claim() -> None:
        let_pass(store, 30)
        claim(store, registration)

    while_streaming(slow, let_another_claim)
    slow.verify(registration.id)
    assert now(store, registration.id).status is Status.VERIFYING


def test_a_worker_told_to_stop_puts_its_claim_back_and_takes_no_other(store: Store) -> None:
    registration, other = declared(store), declared(store, b"other")
    verifier = a_verifier(store, CONTENT)
    while_streaming(verifier, verifier.attempts.leave)
    verifier.verify(registration.id)
    released = now(store, registration.id)
    assert (released.status, released.attempts) == (Status.QUEUED, 0)
    verifier.verify(other.id)
    assert now(store, other.id).status is Status.QUEUED


def test_the_heartbeat_keeps_a_claim_and_notes_progress(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts_module, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(attempts_module, "SAFETY_S", 0.1)
    registration = declared(store)
    verifier = a_verifier(store, CONTENT, lease_s=3)
    verifier.attempts.start()
    seen = []

    def outlive_the_first_lease() -> None:
        time.sleep(3.2)
        seen.append(now(store, registration.id))

    while_streaming(verifier, outlive_the_first_lease)
    verifier.verify(registration.id)
    assert seen[0].bytes_downloaded == 1024
    assert seen[0].artifact_bytes == len(CONTENT)
    assert now(store, registration.id).status is Status.REGISTERED


def test_a_worker_that_cannot_renew_stops_before_its_lease_ends(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts_module, "RENEW_EVERY_S", 1000.0)  # a heartbeat that never comes
    monkeypatch.setattr(attempts_module, "SAFETY_S", 30.0)
    registration = declared(store)
    verifier = a_verifier(store, CONTENT, lease_s=30.2)
    verifier.attempts.start()
    while_streaming(verifier)
    started = time.monotonic()
    verifier.verify(registration.id)
    assert time.monotonic() - started < 30
    assert now(store, registration.id).status is Status.VERIFYING, "nothing may be written for a lost claim"


def test_an_attempt_past_its_deadline_is_cut_off_and_tried_again(store: Store) -> None:
    registration = declared(store)
    verifier = a_verifier(store, CONTENT, deadline_s=0.2)
    verifier.attempts.start()
    while_streaming(verifier)
    verifier.verify(registration.id)
    waiting = now(store, registration.id)
    assert waiting.status is Status.QUEUED
    assert waiting.failure is not None
    assert waiting.failure.code == "deadline-passed"


def test_an_outcome_is_insisted_on_while_the_store_is_away(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    impatient = open_database(f"sqlite:///{tmp_path / 'registry.db'}")
    registration = declared(store)
    verifier = a_verifier(Store(impatient), CONTENT)
    locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None, check_same_thread=False)

    def lock_for_a_while() -> None:
        locker.execute("BEGIN IMMEDIATE")
        threading.Timer(1, lambda: locker.execute("ROLLBACK")).start()

    while_streaming(verifier, lock_for_a_while)
    verifier.verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED
    impatient.close()
    locker.close()


def test_the_sweep_ends_what_has_no_attempt_left(store: Store) -> None:
    registration = submit(store, a_parsed_submission())
    claim(store, registration, max_attempts=1)
    let_pass(store, 30)
    bell = FakeBell()
    sweep(store, waiting=lambda: 0, ring=bell, max_attempts=1)
    assert now(store, registration.id).status is Status.FAILED
    assert bell.rung == []


def test_a_slow_artifact_hands_the_rest_of_its_bell_back_in_two() -> None:
    verified: list[str] = []
    handed_back: list[Sequence[RegistrationId]] = []

    def verify(registration_id: RegistrationId) -> None:
        verified.append(registration_id)
        if registration_id == "slow":
            until(lambda: len(handed_back) == 2, what="the rest of the bell handed back")

    ids = [RegistrationId(each) for each in ("quick", "slow", "third", "fourth", "fifth")]
    answer_bell(ids, verify=verify, hand_back=handed_back.append, turns=Turns(), patience_s=1)
    assert verified == ["quick", "slow"]
    assert handed_back == [["third", "fifth"], ["fourth"]], "in two, for whoever is free"


def test_quick_artifacts_share_one_bell_however_long_they_take_together() -> None:
    verified: list[str] = []
    handed_back: list[Sequence[RegistrationId]] = []

    def verify(registration_id: RegistrationId) -> None:
        verified.append(registration_id)
        time.sleep(0.15)

    ids = [RegistrationId(str(n)) for n in range(16)]
    answer_bell(ids, verify=verify, hand_back=handed_back.append, turns=Turns(), patience_s=1)
    time.sleep(1.1)
    assert verified == ids
    assert handed_back == []


def test_to_wait_for_a_turn_is_not_to_take_long() -> None:
    turns = Turns(1, patience_s=30)
    verified: list[str] = []
    handed_back: list[Sequence[RegistrationId]] = []
    in_between: list[threading.Thread] = []

    def somebody_else() -> None:
        with turns.turn():
            time.sleep(1.2)

    def verify(registration_id: RegistrationId) -> None:
        verified.append(registration_id)
        if registration_id == "first":
            in_between.append(threading.Thread(target=somebody_else))
            in_between[0].start()
            until(turns._first_in_line.locked, what="that one in line")

    ids = [RegistrationId(each) for each in ("first", "second", "third")]
    somebody = threading.Thread(target=somebody_else)
    somebody.start()
    until(lambda: turns._begun, what="somebody's turn")
    answer_bell(ids, verify=verify, hand_back=handed_back.append, turns=turns, patience_s=1)
    somebody.join()
    in_between[0].join()
    assert verified == ids
    assert handed_back == []


def test_what_was_parked_is_verified_next_with_a_turn_and_a_moment_of_its_own() -> None:
    verified: list[str] = []
    handed_back: list[Sequence[RegistrationId]] = []

    def verify(registration_id: RegistrationId) -> RegistrationId | None:
        verified.append(registration_id)
        time.sleep(0.2)
        return RegistrationId(f"parked {len(verified)}") if len(verified) < 5 else None

    ids = [RegistrationId(each) for each in ("first", "last")]
    answer_bell(ids, verify=verify, hand_back=handed_back.append, turns=Turns(), patience_s=1)
    assert verified == ["first", "parked 1", "parked 2", "parked 3", "parked 4", "last"]
    assert handed_back == [], "each was quick"


def test_the_fake_fetch_tells_an_attempt_what_the_real_one_does(store: Store) -> None:
    verifier = a_verifier(store, CONTENT)
    held = claim(store, declared(store))
    with (
        verifier.attempts.hold(held, claimed_at=time.monotonic()) as attempt,
        verifier.fetch(URL, attempt) as download,
    ):
        assert attempt.artifact_bytes == len(CONTENT)
        assert digest(download.pieces, max_bytes=2**20).checksum == held.submission.checksum
        assert attempt.bytes_downloaded == len(CONTENT)


def test_a_host_with_no_free_slot_takes_no_other_hosts_and_what_waited_is_taken_on(store: Store) -> None:
    slow = [declared(store, content) for content in (b"one", b"two")]
    quick_url = "https://other.example.com/plugin.tar.gz"
    quick = submit(
        store, a_parsed_submission(artifactUrl=quick_url, checksum=digest([(0, b"quick")], max_bytes=9).checksum)
    )
    verifier = a_verifier(store, b"one", slots=1)
    fetch = verifier.fetch
    assert isinstance(fetch, FakeFetch)
    fetch.artifacts[quick_url] = b"quick"
    seen = []

    def meanwhile() -> None:
        assert verifier.verify(slow[1].id) is None
        seen.append(now(store, slow[1].id))
        verifier.verify(slow[1].id)  # a second bell
        assert now(store, slow[1].id) == seen[0], "what is parked is not claimed for nothing"
        verifier.verify(quick.id)
        seen.append(now(store, quick.id))
        fetch.artifacts[URL] = b"two"

    while_streaming(verifier, meanwhile)
    assert verifier.verify(slow[0].id) == slow[1].id, "it has a slot now"
    assert verifier.verify(slow[1].id) is None
    assert (seen[0].status, seen[0].attempts) == (Status.QUEUED, 0)
    assert seen[1].status is Status.REGISTERED
    assert [now(store, each.id).status for each in slow] == [Status.REGISTERED] * 2
