"""Store: the life of registrations and the plugins they become. Every method is one transaction.

The store is the truth, the queue only a doorbell: whatever a bell says, `claim` decides, and every
write of a worker is fenced by the epoch its claim was given (invariant 4). Times are the database's
own (invariant 8). Every method may raise `StoreUnavailable`; then nothing was changed, or, where a
commit's reply was lost, asking again gives the same answer.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Integer,
    Select,
    case,
    delete,
    insert,
    literal,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql, sqlite
from uuid_utils import uuid7

from shared.database import Database, NowMs
from shared.errors import AttemptsUsedUp, Canceled, Conflict, Failure
from shared.grouped import Grouped
from shared.registration import (
    IN_FLIGHT,
    Accepted,
    Action,
    AlreadyRegistered,
    Claim,
    Digest,
    Operator,
    Outcome,
    Plugin,
    PluginId,
    Progress,
    Registration,
    RegistrationId,
    Status,
    Submission,
    Taken,
)
from shared.statements import (
    CLAIM,
    JOINED,
    LEASES_LOST,
    first_id_at,
    in_flight,
    named_like,
    page,
    queueing,
    settle,
    settle_all,
    standing_in_the_way,
    writing_plugin,
)
from shared.tables import (
    ActionRow,
    PluginRow,
    RegistrationRow,
    failure_columns,
    moment,
    plugin_of,
    registration_of,
    submission_columns,
    submission_of,
)
from shared.tallies import add_tallies

MAX_LEASES_LOST = 2
"""A registration that two workers were lost with may be why."""

_registrations = RegistrationRow.__table__
_plugins = PluginRow.__table__
_actions = ActionRow.__table__
_r = _registrations.c
_p = _plugins.c
_NOW = NowMs()


class Store:
    """What api and worker know of registrations and plugins."""

    def __init__(
        self, database: Database, *, ring_again_after_s: float = 10, max_leases_lost: int = MAX_LEASES_LOST
    ) -> None:
        self._database = database
        self._max_leases_lost = max_leases_lost
        upsert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
        self._ring_again_ms = int(ring_again_after_s * 1000)
        self._queue = queueing(upsert, self._ring_again_ms)
        self._write_plugin = writing_plugin(upsert)
        self._claims = Grouped(self._claim_all)
        self._verified = Grouped(self._register)
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
        returned instead of a registration. *traces* holds the traceparent of each, where there is one.
        """
        wanted = [
            _Wanted(submission, by, trace=trace)
            for (submission, by), trace in zip(submissions, traces or [None] * len(submissions), strict=True)
        ]
        with self._database.write() as connection:
            return self._submit_all(connection, wanted)

    def preview(self, submission: Submission) -> AlreadyRegistered | Taken | None:
        """Return what stands in the way of *submission*, if anything does; change nothing."""
        with self._database.read() as connection:
            return standing_in_the_way(connection, [submission]).get(submission.fingerprint)

    def _submit_all(self, connection: Connection, wanted: Sequence["_Wanted"]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        while missing := [each for each in enumerate(wanted) if each[0] not in outcomes]:
            outcomes |= self._submit(connection, dict(missing))
        return [outcomes[place] for place in range(len(wanted))]

    def _submit(self, connection: Connection, wanted: Mapping[int, "_Wanted"]) -> dict[int, Outcome]:
        """Return the outcome of each of *wanted*, but for one that was in flight and ended just now."""
        # First the rows, then the look at the plugins. The other way round, on PostgreSQL, an identical
        # registration that settles between the two statements would be seen by neither.
        rows = {place: each.columns for place, each in wanted.items()}
        in_order = sorted(rows.values(), key=lambda row: row["fingerprint"])  # so that two processes cannot deadlock
        inserted = {row.id: row for row in connection.execute(self._queue, in_order)}
        standing = standing_in_the_way(connection, [each.submission for each in wanted.values()])
        unwanted = [row["id"] for row in rows.values() if row["id"] in inserted and row["fingerprint"] in standing]
        if unwanted:
            connection.execute(delete(_registrations).where(_r.id.in_(unwanted)))
        others = {row["fingerprint"] for row in rows.values() if row["id"] not in inserted} - standing.keys()
        found = connection.execute(JOINED, {"fingerprints": [*others]}) if others else ()
        joined = {row.fingerprint: row for row in found}
        outcomes: dict[int, Outcome] = {}
        for place, row in rows.items():
            fingerprint = row["fingerprint"]
            if fingerprint in standing:
                outcomes[place] = standing[fingerprint]
            elif row["id"] in inserted:
                outcomes[place] = Accepted(registration_of(inserted[row["id"]]._mapping), new=True)
            elif fingerprint in joined:
                outcomes[place] = Accepted(registration_of(joined[fingerprint]._mapping), new=False)
        return outcomes

    # --- verifying ------------------------------------------------------------------------------

    def claim(
        self, registration_id: RegistrationId, *, worker: str, lease_s: float, max_attempts: int
    ) -> Claim | None:
        """Claim a registration that is due, for *lease_s* seconds; return None if there is nothing to do.

        The attempt is counted here and not when it ends, so that an artifact which kills workers
        runs out of attempts (invariant 6). After its second lease that ran out nobody claims it any more: it may have
        taken two workers along.
        """
        terms = _Terms(worker, int(lease_s * 1000), max_attempts, self._max_leases_lost)
        return self._claims((registration_id, terms))

    def _claim_all(self, wanted: Sequence[tuple[RegistrationId, "_Terms"]]) -> list[Claim | None]:
        (_, terms), ids = wanted[0], [registration_id for registration_id, _ in wanted]
        if any(its != terms for _, its in wanted):
            raise _NotAllAlike
        with self._database.write_alone() as connection:
            rows = connection.execute(CLAIM, {"registration_ids": ids, **asdict(terms)}).all()
        made = {
            row.id: Claim(row.id, row.epoch, row.attempts, submission_of(row._mapping), row.trace) for row in rows
        }
        return [made.pop(registration_id, None) for registration_id in ids]  # who asks for one twice has it once

    def renew(self, progress: Sequence[Progress], *, lease_s: float) -> set[tuple[RegistrationId, int]]:
        """Extend the leases of claims and note their progress, in one statement.

        Returns:
            (registration id, epoch) of those that are still ours; the others were lost.
        """
        if not progress:
            return set()
        downloaded = {each.registration_id: each.bytes_downloaded for each in progress}
        announced = {each.registration_id: literal(each.artifact_bytes, BigInteger) for each in progress}
        lease_end = _NOW + int(lease_s * 1000)
        ours = select(_r.id).where(
            _r.id.in_([*downloaded]),
            tuple_(_r.id, _r.epoch).in_([(each.registration_id, each.epoch) for each in progress]),
            _r.status == Status.VERIFYING,
        )
        with self._database.write_alone() as connection:
            rows = connection.execute(
                update(_registrations)
                .where(_r.id.in_(ours.order_by(_r.id).with_for_update()))  # in one order, as `settle_all`
                .values(
                    due_at=lease_end,
                    ring_at=lease_end,
                    progressed_at=case(
                        (_r.bytes_downloaded < case(downloaded, value=_r.id), _NOW), else_=_r.progressed_at
                    ),
                    bytes_downloaded=case(downloaded, value=_r.id),
                    artifact_bytes=case(announced, value=_r.id),
                    updated_at=_NOW,
                )
                .returning(_r.id, _r.epoch)
            ).all()
        return {(row.id, row.epoch) for row in rows}

    def register(self, claim: Claim, digest: Digest) -> Status | None:
        """Settle *claim* as registered and write its plugin, or as rejected if the name is taken.

        Returns:
            what it was settled as; None if the claim was lost, and then nothing was written.
        """
        return self._verified(_Verified(claim, digest, PluginId(f"plugin-{uuid7()}")))

    def _register(self, verified: Sequence["_Verified"]) -> list[Status | None]:
        with self._database.write() as connection:
            if len(verified) == 1:
                return [self._register_one(connection, verified[0])]
            if not self._register_all(connection, verified):
                raise _NotAllAlike  # and what was written is undone
            return [Status.REGISTERED] * len(verified)

    def _register_all(self, connection: Connection, verified: Sequence["_Verified"]) -> bool:
        """Return whether all of *verified* could be registered; else nothing written here may stay."""
        if not settle_all(connection, [(each.claim, each.settled) for each in verified]):
            return False
        # In one order, so that two workers that want the same names cannot deadlock.
        plugins = sorted((each.plugin for each in verified), key=lambda it: (it["name_key"], it["version"]))
        return len(connection.execute(self._write_plugin, plugins).all()) == len(verified)

    def _register_one(self, connection: Connection, it: "_Verified") -> Status | None:
        claim = it.claim
        if not settle(connection, claim, **it.settled):
            return None
        if connection.execute(self._write_plugin, it.plugin).first() is not None:
            return Status.REGISTERED
        # Invariant 2: the first plugin of that name and version stands.
        standing = standing_in_the_way(connection, [claim.submission])[claim.submission.fingerprint].plugin
        conflict = Conflict.with_plugin(standing.id, standing.checksum).failure()
        connection.execute(
            update(_registrations)
            .where(_r.id == claim.registration_id)
            .values(status=Status.REJECTED, plugin_id=None, **failure_columns(conflict))
        )
        return Status.REJECTED

    def reject(self, claim: Claim, failure: Failure) -> bool:
        """Settle *claim* as rejected; return whether it was still ours."""
        return self._end(claim, status=Status.REJECTED, **failure_columns(failure))

    def fail(self, claim: Claim, failure: Failure) -> bool:
        """Settle *claim* as failed, its attempts used up; return whether it was still ours."""
        return self._end(claim, status=Status.FAILED, **failure_columns(failure))

    def postpone(self, claim: Claim, failure: Failure, *, delay_s: float) -> bool:
        """Put *claim* back to be tried again after *delay_s*; return whether it was still ours."""
        again_at = _NOW + int(delay_s * 1000)
        return self._end(claim, status=Status.QUEUED, **failure_columns(failure), due_at=again_at, ring_at=again_at)

    def release(self, claim: Claim, *, soon: bool) -> bool:
        """Put *claim* back as if it had not been made; return whether it was still ours.

        With *soon* the next sweep rings for it: its worker is leaving. Otherwise its worker takes it
        up again by itself, and the sweep rings only if that did not happen.
        """
        return self._end(
            claim,
            status=Status.QUEUED,
            attempts=_r.attempts - 1,
            due_at=_NOW,
            ring_at=_NOW if soon else _NOW + self._ring_again_ms,
            claimed_by=None,
        )

    def _end(self, claim: Claim, **values: Any) -> bool:
        with self._database.write_alone() as connection:
            return settle(connection, claim, **values)

    # --- operating ------------------------------------------------------------------------------

    def retry(self, registrations: Sequence[Registration], by: Operator) -> list[Outcome]:
        """Submit anew what *registrations* submitted, all or none, and record who had it done.

        Each is a new registration with attempts of its own, for a final state never changes (invariant 3). What
        stands in its way is returned instead, as by `submit`.
        """
        wanted = [_Wanted(each.submission, by.label, retry_of=each.id) for each in registrations]
        with self._database.write() as connection:
            outcomes = self._submit_all(connection, wanted)
            became = {
                old.id: outcome.registration.id
                for old, outcome in zip(registrations, outcomes, strict=True)
                if isinstance(outcome, Accepted) and outcome.new
            }
            _record(connection, by, "retry", became)
        return outcomes

    def cancel(self, registration_id: RegistrationId, by: Operator) -> Registration | None:
        """End a registration that is in flight, and record who did; return it, or None if it is not.

        Its worker finds its claim gone when it next renews its lease, and stops.
        """
        failure = Canceled("An operator canceled this registration. The same submission may be sent again.").failure()
        with self._database.write() as connection:
            row = connection.execute(
                update(_registrations)
                .where(_r.id == registration_id, in_flight())
                .values(status=Status.CANCELED, updated_at=_NOW, **failure_columns(failure))
                .returning(_registrations)
            ).first()
            if row is None:
                return None
            _record(connection, by, "cancel", {registration_id: None})
        return registration_of(row._mapping)

    def actions(
        self,
        *,
        limit: int,
        before: str | None = None,
        registration_id: str | None = None,
        names: Sequence[str] = (),
    ) -> list[Action]:
        """Return a page of what operators did, newest first: up to *limit* with ids below *before*.

        With *names*, patterns as a token has them, only what was done to registrations of such names, and not pruned.
        """
        found = select(_actions).order_by(_actions.c.id.desc()).limit(limit)
        if names:
            found = found.where(select(_r.id).where(_r.id == _actions.c.registration_id, named_like(names)).exists())
        if before is not None:
            found = found.where(_actions.c.id < before)
        if registration_id is not None:
            found = found.where(_actions.c.registration_id == registration_id)
        with self._database.read() as connection:
            rows = connection.execute(found).all()
        return [Action(row.id, moment(row.at), row.by, row.what, row.registration_id, row.became) for row in rows]

    # --- sweeping -------------------------------------------------------------------------------

    def ring_due(self, limit: int) -> list[RegistrationId]:
        """Return up to *limit* registrations that are due and whose bell seems lost, longest due first.

        Each is left alone for a while after that, so that the next sweep does not ring for it again.
        """
        if limit <= 0:
            return []
        overdue = self._overdue.order_by(literal_column("ring_at")).limit(limit)
        with self._database.write() as connection:
            rows = connection.execute(
                update(_registrations)
                .where(_r.id.in_(overdue.with_for_update(skip_locked=True)))
                .values(ring_at=_NOW + self._ring_again_ms)
                .returning(_r.id)
            ).all()
        return [row.id for row in rows]

    def fail_used_up(self, max_attempts: int) -> list[RegistrationId]:
        """Settle as failed what is due and can never be claimed again: no attempts are left, or workers were lost."""
        due = self._overdue.where(literal_column("due_at", BigInteger) <= _NOW)
        lost = AttemptsUsedUp(
            f"{self._max_leases_lost} workers were lost while they verified it. It may be why, so it is not tried "
            "again by itself; an operator may have it retried.",
            cause="workers-lost",
        )
        used_up = AttemptsUsedUp("Every worker that tried this artifact stopped before it could say how it went.")
        with self._database.write() as connection:
            return [
                *self._fail(connection, due.where(self._max_leases_lost <= LEASES_LOST), lost),
                *self._fail(connection, due.where(literal_column("attempts", Integer) >= max_attempts), used_up),
            ]

    def _fail(self, connection: Connection, which: Select[tuple[Any]], error: AttemptsUsedUp) -> list[RegistrationId]:
        rows = connection.execute(
            update(_registrations)
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
        with self._database.write() as connection:
            before = connection.execute(select(_NOW)).scalar_one() - int(older_than_s * 1000)
            # Ids begin with the time they were made, so the primary key finds the old ones by itself.
            oldest = (
                select(_r.id)
                .where(
                    _r.id < first_id_at(before), _r.status.not_in([*IN_FLIGHT]), _r.updated_at < before, _r.counted
                )
                .order_by(_r.id)
                .limit(limit)
            )
            gone = connection.execute(delete(_registrations).where(_r.id.in_(oldest)).returning(_r.status)).all()
            by_status = Counter(row.status for row in gone)
            add_tallies(connection, {("kept", (status,)): -number for status, number in by_status.items()})
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

    def some(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
        """Return those of *registration_ids* that there are."""
        return self._select_registrations(_r.id.in_(list(registration_ids)))

    def settled(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
        """Return those of *registration_ids* that have reached a final state."""
        return self._select_registrations(_r.id.in_(list(registration_ids)), _r.status.not_in([*IN_FLIGHT]))

    def registrations(
        self,
        *,
        limit: int,
        before: str | None = None,
        filters: Mapping[str, str] | None = None,
        since_ms: int | None = None,
        names: Sequence[str] = (),
    ) -> list[Registration]:
        """Return a page of registrations, newest first: up to *limit* with ids below *before*.

        *filters* hold columns and the value each must have; ``name`` is compared as uniqueness sees it. None was
        submitted before *since_ms*, milliseconds since the epoch. All are named like one of *names*, patterns as a
        token has them.
        """
        found = page(_registrations, limit, before, filters)
        if names:
            found = found.where(named_like(names))
        if since_ms is not None:
            found = found.where(_r.id >= first_id_at(since_ms))
        with self._database.read() as connection:
            rows = connection.execute(found).all()
        return [registration_of(row._mapping) for row in rows]

    def plugin(self, plugin_id: str) -> Plugin | None:
        """Return one plugin."""
        with self._database.read() as connection:
            row = connection.execute(select(_plugins).where(_p.id == plugin_id)).first()
        return plugin_of(row._mapping) if row else None

    def plugins(
        self, *, limit: int, before: str | None = None, filters: Mapping[str, str] | None = None
    ) -> list[Plugin]:
        """Return a page of plugins, as `registrations` does."""
        with self._database.read() as connection:
            rows = connection.execute(page(_plugins, limit, before, filters)).all()
        return [plugin_of(row._mapping) for row in rows]

    def _select_registrations(self, *conditions: Any) -> list[Registration]:
        with self._database.read() as connection:
            rows = connection.execute(select(_registrations).where(*conditions)).all()
        return [registration_of(row._mapping) for row in rows]


@dataclass(frozen=True)
class _Wanted:
    """A registration to be: what was submitted, by whom, and why."""

    submission: Submission
    by: str
    retry_of: RegistrationId | None = None
    trace: str | None = None

    @cached_property
    def columns(self) -> dict[str, Any]:
        """Its row, with an id of its own."""
        return {
            "id": f"registration-{uuid7()}",
            "submitted_by": self.by,
            "retry_of": self.retry_of,
            "trace": self.trace,
            **submission_columns(self.submission),
        }


@dataclass(frozen=True)
class _Terms:
    """On what a claim is made."""

    worker: str
    lease_ms: int
    max_attempts: int
    max_leases_lost: int


@dataclass(frozen=True)
class _Verified:
    """A claim whose artifact is what was declared, and the plugin to be."""

    claim: Claim
    digest: Digest
    plugin_id: PluginId

    @property
    def settled(self) -> dict[str, Any]:
        """What its registration becomes."""
        size_bytes = self.digest.size_bytes
        return {
            "status": Status.REGISTERED,
            "plugin_id": self.plugin_id,
            "failure": None,
            "cause": None,
            "bytes_downloaded": size_bytes,
            "artifact_bytes": size_bytes,
        }

    @property
    def plugin(self) -> dict[str, Any]:
        """Its row among the plugins."""
        return {
            "id": self.plugin_id,
            "registration_id": self.claim.registration_id,
            "artifact_bytes": self.digest.size_bytes,
            **submission_columns(self.claim.submission),
        }


class _NotAllAlike(Exception):
    """Not all of a group can be done as one: each is to be done by itself."""


def _record(connection: Connection, by: Operator, what: str, became: Mapping[RegistrationId, str | None]) -> None:
    """Note that *by* did *what* to each registration in *became*, and what that made of it."""
    rows = [
        {
            "id": f"action-{uuid7()}",
            "by": by.label,
            "token_id": by.token_id,
            "what": what,
            "registration_id": registration_id,
            "became": new_id,
        }
        for registration_id, new_id in became.items()
    ]
    if rows:
        connection.execute(insert(_actions).values(at=_NOW), rows)
