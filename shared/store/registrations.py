"""Store: the life of registrations and the plugins they become. Every method is one transaction.

The store is the truth, the queue only a doorbell: whatever a bell says, `claim` decides, and every
write of a worker is fenced by the epoch its claim was given (invariant 4). Times are the database's
own (invariant 8). Every method may raise `StoreUnavailable`; then nothing was changed, or, where a
commit's reply was lost, asking again gives the same answer.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Select,
    Update,
    bindparam,
    delete,
    literal_column,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy import text as sql
from uuid_utils import uuid7

from shared.errors import AttemptsUsedUp, Canceled, Conflict
from shared.registration import (
    IN_FLIGHT,
    Accepted,
    AlreadyRegistered,
    Attempted,
    Claim,
    Operator,
    Outcome,
    OverQuota,
    Plugin,
    Progress,
    Registration,
    RegistrationId,
    Settled,
    Settlement,
    Status,
    Submission,
    Taken,
    Terms,
    Trip,
    Waiting,
    host_of,
    standing_before,
)
from shared.store.actions import record
from shared.store.changes import tell
from shared.store.counters import add_counts
from shared.store.database import Database, NowMs
from shared.store.hot import Hot
from shared.store.statements import (
    ATTEMPTS_SPENT,
    JOINED,
    LEASES_LOST,
    NOT_PAUSED,
    first_id_at,
    in_flight,
    in_flight_of,
    named_like,
    page,
    registrations_of,
)
from shared.store.tables import (
    WITHOUT_HOST_SQL,
    attempted_of,
    attempts,
    failure_columns,
    marks,
    moment,
    paused_hosts,
    plugin_of,
    plugins,
    registration_of,
    registrations,
    settled_of,
    submission_of,
    submitted,
)

MAX_LEASES_LOST = 2
"""A registration that two workers were lost with may be why."""

PUT_OFF_MS = 3_600_000
"""So long what waits for a paused host is not looked at by the sweep; who resumes it has it looked at at once."""
PUT_OFF_AT_ONCE = 5000

MAX_VERSIONS = 200
"""How many versions of a plugin are told, the newest first."""

_r = registrations.c
_p = plugins.c
_NOW = NowMs()


@dataclass(frozen=True)
class Wish:
    """Asks for a claim."""

    registration_id: RegistrationId


@dataclass(frozen=True)
class Renewal:
    """Asks for more time for a claim, telling how far it has come."""

    progress: Progress


@dataclass(frozen=True)
class Look:
    """Asks which of these may be claimed."""

    registration_ids: tuple[RegistrationId, ...]


@dataclass(frozen=True)
class Versions:
    """Asks which versions a plugin has, by their checksums."""

    name: str


Asked = Settlement | Renewal | Wish | Look | Versions
_Key = tuple[RegistrationId, int]
"""A registration's id and an epoch: a claim's name."""


class Store:
    """What api and worker know of registrations and plugins."""

    def __init__(
        self,
        database: Database,
        *,
        ring_again_after_s: float = 10,
        max_leases_lost: int = MAX_LEASES_LOST,
        max_in_flight: int = 0,
    ) -> None:
        """Work on *database*. One submitter may have *max_in_flight* registrations in flight; 0 is no limit."""
        self.database = database
        """For what stands beside this, over the same connections."""
        self._max_in_flight = max_in_flight
        self._max_leases_lost = max_leases_lost
        self._ring_again_ms = int(ring_again_after_s * 1000)
        self._hot = Hot(database.dialect)
        # SQLite is told which index to use: without statistics it would take the one by status, and sort a backlog.
        source = "registrations INDEXED BY to_ring" if database.dialect == "sqlite" else "registrations"
        self._overdue: Select[tuple[Any]] = (
            select(literal_column("id"))
            .select_from(sql(source))
            .where(in_flight(), literal_column("ring_at", BigInteger) <= _NOW)
        )

    # --- submitting -----------------------------------------------------------------------------

    def submit(
        self, submissions: Sequence[tuple[Submission, str]], *, traces: Sequence[str | None] | None = None
    ) -> list[Outcome]:
        """Accept *submissions*, each with the label of its submitter, all or none.

        An identical submission in flight is joined; an identical or conflicting plugin is
        returned instead of a registration, and what is beyond its submitter's quota is not taken. *traces*
        holds the traceparent of each, where there is one.
        """
        wanted = [
            _Wanted(submission, by, trace=trace)
            for (submission, by), trace in zip(submissions, traces or [None] * len(submissions), strict=True)
        ]
        with self.database.write() as connection:
            return self._submit_all(connection, wanted, self._max_in_flight)

    def preview(self, submission: Submission) -> AlreadyRegistered | Taken | None:
        """Return what stands in the way of *submission*, if anything does; change nothing."""
        with self.database.read() as connection:
            return self._standing(connection, [submission]).get(submission.fingerprint)

    def _submit_all(self, connection: Connection, wanted: Sequence["_Wanted"], quota: int) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        while missing := [each for each in enumerate(wanted) if each[0] not in outcomes]:
            outcomes |= self._submit(connection, dict(missing), quota)
        return [outcomes[place] for place in range(len(wanted))]

    def _submit(self, connection: Connection, wanted: Mapping[int, "_Wanted"], quota: int) -> dict[int, Outcome]:
        """Return the outcome of each of *wanted*, but for one that was in flight and ended just now."""
        # First the rows, then the look at the plugins. The other way round, on PostgreSQL, an identical
        # registration that settles between the two statements would be seen by neither.
        rows = [each.row for each in wanted.values()]
        queued = self._hot.run(connection, "queue", rows, ring_again_ms=self._ring_again_ms)
        queued_at = {row.id: row.created_at for row in queued}
        standing = self._standing(connection, [each.submission for each in wanted.values()])
        inserted = [each for each in wanted.values() if each.id in queued_at]
        unwanted = [each.id for each in inserted if each.fingerprint in standing]
        new = [each for each in inserted if each.fingerprint not in standing]
        refused = _beyond(connection, quota, new) if quota else set()
        if unwanted or refused:
            connection.execute(delete(registrations).where(_r.id.in_([*unwanted, *refused])))
        others = {each.fingerprint for each in wanted.values() if each.id not in queued_at} - standing.keys()
        found = connection.execute(JOINED, {"fingerprints": [*others]}) if others else ()
        joined = {row.fingerprint: row for row in found}
        outcomes: dict[int, Outcome] = {}
        for place, each in wanted.items():
            if each.fingerprint in standing:
                outcomes[place] = standing[each.fingerprint]
            elif each.id in refused:
                outcomes[place] = OverQuota(quota)
            elif each.id in queued_at:
                outcomes[place] = Accepted(each.queued(moment(queued_at[each.id])), new=True)
            elif each.fingerprint in joined:
                outcomes[place] = Accepted(registration_of(joined[each.fingerprint]._mapping), new=False)
        return outcomes

    def _standing(
        self, connection: Connection, submissions: Iterable[Submission]
    ) -> dict[str, AlreadyRegistered | Taken]:
        """Return the plugins that stand where *submissions* want to, by the fingerprint of these."""
        wanted = {each.fingerprint: each for each in submissions}
        names = {(each.name_key, each.version) for each in wanted.values()}
        found = self._hot.run(connection, "standing", names)
        rows = {(row.name_key, row.version): row for row in found}
        return {
            fingerprint: standing_before(each, plugin_of(row._mapping))
            for fingerprint, each in wanted.items()
            if (row := rows.get((each.name_key, each.version))) is not None
        }

    # --- verifying ------------------------------------------------------------------------------

    def work(self, asked: Sequence[Asked], terms: Terms) -> list[Any]:
        """Do all that a worker asks for, in one transaction: settle, renew, claim, then look.

        Returns:
            an answer to each, in order: what a `Settlement` was settled as, None if the claim was lost; to a
            `Renewal` whether the claim is still ours; to a `Wish` the claim, None if there is nothing to claim; to a
            `Look` those that may be claimed; to `Versions` a mapping from checksum to version.
        """
        answers: dict[int, Any] = {}
        kinds: dict[type, list[tuple[int, Any]]] = defaultdict(list)
        for place, each in enumerate(asked):
            kinds[type(each)].append((place, each))
        looks_only = not kinds.keys() - {Look, Versions}  # who reads waits for nobody who writes
        with self.database.read() if looks_only else self.database.write() as connection:
            for kind, do in (
                (Settlement, self._settle),
                (Renewal, partial(self._renew, lease_s=terms.lease_s)),
                (Wish, partial(self._claim, terms=terms)),
                (Look, self._look),
                (Versions, self._versions),
            ):
                if places := kinds[kind]:
                    done = do(connection, [each for _, each in places])
                    answers.update(zip((place for place, _ in places), done, strict=True))
        return [answers[place] for place in range(len(asked))]

    def claim(
        self, registration_id: RegistrationId, *, worker: str, lease_s: float, max_attempts: int
    ) -> Claim | None:
        """Claim a registration that is due, for *lease_s* seconds; return None if there is nothing to do.

        The attempt is counted here and not when it ends, so that an artifact which kills workers
        runs out of attempts (invariant 6). After its second lease that ran out nobody claims it any more: it may have
        taken two workers along.
        """
        claim: Claim | None = self._alone(Wish(registration_id), Terms(worker, lease_s, max_attempts))
        return claim

    def settle(self, settlement: Settlement) -> Status | None:
        """Write a worker's word on its claim; return what it was settled as, None if the claim was lost."""
        status: Status | None = self._alone(settlement, _NOBODY)
        return status

    def renew(self, progress: Sequence[Progress], *, lease_s: float) -> set[_Key]:
        """Extend the leases of claims and note their progress, in one statement.

        Returns:
            (registration id, epoch) of those that are still ours; the others were lost.
        """
        if not progress:
            return set()
        ours = self.work([Renewal(each) for each in progress], replace(_NOBODY, lease_s=lease_s))
        return {(each.registration_id, each.epoch) for each, held in zip(progress, ours, strict=True) if held}

    def _alone(self, asked: Asked, terms: Terms) -> Any:
        (answer,) = self.work([asked], terms)
        return answer

    def _claim(self, connection: Connection, wishes: Sequence["Wish"], *, terms: Terms) -> list[Claim | None]:
        found = self._hot.run(
            connection,
            "claim",
            [(wish.registration_id,) for wish in wishes],
            worker=terms.worker,
            lease_ms=int(terms.lease_s * 1000),
            max_attempts=terms.max_attempts,
            max_leases_lost=self._max_leases_lost,
        )
        made = {
            row.id: Claim(row.id, row.epoch, row.attempts, submission_of(row._mapping), row.trace, row.submitted_by)
            for row in found
        }
        return [made.pop(wish.registration_id, None) for wish in wishes]  # who asks for one twice has it once

    def _look(self, connection: Connection, looks: Sequence["Look"]) -> list[list[Waiting]]:
        ids = {registration_id for look in looks for registration_id in look.registration_ids}
        found = self._hot.run(connection, "waiting", [(each,) for each in ids]) if ids else ()
        waiting = {row.id: Waiting(row.id, row.artifact_url, row.submitted_by) for row in found}
        return [[waiting[each] for each in look.registration_ids if each in waiting] for look in looks]

    def _versions(self, connection: Connection, asked: Sequence["Versions"]) -> list[dict[str, str]]:
        pages = (page(plugins, MAX_VERSIONS, None, {"name": each.name}) for each in asked)
        return [{row.checksum: row.version for row in connection.execute(each)} for each in pages]

    def _renew(self, connection: Connection, renewals: Sequence["Renewal"], *, lease_s: float) -> list[bool]:
        asked = [each.progress for each in renewals]
        rows = [(each.registration_id, each.epoch, each.bytes_downloaded, each.artifact_bytes) for each in asked]
        found = self._hot.run(connection, "renew", rows, lease_ms=int(lease_s * 1000))
        ours = {(row.id, row.epoch) for row in found}
        return [(each.registration_id, each.epoch) in ours for each in asked]

    def _settle(self, connection: Connection, settlements: Sequence[Settlement]) -> list[Status | None]:
        """Settle claims. One that was lost, or whose name was taken meanwhile, takes no other along."""
        verified = {_key(each.claim): each for each in settlements if each.digest is not None}
        ended = {_key(each.claim): each for each in settlements if each.digest is None}
        became = self._register(connection, verified) | self._end(connection, ended)
        if any(status.final for status in became.values()):
            tell(connection)
        return [became.get(_key(each.claim)) for each in settlements]

    def _end(self, connection: Connection, ended: Mapping[_Key, Settlement]) -> dict[_Key, Status]:
        rows = [
            (
                *key,
                each.status,
                *(failure_columns(each.failure).values() if each.failure else (None, None)),
                _ms(each.due_in_s),
                _ms(each.ring_in_s),
                int(each.given_back),
            )
            for key, each in ended.items()
        ]
        told = [
            (*key, row[3], each.trip.bytes_downloaded, _hops(each.trip))
            for (key, each), row in zip(ended.items(), rows, strict=True)
            if each.failure is not None
        ]
        if told:
            self._hot.run(connection, "note_attempts", told)
        ours = self._hot.run(connection, "end", rows) if rows else ()
        return {(row.id, row.epoch): ended[row.id, row.epoch].status for row in ours}

    def _register(self, connection: Connection, verified: Mapping[_Key, Settlement]) -> dict[_Key, Status]:
        rows = [
            (*key, f"plugin-{uuid7()}", each.digest.size_bytes, _hops(each.trip))
            for key, each in verified.items()
            if each.digest
        ]
        ours = self._hot.run(connection, "register", rows) if rows else ()
        plugins = [(row.id, row.plugin_id) for row in ours]
        found = self._hot.run(connection, "write_plugins", plugins) if plugins else ()
        written = {row.registration_id for row in found}
        became = {}
        for key in ((row.id, row.epoch) for row in ours):
            became[key] = Status.REGISTERED if key[0] in written else Status.REJECTED
            if key[0] not in written:
                self._refuse_taken(connection, verified[key].claim)
        return became

    def _refuse_taken(self, connection: Connection, claim: Claim) -> None:
        """Reject what would have become a plugin, had its name not been taken meanwhile (invariant 2)."""
        standing = self._standing(connection, [claim.submission])[claim.submission.fingerprint]
        if isinstance(standing, AlreadyRegistered):
            conflict = Conflict.with_itself(standing.plugin.id, standing.plugin.checksum).failure()
        else:
            conflict = standing.conflict.failure()
        connection.execute(
            update(registrations)
            .where(_r.id == claim.registration_id)
            .values(status=Status.REJECTED, plugin_id=None, **failure_columns(conflict))
        )

    # --- operating ------------------------------------------------------------------------------

    def retry(self, registrations: Sequence[Registration], by: Operator) -> list[Outcome]:
        """Submit anew what *registrations* submitted, all or none, and record who had it done.

        Each is a new registration with attempts of its own, for a final state never changes (invariant 3). What
        stands in its way is returned instead, as by `submit`. It belongs to the trace of what it tries again.
        """
        with self.database.write() as connection:
            traces = _traces(connection, [each.id for each in registrations])
            wanted = [
                _Wanted(each.submission, by.submitter, retry_of=each.id, trace=traces.get(each.id))
                for each in registrations
            ]
            outcomes = self._submit_all(connection, wanted, 0)
            became: dict[str, str | None] = {
                old.id: outcome.registration.id
                for old, outcome in zip(registrations, outcomes, strict=True)
                if isinstance(outcome, Accepted) and outcome.new
            }
            record(connection, by, "retry", became)
        return outcomes

    def cancel(self, registration_id: RegistrationId, by: Operator) -> Registration | None:
        """End a registration that is in flight, and record who did; return it, or None if it is not.

        Its worker finds its claim gone when it next renews its lease, and stops.
        """
        failure = Canceled("An operator canceled this registration. The same submission may be sent again.").failure()
        with self.database.write() as connection:
            row = connection.execute(
                update(registrations)
                .where(_r.id == registration_id, in_flight())
                .values(status=Status.CANCELED, updated_at=_NOW, **failure_columns(failure))
                .returning(registrations)
            ).first()
            if row is None:
                return None
            record(connection, by, "cancel", {registration_id: None})
            tell(connection)
        return registration_of(row._mapping)

    # --- sweeping -------------------------------------------------------------------------------

    def ring_due(self, limit: int) -> list[RegistrationId]:
        """Return up to *limit* registrations that are due and whose bell seems lost, longest due first.

        Each is left alone for a while after that, so that the next sweep does not ring for it again. For those of a
        paused host nobody rings.
        """
        if limit <= 0:
            return []
        overdue = self._overdue.order_by(literal_column("ring_at"))
        with self.database.write() as connection:
            if connection.execute(select(paused_hosts.c.host).limit(1)).first() is not None:
                put_off = overdue.where(not_(NOT_PAUSED)).limit(PUT_OFF_AT_ONCE)
                connection.execute(_rung_at(put_off, PUT_OFF_MS))
                overdue = overdue.where(NOT_PAUSED)
            rung = _rung_at(overdue.limit(limit), self._ring_again_ms)
            rows = connection.execute(rung.returning(_r.id)).all()
        return [row.id for row in rows]

    def note_hosts(self, limit: int) -> int:
        """Note the host of up to *limit* registrations that a release submitted which did not; return how many.

        Until then nobody can pause what they wait for, nor find them by it.
        """
        unknown = select(_r.id, _r.artifact_url).where(sql(WITHOUT_HOST_SQL)).order_by(_r.id.desc()).limit(limit)
        with self.database.read() as connection:
            rows = connection.execute(unknown).all()
        if rows:
            noting = update(registrations).where(_r.id == bindparam("of_id")).values(host=bindparam("its_host"))
            hosts = [{"of_id": row.id, "its_host": host_of(row.artifact_url)} for row in rows]
            with self.database.write() as connection:
                connection.execute(noting, sorted(hosts, key=itemgetter("of_id")))
        return len(rows)

    def fail_used_up(self, max_attempts: int) -> list[RegistrationId]:
        """Settle as failed what is due and can never be claimed again: no attempts are left, or workers were lost."""
        due = self._overdue.where(literal_column("due_at", BigInteger) <= _NOW)
        lost = AttemptsUsedUp(
            f"{self._max_leases_lost} workers were lost while they verified it. It may be why, so it is not tried "
            "again by itself; an operator may have it retried.",
            cause="workers-lost",
        )
        used_up = AttemptsUsedUp("Every worker that tried this artifact stopped before it could say how it went.")
        with self.database.write() as connection:
            failed = [
                *self._fail(connection, due.where(self._max_leases_lost <= LEASES_LOST), lost),
                *self._fail(connection, due.where(max_attempts <= ATTEMPTS_SPENT), used_up),
            ]
            if failed:
                tell(connection)
        return failed

    def _fail(self, connection: Connection, which: Select[tuple[Any]], error: AttemptsUsedUp) -> list[RegistrationId]:
        rows = connection.execute(
            update(registrations)
            .where(_r.id.in_(which.with_for_update(skip_locked=True)))
            .values(
                status=Status.FAILED,
                **failure_columns(error.failure()),
                updated_at=_NOW,
                leases_lost=LEASES_LOST,
            )
            .returning(_r.id)
        )
        return [row.id for row in rows]

    def prune(self, *, older_than_s: float, limit: int) -> int:
        """Delete up to *limit* registrations that were final *older_than_s* ago, the oldest first; never a plugin.

        Returns:
            how many were deleted; fewer than *limit* when there are no more.
        """
        with self.database.write() as connection:
            before = connection.execute(select(_NOW)).scalar_one() - int(older_than_s * 1000)
            began = select(marks.c.at).where(marks.c.name == "feed").scalar_subquery()
            # Ids begin with the time they were made, so the primary key finds the old ones by itself.
            oldest = (
                select(_r.id)
                .where(
                    _r.id < first_id_at(before), _r.status.not_in([*IN_FLIGHT]), _r.updated_at < before, _r.counted
                )
                .where(or_(_r.told, _r.updated_at < began))
                .order_by(_r.id)
                .limit(limit)
            )
            gone = connection.execute(delete(registrations).where(_r.id.in_(oldest)).returning(_r.status)).all()
            by_status = Counter(row.status for row in gone)
            add_counts(connection, {("kept", (status,)): -number for status, number in by_status.items()})
            return len(gone)

    # --- reading --------------------------------------------------------------------------------

    def registration(self, registration_id: str) -> Registration | None:
        """Return one registration."""
        rows = self._select_registrations(_r.id == registration_id)
        return rows[0] if rows else None

    def registration_of_plugin(self, plugin_id: str) -> Registration | None:
        """Return the registration that became a plugin, unless it was pruned."""
        of_plugin = select(_p.registration_id).where(_p.id == plugin_id).scalar_subquery()
        rows = self._select_registrations(_r.id == of_plugin)
        return rows[0] if rows else None

    def attempts(self, registration: Registration) -> list[Attempted]:
        """Return the attempts at *registration* that are over, the first one first, as far as their workers told.

        Of an epoch that is missing nothing was told: its worker was lost, or put the registration back.
        """
        ended = select(attempts).where(attempts.c.registration_id == registration.id).order_by(attempts.c.epoch)
        with self.database.read() as connection:
            told = [attempted_of(row._mapping) for row in connection.execute(ended)]
        if registration.status is Status.REGISTERED and registration.claimed_at is not None:
            trip = Trip(registration.bytes_downloaded, registration.hops)
            times = registration.claimed_at, registration.updated_at
            told.append(Attempted(registration.epoch, *times, registration.claimed_by, trip, None))
        return told

    def some(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
        """Return those of *registration_ids* that there are."""
        return self._select_registrations(_r.id.in_(list(registration_ids)))

    def settled(self, registration_ids: Iterable[RegistrationId]) -> list[Settled]:
        """Return those of *registration_ids* that have reached a final state."""
        ids = [(each,) for each in registration_ids]
        with self.database.read() as connection:
            return [settled_of(row._mapping) for row in self._hot.run(connection, "settled", ids)] if ids else []

    def registrations(
        self,
        *,
        limit: int,
        before: str | None = None,
        filters: Mapping[str, str] | None = None,
        since_ms: int | None = None,
        names: Sequence[str] = (),
        oldest_first: bool = False,
    ) -> list[Registration]:
        """Return a page of registrations, newest first: up to *limit* with ids below *before*.

        With *oldest_first* it is the other way round: those with ids above it.

        *filters* hold columns and the value each must have; ``name`` is compared as uniqueness sees it. None was
        submitted before *since_ms*, milliseconds since the epoch. All are named like one of *names*, patterns as a
        token has them.
        """
        found = page(registrations, limit, before, filters, oldest_first=oldest_first)
        if names:
            found = found.where(named_like(names))
        if since_ms is not None:
            found = found.where(_r.id >= first_id_at(since_ms))
        with self.database.read() as connection:
            return registrations_of(connection, found)

    def plugin(self, plugin_id: str) -> Plugin | None:
        """Return one plugin."""
        with self.database.read() as connection:
            row = connection.execute(select(plugins).where(_p.id == plugin_id)).first()
        return plugin_of(row._mapping) if row else None

    def plugins(
        self, *, limit: int, before: str | None = None, filters: Mapping[str, str] | None = None
    ) -> list[Plugin]:
        """Return a page of plugins, as `registrations` does."""
        with self.database.read() as connection:
            rows = connection.execute(page(plugins, limit, before, filters)).all()
        return [plugin_of(row._mapping) for row in rows]

    def _select_registrations(self, *conditions: Any) -> list[Registration]:
        with self.database.read() as connection:
            return registrations_of(connection, select(registrations).where(*conditions))


class _Wanted:
    """A registration to be: what was submitted, by whom, and why; with an id of its own."""

    def __init__(
        self, submission: Submission, by: str, *, retry_of: RegistrationId | None = None, trace: str | None = None
    ) -> None:
        self.submission = submission
        self.by = by
        self.id = RegistrationId(f"registration-{uuid7()}")
        self.fingerprint = submission.fingerprint
        self._retry_of = retry_of
        self._trace = trace

    @property
    def row(self) -> tuple[str | None, ...]:
        """Its values, as `QUEUED` names them."""
        submission = self.submission
        return (
            *submitted(submission),
            self.id,
            self.by,
            self._retry_of,
            self._trace,
            host_of(submission.artifact_url),
        )

    def queued(self, at: datetime) -> Registration:
        """Return it as it is once it is queued."""
        return Registration(
            id=self.id,
            submission=self.submission,
            status=Status.QUEUED,
            attempts=0,
            bytes_downloaded=0,
            artifact_bytes=None,
            created_at=at,
            updated_at=at,
            next_attempt_at=at,
            plugin_id=None,
            failure=None,
            retry_of=self._retry_of,
            submitted_by=self.by,
        )


def _rung_at(which: Select[tuple[Any]], in_ms: int) -> Update:
    """Return what has the sweep look at these again after *in_ms*."""
    return (
        update(registrations).where(_r.id.in_(which.with_for_update(skip_locked=True))).values(ring_at=_NOW + in_ms)
    )


def _beyond(connection: Connection, quota: int, new: Sequence[_Wanted]) -> set[str]:
    """Return the ids of those *new* ones that are more than *quota* lets their submitters have in flight."""
    beyond: set[str] = set()
    for submitter in {each.by for each in new}:
        ids = [each.id for each in new if each.by == submitter]
        surplus = in_flight_of(connection, submitter, at_most=quota + len(ids)) - quota
        beyond.update(ids[len(ids) - max(0, surplus) :])
    return beyond


_NOBODY = Terms("", 0, 0)


def _key(claim: Claim) -> _Key:
    return claim.registration_id, claim.epoch


def _hops(trip: Trip) -> str | None:
    return json.dumps(trip.hops) if trip.hops else None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _traces(connection: Connection, registration_ids: Sequence[str]) -> dict[str, str]:
    found = select(_r.id, _r.trace).where(_r.id.in_(registration_ids), _r.trace.is_not(None))
    return {row.id: row.trace for row in connection.execute(found)}
