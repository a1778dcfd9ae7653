"""Every order of events a store may meet, drawn by Hypothesis, against a model; and each guard removed in turn.

The store is real, the clock is the database's. Times are either short (over after a rest) or long (never over in a
test), so that the model knows for certain what is due.
"""

import os
import re
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import text

from shared.errors import DigestMismatch, Truncated
from shared.fields import normalised
from shared.registration import (
    Accepted,
    AlreadyRegistered,
    Claim,
    Digest,
    Plugin,
    Progress,
    Registration,
    RegistrationId,
    Settlement,
    Status,
    Submission,
    Taken,
)
from shared.store.database import Database, open_database
from shared.store.registrations import MAX_LEASES_LOST, Store
from tests.conftest import a_parsed_submission
from tests.stores import migrated_file

SHORT_S, LONG_S = 0.003, 300.0
MAX_ATTEMPTS = 3
WRONG = DigestMismatch("They differ.", declared="sha256:" + "0" * 64, computed="sha256:" + "1" * 64).failure()
BROKEN = Truncated("The connection broke.").failure()
SPELLINGS = ("Nginx Log {}", "nginx-log-{}", "NGINX._log {}")


def a_store(database: Database) -> Store:
    return Store(database, ring_again_after_s=SHORT_S)


@dataclass(frozen=True)
class Expected:
    """What the model knows of one registration."""

    submission: Submission
    status: Status = Status.QUEUED
    epoch: int = 0
    attempts: int = 0
    leases_lost: int = 0
    due: bool = True
    """Once a rest has been taken: it may be claimed, and rung for."""

    @property
    def in_flight(self) -> bool:
        return not self.status.final

    @property
    def lost_if_due(self) -> int:
        """How many leases have run out, the one of its last claim included."""
        return self.leases_lost + (self.status is Status.VERIFYING)

    @property
    def used_up(self) -> bool:
        """Whether it may never be claimed again."""
        return self.attempts >= MAX_ATTEMPTS or self.lost_if_due >= MAX_LEASES_LOST


