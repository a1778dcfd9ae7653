"""The story of a registration on a real store; only the network is a fake."""

import asyncio
import errno
import hashlib
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from shared.errors import ArtifactMissing, DigestMismatch, RegistryError, Shortage, StoreUnavailable, Truncated
from shared.registration import Accepted, Claim, Digest, Registration, RegistrationId, Settlement, Status
from shared.settings import read_settings
from shared.store import database as database_module
from shared.store.database import Database, open_database
from shared.store.registrations import Store
from tests.conftest import a_parsed_submission
from tests.contracts import claim, digest_of, let_pass, now, register, submit
from tests.fakes import PIECE_BYTES, FakeBell, FakeFetch
from tests.running import PATIENCE_S, until
from tests.verifying import Verifying
from worker import attempt as attempt_module
from worker import engine as engine_module
from worker.attempt import Attempt
from worker.digest.intake import Intake
from worker.sweep import sweep

CONTENT = b"the artifact" * 1000
URL = "https://artifacts.example.com/plugin.tar.gz"
LATER_S = 60.0


class Fake(Verifying):
    """An engine whose network is a fake."""

    fetching: FakeFetch

    def while_streaming(self, act: Callable[[], object] | None = None) -> threading.Event:
        """Have *act* happen once, after the next piece; without one, have all downloads stall until they are cut off.

        Returns:
            what is set as soon as one has begun.
        """
        begun = threading.Event()

        async def then(_attempt: Attempt) -> None:
            if act is None:
                begun.set()
                await asyncio.sleep(PATIENCE_S)
            elif not begun.is_set():
                begun.set()
                done = act()
                if isinstance(done, Awaitable):
                    await done

        self.fetching.while_streaming = then
        return begun


Make = Callable[..., Fake]


async def unexplained(
    claim: Claim, computed: Digest, _intake: Intake, _versions: Mapping[str, str]
) -> DigestMismatch:
    declared = claim.submission.checksum
    return DigestMismatch("They differ.", cause="different-content", declared=declared, computed=computed.checksum)


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Iterator[Make]:
    """Makes engines whose network serves one artifact."""
    made: list[Fake] = []

    def make(served: bytes | RegistryError, *, over: Database = database, **settings: object) -> Fake:
        values = {"max_attempts": 2, "retry_base_s": LATER_S, "retry_cap_s": LATER_S, "max_artifact_bytes": 2**20}
        url = f"sqlite:///{tmp_path / 'registry.db'}"
        verifier = Fake(read_settings(database_url=url, **(values | settings)), over)
        verifier.fetching = FakeFetch({URL: served})
        verifier.engine._verifier = replace(verifier.engine._verifier, fetch=verifier.fetching, explain=unexplained)
        made.append(verifier)
        return verifier

    yield make
    for each in made:
        each.close()


def checksum_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def declared(store: Store, content: bytes = CONTENT, url: str = URL) -> Registration:
    return submit(store, a_parsed_submission(checksum=checksum_of(content), artifactUrl=url))


def test_bytes_that_match_become_a_plugin(store: Store, make: Make) -> None:
    registration = declared(store)
    make(CONTENT).verify(registration.id)
    settled = now(store, registration.id)
    assert settled.status is Status.REGISTERED
    assert settled.bytes_downloaded == settled.artifact_bytes == len(CONTENT)


def test_bytes_that_differ_are_rejected_with_both_digests(store: Store, make: Make) -> None:
    registration = declared(store)
    make(b"something else").verify(registration.id)
    settled = now(store, registration.id)
    assert settled.status is Status.REJECTED
    assert settled.failure is not None
    assert settled.failure.facts == {
        "declared": registration.submission.checksum,
        "computed": checksum_of(b"something else"),
    }
    assert store.plugins(limit=10) == []


def test_a_final_error_ends_at_once(store: Store, make: Make) -> None:
    registration = declared(store)
    make(ArtifactMissing("404")).verify(registration.id)
    settled = now(store, registration.id)
    assert (settled.status, settled.attempts) == (Status.REJECTED, 1)