class Machine(RuleBasedStateMachine):
    """Clients, workers that may crash or come late, and the sweep, over one store."""

    template: Path
    make_store: Callable[[Database], Store] = staticmethod(a_store)

    registrations = Bundle("registrations")
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory(prefix="machine-", dir=_quick_folder())
        path = Path(self._folder.name) / "registry.db"
        path.write_bytes(self.template.read_bytes())
        self.database = open_database(f"sqlite:///{path}")
        self.store = type(self).make_store(self.database)
        self.model: dict[RegistrationId, Expected] = {}
        self.plugins: dict[str, tuple[RegistrationId, str]] = {}
        """name and version -> the registration it came from, the fingerprint"""
        self.final: dict[RegistrationId, Registration] = {}
        self.seen_plugins: dict[str, Plugin] = {}

    def teardown(self) -> None:
        try:
            if sys.exc_info()[0] is None:  # otherwise that error is what is to be told
                self._once_faults_stop()
        finally:
            self.database.close()
            self._folder.cleanup()

    # --- clients --------------------------------------------------------------------------------

    @initialize(target=registrations)
    def begin(self) -> Any:
        return self._submit([(0, 0, 0)])

    @rule(
        target=registrations,
        drawn=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=3),
    )
    def submit(self, drawn: list[tuple[int, int, int]]) -> Any:
        return self._submit(drawn)

    def _submit(self, drawn: Sequence[tuple[int, int, int]]) -> Any:
        submissions = [_submission(*each) for each in drawn]
        outcomes = self.store.submit([(each, "tests") for each in submissions])
        new = []
        for submission, outcome in zip(submissions, outcomes, strict=True):
            standing = self.plugins.get(_key(submission))
            if standing is not None:
                kind = AlreadyRegistered if standing[1] == submission.fingerprint else Taken
                assert isinstance(outcome, kind), "a plugin answers for its name"
                assert _key_of_plugin(outcome.plugin) == _key(submission)
                continue
            assert isinstance(outcome, Accepted), "a free name is accepted"
            joined = [
                id_
                for id_, each in self.model.items()
                if each.in_flight and each.submission.fingerprint == submission.fingerprint
            ]
            assert outcome.new is not bool(joined), "identical submissions in flight are one"
            if joined:
                assert [outcome.registration.id] == joined
            else:
                self.model[outcome.registration.id] = Expected(submission)
                new.append(outcome.registration.id)
        return multiple(*new)

    # --- workers --------------------------------------------------------------------------------

    @rule(target=claims, registration_id=registrations, lease_s=st.sampled_from([SHORT_S, LONG_S]))
    def claim(self, registration_id: RegistrationId, lease_s: float) -> Any:
        claim = self._claim(registration_id, lease_s)
        return multiple() if claim is None else claim

    @rule(registration_id=registrations)
    def claim_and_crash(self, registration_id: RegistrationId) -> None:
        self._claim(registration_id, SHORT_S)

    @rule(target=claims, registration_id=registrations, lease_s=st.sampled_from([SHORT_S, LONG_S]))
    def crash_then_claimed_by_another(self, registration_id: RegistrationId, lease_s: float) -> Any:
        claims = [self._claim(registration_id, SHORT_S), self._claim(registration_id, lease_s)]
        return multiple(*(each for each in claims if each is not None))

    def _claim(self, registration_id: RegistrationId, lease_s: float) -> Claim | None:
        rest()
        expected = self.model[registration_id]
        claim = self.store.claim(registration_id, worker="w", lease_s=lease_s, max_attempts=MAX_ATTEMPTS)
        if not (expected.in_flight and expected.due and not expected.used_up):
            assert claim is None, "only what is due is claimed"
            return None
        assert claim is not None, "what is due can be claimed"
        assert claim.epoch > expected.epoch, "every claim has a higher epoch"
        assert claim.attempt == expected.attempts + 1, "attempts are counted at the claim"
        self._expect(
            registration_id,
            status=Status.VERIFYING,
            epoch=claim.epoch,
            attempts=claim.attempt,
            leases_lost=expected.lost_if_due,
            due=lease_s == SHORT_S,
        )
        return claim

    @rule(claim=claims)
    def register(self, claim: Claim) -> None:
        ours = self._is_live(claim)
        settled = self.store.settle(
            Settlement.registered(claim, Digest(claim.submission.checksum.removeprefix("sha256:"), 10))
        )
        assert (settled is not None) is ours, "a success is written by the live claim alone"
        if settled is None:
            return
        if _key(claim.submission) in self.plugins:
            self._expect(claim.registration_id, status=Status.REJECTED)
            assert settled is Status.REJECTED, "there is one plugin for a name and version"
            rejected = self.store.registration(claim.registration_id)
            assert rejected is not None
            assert rejected.failure is not None
            assert rejected.failure.code == "conflict"
        else:
            self._expect(claim.registration_id, status=Status.REGISTERED)
            self.plugins[_key(claim.submission)] = (claim.registration_id, claim.submission.fingerprint)

    @rule(claim=claims)
    def reject(self, claim: Claim) -> None:
        self._end(claim, self.store.settle(Settlement.rejected(claim, WRONG)), status=Status.REJECTED)

    @rule(claim=claims)
    def fail(self, claim: Claim) -> None:
        self._end(claim, self.store.settle(Settlement.failed(claim, BROKEN)), status=Status.FAILED)

    @rule(claim=claims, delay_s=st.sampled_from([SHORT_S, LONG_S]))
    def postpone(self, claim: Claim, delay_s: float) -> None:
        settled = self.store.settle(Settlement.postponed(claim, BROKEN, delay_s=delay_s))
        self._end(claim, settled, status=Status.QUEUED, due=delay_s == SHORT_S)

    @rule(claim=claims)
    def release(self, claim: Claim) -> None:
        attempts = self.model[claim.registration_id].attempts - 1
        released = Settlement.released(claim)
        self._end(claim, self.store.settle(released), status=Status.QUEUED, due=True, attempts=attempts)

    @rule(claim=claims, lease_s=st.sampled_from([SHORT_S, LONG_S]))
    def renew(self, claim: Claim, lease_s: float) -> None:
        key = (claim.registration_id, claim.epoch)
        ours = self.store.renew([Progress(*key, 7, 10)], lease_s=lease_s)
        assert ours == ({key} if self._is_live(claim) else set()), "a lease is renewed by the live claim alone"
        if ours:
            self._expect(claim.registration_id, due=lease_s == SHORT_S)

    @rule(_claim=consumes(claims))
    def crash(self, _claim: Claim) -> None:
        """Its worker is gone: nobody will come with this claim any more."""

    @rule()
    def expire(self) -> None:
        rest()

    def _end(self, claim: Claim, settled: Status | None, **change: Any) -> None:
        ours = settled is not None
        assert ours is self._is_live(claim), "a failure is written by the live claim alone"
        if ours:
            self._expect(claim.registration_id, **change)

    def _is_live(self, claim: Claim) -> bool:
        expected = self.model[claim.registration_id]
        return expected.status is Status.VERIFYING and expected.epoch == claim.epoch

    def _expect(self, registration_id: RegistrationId, **change: Any) -> None:
        self.model[registration_id] = replace(self.model[registration_id], **change)

    # --- the sweep ------------------------------------------------------------------------------

    @rule(limit=st.integers(0, 4))
    def sweep(self, limit: int) -> None:
        self._sweep(limit)

    def _sweep(self, limit: int) -> list[RegistrationId]:
        rest()
        used_up = {id_ for id_, each in self.model.items() if each.in_flight and each.due and each.used_up}
        assert set(self.store.fail_used_up(MAX_ATTEMPTS)) == used_up, "what has no attempts left is failed"
        for each in used_up:
            self._expect(each, status=Status.FAILED)
        due = {id_ for id_, each in self.model.items() if each.in_flight and each.due}
        rung = self.store.ring_due(limit)
        assert len(rung) == min(limit, len(due)), "the sweep rings for what is due, and is bounded"
        assert set(rung) <= due
        return rung

    def _once_faults_stop(self) -> None:
        """Invariant 7: living workers and the sweep bring everything that is due to an end."""
        for _round in range(MAX_ATTEMPTS + 1):
            for registration_id in self._sweep(100):
                claim = self._claim(registration_id, LONG_S)
                if claim is not None:
                    self.register(claim)
        self._sweep(100)
        self.agrees_with_the_model()
        assert not [each for each in self.model.values() if each.in_flight and each.due]

    # --- after every step -----------------------------------------------------------------------

    @invariant()
    def agrees_with_the_model(self) -> None:
        found = {each.id: each for each in self.store.registrations(limit=1000)}
        assert found.keys() == self.model.keys(), "nothing accepted is lost, nothing is there twice"
        for id_, expected in self.model.items():
            each = found[id_]
            assert each.submission.fingerprint == expected.submission.fingerprint
            assert (each.status, each.attempts) == (expected.status, expected.attempts)
            assert each.attempts <= MAX_ATTEMPTS
            assert (each.plugin_id is not None) is (each.status is Status.REGISTERED)
            if each.status.final:
                assert self.final.setdefault(id_, each) == each, "final states never change (invariant 3)"
        in_flight = [each.submission.fingerprint for each in found.values() if not each.status.final]
        assert len(set(in_flight)) == len(in_flight), "identical submissions in flight are one"

    @invariant()
    def plugins_are_those_of_registered_registrations(self) -> None:
        plugins = self.store.plugins(limit=1000)
        keys = [_key_of_plugin(each) for each in plugins]
        assert sorted(keys) == sorted(self.plugins), "one plugin for a name and version (invariants 2 and 5)"
        for each in plugins:
            registration = self.store.registration(self.plugins[_key_of_plugin(each)][0])
            assert registration is not None
            assert (registration.status, registration.plugin_id) == (Status.REGISTERED, each.id)
            assert each.checksum == registration.submission.checksum
            assert self.seen_plugins.setdefault(each.id, each) == each, "a plugin never changes"