def test_a_transient_error_is_tried_again_until_the_attempts_run_out(store: Store, make: Make) -> None:
    registration = declared(store)
    verifier = make(Truncated("broke"))
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


def test_a_transient_error_that_passes_leaves_no_trace(store: Store, make: Make) -> None:
    registration = declared(store)
    make(Truncated("broke")).verify(registration.id)
    let_pass(store, LATER_S)
    make(CONTENT).verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED
    assert now(store, registration.id).failure is None


def test_a_shortage_of_ours_costs_no_attempt_however_often(store: Store, make: Make) -> None:
    registration = declared(store)
    verifier = make(Shortage("No descriptors.", cause="open-files"))
    for _ in range(3):
        verifier.verify(registration.id)
        waiting = now(store, registration.id)
        assert (waiting.status, waiting.attempts) == (Status.QUEUED, 0)
        assert waiting.failure is not None
        assert (waiting.failure.code, waiting.failure.fault) == ("registry-shortage", "registry")
        verifier.verify(registration.id)
        assert len(verifier.fetching.fetched) == 1, "it is not tried again at once"
        verifier.fetching.fetched.clear()
        let_pass(store, LATER_S)
    verifier.fetching.artifacts[URL] = CONTENT
    verifier.verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED


@pytest.mark.parametrize("status", ["unknown", "final", "claimed"])
def test_a_bell_for_what_needs_nothing_fetches_nothing(store: Store, make: Make, status: str) -> None:
    registration = declared(store)
    if status == "final":
        register(store, claim(store, registration), digest_of(registration.submission))
    elif status == "claimed":
        claim(store, registration)
    verifier = make(CONTENT)
    verifier.verify(RegistrationId("registration-unknown") if status == "unknown" else registration.id)
    assert verifier.fetching.fetched == []


@pytest.mark.parametrize("served", [CONTENT, b"something else"], ids=["success", "failure"])
def test_a_stale_worker_can_write_nothing_on_what_another_claimed(store: Store, make: Make, served: bytes) -> None:
    registration = declared(store)
    slow = make(served)

    def let_another_claim() -> None:
        let_pass(store, 30)
        claim(store, registration)

    slow.while_streaming(let_another_claim)
    slow.verify(registration.id)
    assert now(store, registration.id).status is Status.VERIFYING
    assert store.plugins(limit=10) == []


def test_a_worker_told_to_stop_puts_its_claims_back_says_what_waited_and_takes_no_other(
    store: Store, make: Make
) -> None:
    first, waiting, other = (declared(store, content) for content in (CONTENT, b"waiting", b"other"))
    verifier = make(CONTENT, max_downloads_per_host=1)
    begun = verifier.while_streaming()
    verifier.offer([first.id, waiting.id])
    assert begun.wait(PATIENCE_S)
    assert verifier.leave() == [waiting.id]
    released = now(store, first.id)
    assert (released.status, released.attempts, released.claimed_by) == (Status.QUEUED, 0, None)
    assert now(store, waiting.id) == waiting, "it was never claimed"
    verifier.verify(other.id)
    assert now(store, other.id).status is Status.QUEUED


def test_a_worker_with_two_thousand_downloads_puts_all_of_them_back_in_time(store: Store, make: Make) -> None:
    """Within the seconds that leaving may take, after which it would give up: none may cost an attempt."""
    count = 2000
    submissions = [(a_parsed_submission(artifactUrl=URL), f"submitter {number % 10}") for number in range(count)]
    accepted = [each for start in range(0, count, 100) for each in store.submit(submissions[start : start + 100])]
    ids = [each.registration.id for each in accepted if isinstance(each, Accepted)]
    verifier = make(CONTENT, downloads=count, max_downloads_per_host=count)
    verifier.while_streaming()
    for start in range(0, count, 32):
        verifier.offer(ids[start : start + 32])
    until(lambda: len(verifier.fetching.fetched) == count, what="all of them under way")
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("worker.running.log.warning", lambda event, **_: told.append(event))
        assert verifier.leave() == []
    assert told == [], "it did not give up"
    found = store.some(ids)
    assert {(each.status, each.attempts, each.claimed_by) for each in found} == {(Status.QUEUED, 0, None)}
    assert len(found) == count


def test_the_heartbeat_keeps_a_claim_and_notes_progress(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RENEW_EVERY_S", 0.05)
    monkeypatch.setattr(attempt_module, "SAFETY_S", 0.1)
    registration = declared(store)
    verifier = make(CONTENT, lease_s=3)
    seen = []

    async def outlive_the_first_lease() -> None:
        await asyncio.sleep(3.2)
        seen.append(now(store, registration.id))

    verifier.while_streaming(outlive_the_first_lease)
    verifier.verify(registration.id)
    assert seen[0].bytes_downloaded == PIECE_BYTES
    assert seen[0].artifact_bytes == len(CONTENT)
    assert now(store, registration.id).status is Status.REGISTERED


def test_a_worker_that_cannot_renew_stops_before_its_lease_ends(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RENEW_EVERY_S", 1000.0)  # a heartbeat that never comes
    monkeypatch.setattr(attempt_module, "SAFETY_S", 30.0)
    registration = declared(store)
    verifier = make(CONTENT, lease_s=30.2)
    verifier.while_streaming()
    started = time.monotonic()
    verifier.verify(registration.id)
    assert time.monotonic() - started < 30
    assert now(store, registration.id).status is Status.VERIFYING, "nothing may be written for a lost claim"


def test_a_canceled_download_is_cut_off(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "YOUNG_S", 0.0)
    registration = declared(store)
    verifier = make(CONTENT)
    begun = verifier.while_streaming()
    verifier.offer([registration.id])
    assert begun.wait(PATIENCE_S)
    failure = ArtifactMissing("canceled, say").failure()
    held = Claim(registration.id, 1, 1, registration.submission)
    assert store.settle(Settlement.rejected(held, failure)) is Status.REJECTED
    verifier.verify(registration.id)
    assert now(store, registration.id).failure == failure


def test_an_attempt_past_its_deadline_is_cut_off_and_tried_again(store: Store, make: Make) -> None:
    registration = declared(store)
    verifier = make(CONTENT, fetch_deadline_s=0.2)
    verifier.while_streaming()
    verifier.verify(registration.id)
    waiting = now(store, registration.id)
    assert waiting.status is Status.QUEUED
    assert waiting.failure is not None
    assert waiting.failure.code == "deadline-passed"


def test_an_outcome_is_insisted_on_while_the_store_is_away(
    tmp_path: Path, store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)
    impatient = open_database(f"sqlite:///{tmp_path / 'registry.db'}")
    registration = declared(store)
    verifier = make(CONTENT, over=impatient)
    locker = sqlite3.connect(tmp_path / "registry.db", isolation_level=None, check_same_thread=False)

    def lock_for_a_while() -> None:
        locker.execute("BEGIN IMMEDIATE")
        threading.Timer(1, lambda: locker.execute("ROLLBACK")).start()

    verifier.while_streaming(lock_for_a_while)
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


def test_a_host_with_no_free_slot_takes_no_other_hosts_and_what_waited_is_taken_on(store: Store, make: Make) -> None:
    slow = [declared(store, content) for content in (b"one", b"two")]
    quick_url = "https://other.example.com/plugin.tar.gz"
    quick = declared(store, b"quick", quick_url)
    verifier = make(b"one", max_downloads_per_host=1)
    verifier.fetching.artifacts[quick_url] = b"quick"
    go_on = threading.Event()

    async def stall(attempt: Attempt) -> None:
        while attempt.claim.registration_id == slow[0].id and not go_on.is_set():
            await asyncio.sleep(0.01)
        verifier.fetching.artifacts[URL] = b"two"

    verifier.fetching.while_streaming = stall
    verifier.offer([slow[0].id])
    until(lambda: now(store, slow[0].id).status is Status.VERIFYING, what="the first one's download")
    verifier.offer([slow[1].id])
    verifier.offer([slow[1].id])  # a second bell
    verifier.verify(quick.id)
    assert now(store, quick.id).status is Status.REGISTERED
    assert now(store, slow[1].id) == slow[1], "what waits is not claimed"
    go_on.set()
    verifier.verify(slow[0].id, slow[1].id)
    assert [now(store, each.id).status for each in slow] == [Status.REGISTERED] * 2
    assert now(store, slow[1].id).attempts == 1


def test_a_bell_is_over_within_seconds_though_nothing_moves(
    store: Store, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 12, and what it lets go is known to the store."""
    monkeypatch.setattr(engine_module, "STILL_S", 0.2)
    verifier = make(CONTENT, max_downloads_per_host=1)
    verifier.engine._room._places = 4
    registrations = [declared(store, str(number).encode()) for number in range(8)]
    begun = verifier.while_streaming()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(verifier.offer, [each.id for each in registrations]).result(PATIENCE_S)
    assert begun.wait(PATIENCE_S)
    assert len(verifier.engine._room) == 2, "a submitter has as much of the room as is left for others"
    assert [now(store, each.id).status for each in registrations].count(Status.QUEUED) == 7


def test_a_bell_of_several_submitters_is_let_in_as_far_as_each_has_room(store: Store, make: Make) -> None:
    verifier = make(CONTENT, max_downloads_per_host=1)
    verifier.engine._room._places = 4
    begun = verifier.while_streaming()
    full = [declared(store, str(number).encode()) for number in range(8)]
    (accepted,) = store.submit([(a_parsed_submission(artifactUrl=URL), "another")])
    assert isinstance(accepted, Accepted)
    verifier.offer([each.id for each in full])
    assert begun.wait(PATIENCE_S)
    verifier.offer([*(each.id for each in full), accepted.registration.id])
    assert accepted.registration.id in verifier.engine._room


def test_where_nothing_moves_a_bell_is_not_held(store: Store, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others stand behind it in the broker."""
    verifier = make(CONTENT, max_downloads_per_host=1)
    verifier.engine._room._places = 4
    begun = verifier.while_streaming()
    full = [declared(store, str(number).encode()) for number in range(8)]
    verifier.offer([each.id for each in full])
    assert begun.wait(PATIENCE_S)
    monkeypatch.setattr(engine_module, "PATIENCE_S", 10 * PATIENCE_S)
    verifier.engine._moved_at -= engine_module.STILL_S
    waits: list[float] = []
    timeout = asyncio.timeout

    def noting(seconds: float) -> asyncio.Timeout:
        waits.append(seconds)
        return timeout(seconds)

    monkeypatch.setattr("worker.engine.asyncio.timeout", noting)
    verifier.offer([each.id for each in full])
    assert waits == [0]


def test_an_attempt_that_ends_in_a_surprise_counts_as_one_that_failed(store: Store, make: Make) -> None:
    registration = declared(store)
    verifier = make(CONTENT)

    def surprise() -> None:
        raise ZeroDivisionError

    verifier.while_streaming(surprise)
    verifier.verify(registration.id)
    waiting = now(store, registration.id)
    assert (waiting.status, waiting.attempts) == (Status.QUEUED, 1)
    assert waiting.failure is not None
    assert (waiting.failure.code, waiting.failure.fault) == ("internal-error", "registry")


def test_an_engine_that_cannot_be_built_leaves_nothing_behind(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_files(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("worker.running.a_client", no_files)
    before = {each.name for each in threading.enumerate()}
    with pytest.raises(OSError, match="Too many open files"):
        Verifying(read_settings(database_url=f"sqlite:///{tmp_path / 'registry.db'}"), database)
    until(lambda: {each.name for each in threading.enumerate()} <= before, what="the end of its threads")


def test_a_bell_that_finds_the_store_away_is_left_to_the_sweep(store: Store, make: Make) -> None:
    verifier = make(CONTENT)
    registration = declared(store)

    def away(*_: object) -> list[object]:
        raise StoreUnavailable("It is away.")

    verifier.store.work, work = away, verifier.store.work  # type: ignore[method-assign, assignment]
    verifier.verify(registration.id)
    verifier.store.work = work  # type: ignore[method-assign]
    assert now(store, registration.id).status is Status.QUEUED
    verifier.verify(registration.id)
    assert now(store, registration.id).status is Status.REGISTERED