def rest() -> None:
    """Let every short time pass."""
    time.sleep(SHORT_S + 0.003)


def _submission(name: int, variant: int, spelling: int) -> Submission:
    return a_parsed_submission(name=SPELLINGS[spelling].format(name), checksum=f"sha256:{variant:064x}")


def _key(submission: Submission) -> str:
    return f"{submission.name_key} {submission.version}"


def _key_of_plugin(plugin: Plugin) -> str:
    return f"{normalised(plugin.name)} {plugin.version}"


def _quick_folder() -> str | None:
    """Return a folder in memory where there is one: thousands of commits need not reach a disk here."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@pytest.fixture
def template() -> Path:
    """An empty store, to be copied for every example."""
    return migrated_file()


def run(machine: type[Machine], *, examples: int, shrink: bool = True) -> None:
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            phases=phases,
            deadline=None,
            database=None,
            report_multiple_bugs=False,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_store_agrees_with_the_model_whatever_happens(template: Path) -> None:
    run(type("TheStore", (Machine,), {"template": template}), examples=80)


# --- mutations: the machine must fail when a guard is gone -----------------------------------------


LUCKY = 5
"""Whichever seed it is, the fault is found; with this one soon, and at each run after as many examples."""


class Mutation:
    """A store without one of its guards."""

    def __init__(self, template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._template = template
        self._monkeypatch = monkeypatch
        self.make_store: Callable[[Database], Store] = a_store

    def caught(self, reason: str) -> None:
        """Check that the machine fails, for *reason*."""
        machine = type(
            "Mutant", (Machine,), {"template": self._template, "make_store": staticmethod(self.make_store)}
        )
        with pytest.raises((AssertionError, KeyError), match=reason):
            run(seed(LUCKY)(machine), examples=300, shrink=False)

    def store(self, mutant: type[Store]) -> None:
        self.make_store = lambda database: mutant(database, ring_again_after_s=SHORT_S)

    def hot_without(self, guard: str, *statements: str) -> None:
        """Take *guard*, a condition, out of hot *statements*."""

        class Unguarded(Store):
            def __init__(self, database: Database, *, ring_again_after_s: float = 10) -> None:
                super().__init__(database, ring_again_after_s=ring_again_after_s)
                for name in statements:
                    before = self._hot._texts[name]
                    self._hot._texts[name] = before.replace(guard, " ")
                    assert self._hot._texts[name] != before, "the guard is not where this mutation looks for it"

        self.store(Unguarded)

    def schema_without(self, guard: str, *, table: str) -> None:
        """Take the unique constraint or index *guard* away, and the INSERTs that lean on it."""
        changed = self._template.with_name(f"without-{guard}.db")
        changed.write_bytes(self._template.read_bytes())
        with closing(sqlite3.connect(changed)) as connection:
            if connection.execute(
                "SELECT 1 FROM sqlite_master WHERE type = 'index' AND name = ?", [guard]
            ).fetchone():
                connection.execute(f"DROP INDEX {guard}")
            else:
                (before,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", [table]).fetchone()
                after, count = re.subn(rf",\s*CONSTRAINT {guard} UNIQUE \([^)]*\)", "", before)
                assert count == 1, "the guard is not where this mutation looks for it"
                connection.execute(f"DROP TABLE {table}")
                connection.execute(after)
            connection.commit()
        self._template = changed

        class Inserting(Store):
            def __init__(self, database: Database, *, ring_again_after_s: float = 10) -> None:
                super().__init__(database, ring_again_after_s=ring_again_after_s)
                name = {"plugins": "write_plugins", "registrations": "queue"}[table]
                before = self._hot._texts[name]
                self._hot._texts[name] = re.sub(r"ON CONFLICT .*? DO NOTHING", "", before)
                assert self._hot._texts[name] != before, "the guard is not where this mutation looks for it"

        self.store(Inserting)


@pytest.fixture
def mutation(template: Path, monkeypatch: pytest.MonkeyPatch) -> Mutation:
    return Mutation(template, monkeypatch)


EPOCH, STATUS = " AND epoch = at_epoch", " AND (status || '') = 'verifying'"
STRANGE = "^\\('registration-|<Status.VERIFYING"
"""What the store says of a claim that it was not asked about, a KeyError; or the model, if that is asked first."""
FENCE = {"epoch": EPOCH, "status": STATUS, "both": STATUS + EPOCH}


@pytest.mark.parametrize("guard", FENCE)
def test_without_the_fence_on_success_the_machine_fails(mutation: Mutation, guard: str) -> None:
    mutation.hot_without(FENCE[guard], "register")
    mutation.caught(f"a success is written by the live claim alone|{STRANGE}")


@pytest.mark.parametrize("guard", FENCE)
def test_without_the_fence_on_failure_the_machine_fails(mutation: Mutation, guard: str) -> None:
    mutation.hot_without(FENCE[guard], "end")
    mutation.caught(f"a failure is written by the live claim alone|{STRANGE}")


@pytest.mark.parametrize("guard", FENCE)
def test_without_the_fence_on_renewal_the_machine_fails(mutation: Mutation, guard: str) -> None:
    mutation.hot_without(FENCE[guard], "renew")
    mutation.caught(
        "a lease is renewed by the live claim alone|what has no attempts left|the sweep rings for what is due"
    )


def test_with_attempts_counted_at_the_finish_the_machine_fails(mutation: Mutation) -> None:
    class CountsLate(Store):
        def claim(self, registration_id: RegistrationId, **options: Any) -> Claim | None:
            claim = super().claim(registration_id, **options)
            self._count(registration_id if claim else None, -1)
            return claim

        def settle(self, settlement: Settlement) -> Status | None:
            settled = super().settle(settlement)
            self._count(settlement.claim.registration_id if settled else None, 1)
            return settled

        def _count(self, registration_id: RegistrationId | None, by: int) -> None:
            with self.database.write() as connection:
                connection.execute(
                    text("UPDATE registrations SET attempts = attempts + :by WHERE id = :id"),
                    {"by": by, "id": registration_id},
                )

    mutation.store(CountsLate)
    mutation.caught("attempts")


def test_without_the_unique_name_the_machine_fails(mutation: Mutation) -> None:
    mutation.schema_without("one_plugin", table="plugins")
    mutation.caught("one plugin for a name and version")


def test_without_joining_what_is_in_flight_the_machine_fails(mutation: Mutation) -> None:
    mutation.schema_without("one_in_flight", table="registrations")
    mutation.caught("identical submissions in flight are one")


def test_without_the_sweeps_ringing_the_machine_fails(mutation: Mutation) -> None:
    class Silent(Store):
        def ring_due(self, limit: int) -> list[RegistrationId]:
            return []

    mutation.store(Silent)
    mutation.caught("the sweep rings for what is due")


def test_without_an_end_of_attempts_the_machine_fails(mutation: Mutation) -> None:
    class Endless(Store):
        def fail_used_up(self, max_attempts: int) -> list[RegistrationId]:
            return []

    mutation.store(Endless)
    mutation.caught("what has no attempts left is failed")


def test_with_a_claim_that_ignores_the_lease_the_machine_fails(mutation: Mutation) -> None:
    class Greedy(Store):
        def claim(self, registration_id: RegistrationId, **options: Any) -> Claim | None:
            with self.database.write() as connection:
                connection.execute(
                    text("UPDATE registrations SET due_at = 0 WHERE id = :id AND status IN ('queued', 'verifying')"),
                    {"id": registration_id},
                )
            return super().claim(registration_id, **options)

    mutation.store(Greedy)
    mutation.caught("only what is due is claimed")
