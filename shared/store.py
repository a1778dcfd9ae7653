"""Store: the life of registrations and the plugins they become. Every method is one transaction.

The store is the truth, the queue only a doorbell: whatever a bell says, `claim` decides, and every
write of a worker is fenced by the epoch its claim was given (invariant 4). Times are the database's
own (invariant 8). Every method may raise `StoreUnavailable`; then nothing was changed, or, where a
commit's reply was lost, asking again gives the same answer.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    RowMapping,
    Select,
    Table,
    case,
    delete,
    literal,
    select,
    tuple_,
    update,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects import postgresql, sqlite
from uuid_utils import uuid7

from shared.database import Database, NowMs
from shared.errors import AttemptsUsedUp, Conflict, Failure
from shared.registration import (
    IN_FLIGHT,
    Accepted,
    AlreadyRegistered,
    Claim,
    Digest,
    Outcome,
    Plugin,
    Progress,
    Registration,
    RegistrationId,
    Status,
    Submission,
    Taken,
    normalised,
)
from shared.tables import (
    IN_FLIGHT_SQL,
    PluginRow,
    RegistrationRow,
    failure_text,
    plugin_of,
    registration_of,
    submission_columns,
    submission_of,
)

_registrations = RegistrationRow.__table__
_plugins = PluginRow.__table__
_r = _registrations.c
_p = _plugins.c
_NOW = NowMs()


class Store:
    """What api and worker know of registrations and plugins."""

    def __init__(self, database: Database, *, ring_again_after_s: float = 10) -> None:
        self._database = database
        self._insert = sqlite.insert if database.dialect == "sqlite" else postgresql.insert
        self._ring_again_ms = int(ring_again_after_s * 1000)

    # --- submitting -----------------------------------------------------------------------------

    def submit(self, submissions: Sequence[tuple[Submission, str]]) -> list[Outcome]:
        """Accept *submissions*, each with the label of its submitter, all or none.

        An identical submission in flight is joined; an identical or conflicting plugin is
        returned instead of a registration.
        """
        with self._database.write() as connection:
            return [self._submit(connection, submission, by) for submission, by in submissions]

    def preview(self, submission: Submission) -> AlreadyRegistered | Taken | None:
        """Return what stands in the way of *submission*, if anything does; change nothing."""
        with self._database.read() as connection:
            return _standing(connection, submission)

    def _submit(self, connection: Connection, submission: Submission, by: str) -> Outcome:
        # First the row, then the look at the plugins. The other way round, on PostgreSQL, an identical
        # registration that settles between the two statements would be seen by neither.
        inserted = connection.execute(
            self._insert(_registrations)
            .values(
                id=f"registration-{uuid7()}",
                submitted_by=by,
                status=Status.QUEUED,
                epoch=0,
                attempts=0,
                due_at=_NOW,
                ring_at=_NOW + self._ring_again_ms,
                bytes_downloaded=0,
                created_at=_NOW,
                updated_at=_NOW,
                **submission_columns(submission),
            )
            .on_conflict_do_nothing(index_elements=["fingerprint"], index_where=sql(IN_FLIGHT_SQL))
            .returning(_registrations)
        ).first()
        standing = _standing(connection, submission)
        if standing is not None:
            if inserted is not None:
                connection.execute(delete(_registrations).where(_r.id == inserted.id))
            return standing
        if inserted is not None:
            return Accepted(registration_of(inserted._mapping), new=True)
        in_flight = connection.execute(
            select(_registrations).where(_r.fingerprint == submission.fingerprint, _in_flight())
        ).one()
        return Accepted(registration_of(in_flight._mapping), new=False)

    # --- verifying ------------------------------------------------------------------------------

    def claim(
        self, registration_id: RegistrationId, *, worker: str, lease_s: float, max_attempts: int
    ) -> Claim | None:
        """Claim a registration that is due, for *lease_s* seconds; return None if there is nothing to do.

        The attempt is counted here and not when it ends, so that an artifact which kills workers
        runs out of attempts (invariant 6).
        """
        lease_end = _NOW + int(lease_s * 1000)
        with self._database.write() as connection:
            row = connection.execute(
                update(_registrations)
                .where(_r.id == registration_id, _in_flight(), _r.due_at <= _NOW, _r.attempts < max_attempts)
                .values(
                    status=Status.VERIFYING,
                    epoch=_r.epoch + 1,
                    attempts=_r.attempts + 1,
                    due_at=lease_end,
                    ring_at=lease_end,
                    claimed_by=worker,
                    bytes_downloaded=0,
                    artifact_bytes=None,
                    updated_at=_NOW,
                )
                .returning(_registrations)
            ).first()
        if row is None:
            return None
        return Claim(row.id, row.epoch, row.attempts, submission_of(row._mapping))

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
        with self._database.write() as connection:
            rows = connection.execute(
                update(_registrations)
                .where(
                    tuple_(_r.id, _r.epoch).in_([(each.registration_id, each.epoch) for each in progress]),
                    _r.status == Status.VERIFYING,
                )
                .values(
                    due_at=lease_end,
                    ring_at=lease_end,
                    bytes_downloaded=case(downloaded, value=_r.id),
                    artifact_bytes=case(announced, value=_r.id),
                    updated_at=_NOW,
                )
                .returning(_r.id, _r.epoch)
            ).all()
        return {(row.id, row.epoch) for row in rows}

    def register(self, claim: Claim, digest: Digest) -> Registration | None:
        """Settle *claim* as registered and write its plugin, or as rejected if the name is taken.

        Returns:
            the registration in its final state; None if the claim was lost, and then nothing was written.
        """
        plugin_id = f"plugin-{uuid7()}"
        with self._database.write() as connection:
            settled = _settle(
                connection,
                claim,
                status=Status.REGISTERED,
                plugin_id=plugin_id,
                failure=None,
                bytes_downloaded=digest.size_bytes,
                artifact_bytes=digest.size_bytes,
            )
            if settled is None:
                return None
            written = connection.execute(
                self._insert(_plugins)
                .values(
                    id=plugin_id,
                    registration_id=claim.registration_id,
                    artifact_bytes=digest.size_bytes,
                    registered_at=_NOW,
                    **submission_columns(claim.submission),
                )
                .on_conflict_do_nothing(index_elements=["name_key", "version"])
                .returning(_p.id)
            ).first()
            if written is None:  # invariant 2: the first plugin of that name and version stands
                standing = _plugin_at(connection, claim.submission)
                assert standing is not None  # noqa: S101  # plugins are never deleted
                conflict = Conflict.with_plugin(standing["id"], standing["checksum"]).failure()
                settled = connection.execute(
                    update(_registrations)
                    .where(_r.id == claim.registration_id)
                    .values(status=Status.REJECTED, plugin_id=None, failure=failure_text(conflict))
                    .returning(_registrations)
                ).one()
        return registration_of(settled._mapping)

    def reject(self, claim: Claim, failure: Failure) -> bool:
        """Settle *claim* as rejected; return whether it was still ours."""
        return self._end(claim, status=Status.REJECTED, failure=failure_text(failure))

    def fail(self, claim: Claim, failure: Failure) -> bool:
        """Settle *claim* as failed, its attempts used up; return whether it was still ours."""
        return self._end(claim, status=Status.FAILED, failure=failure_text(failure))

    def postpone(self, claim: Claim, failure: Failure, *, delay_s: float) -> bool:
        """Put *claim* back to be tried again after *delay_s*; return whether it was still ours."""
        again_at = _NOW + int(delay_s * 1000)
        return self._end(
            claim, status=Status.QUEUED, failure=failure_text(failure), due_at=again_at, ring_at=again_at
        )

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
        with self._database.write() as connection:
            return _settle(connection, claim, **values) is not None

    # --- sweeping -------------------------------------------------------------------------------

    def ring_due(self, limit: int) -> list[RegistrationId]:
        """Return up to *limit* registrations that are due and whose bell seems lost, longest due first.

        Each is left alone for a while after that, so that the next sweep does not ring for it again.
        """
        if limit <= 0:
            return []
        overdue = select(_r.id).where(_in_flight(), _r.ring_at <= _NOW).order_by(_r.ring_at).limit(limit)
        with self._database.write() as connection:
            rows = connection.execute(
                update(_registrations)
                .where(_r.id.in_(overdue.with_for_update(skip_locked=True)))
                .values(ring_at=_NOW + self._ring_again_ms)
                .returning(_r.id)
            ).all()
        return [row.id for row in rows]

    def fail_used_up(self, max_attempts: int) -> list[RegistrationId]:
        """Settle as failed what is due, has no attempts left and so can never be claimed again."""
        failure = AttemptsUsedUp(
            "Every worker that tried this artifact stopped before it could say how it went."
        ).failure()
        with self._database.write() as connection:
            rows = connection.execute(
                update(_registrations)
                .where(_in_flight(), _r.ring_at <= _NOW, _r.due_at <= _NOW, _r.attempts >= max_attempts)
                .values(status=Status.FAILED, failure=failure_text(failure), updated_at=_NOW)
                .returning(_r.id)
            ).all()
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
                .where(_r.id < _first_id_at(before), _r.status.not_in([*IN_FLIGHT]), _r.updated_at < before)
                .order_by(_r.id)
                .limit(limit)
            )
            return connection.execute(delete(_registrations).where(_r.id.in_(oldest))).rowcount

    # --- reading --------------------------------------------------------------------------------

    def registration(self, registration_id: str) -> Registration | None:
        """Return one registration."""
        rows = self._select_registrations(_r.id == registration_id)
        return rows[0] if rows else None

    def settled(self, registration_ids: Iterable[RegistrationId]) -> list[Registration]:
        """Return those of *registration_ids* that have reached a final state."""
        return self._select_registrations(_r.id.in_(list(registration_ids)), _r.status.not_in([*IN_FLIGHT]))

    def registrations(
        self, *, limit: int, before: str | None = None, filters: Mapping[str, str] | None = None
    ) -> list[Registration]:
        """Return a page of registrations, newest first: up to *limit* with ids below *before*.

        *filters* hold columns and the value each must have; ``name`` is compared as uniqueness sees it.
        """
        with self._database.read() as connection:
            rows = connection.execute(_page(_registrations, limit, before, filters)).all()
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
            rows = connection.execute(_page(_plugins, limit, before, filters)).all()
        return [plugin_of(row._mapping) for row in rows]

    def _select_registrations(self, *conditions: Any) -> list[Registration]:
        with self._database.read() as connection:
            rows = connection.execute(select(_registrations).where(*conditions)).all()
        return [registration_of(row._mapping) for row in rows]


def _in_flight() -> Any:
    return sql(IN_FLIGHT_SQL)  # in the words of the partial indexes, so that they are used


def _standing(connection: Connection, submission: Submission) -> AlreadyRegistered | Taken | None:
    row = _plugin_at(connection, submission)
    if row is None:
        return None
    same = row["fingerprint"] == submission.fingerprint
    return AlreadyRegistered(plugin_of(row)) if same else Taken(plugin_of(row))


def _plugin_at(connection: Connection, submission: Submission) -> RowMapping | None:
    return (
        connection.execute(
            select(_plugins).where(_p.name_key == submission.name_key, _p.version == submission.version)
        )
        .mappings()
        .first()
    )


def _first_id_at(milliseconds: int) -> str:
    """Return what no registration id made since then is below (RFC 9562 section 5.7)."""
    time = f"{milliseconds:012x}"
    return f"registration-{time[:8]}-{time[8:]}-7000"


def _settle(connection: Connection, claim: Claim, **values: Any) -> Row[Any] | None:
    """Write a worker's word on *claim*. The fence is here, once, for every such write (invariant 4)."""
    return connection.execute(
        update(_registrations)
        .where(_r.id == claim.registration_id, _r.status == Status.VERIFYING, _r.epoch == claim.epoch)
        .values(updated_at=_NOW, **values)
        .returning(_registrations)
    ).first()


def _page(table: Table, limit: int, before: str | None, filters: Mapping[str, str] | None) -> Select[tuple[Any, ...]]:
    """Return the query for a page by keyset: ids are UUIDv7, so the newest have the highest."""
    page = select(table).order_by(table.c.id.desc()).limit(limit)
    if before is not None:
        page = page.where(table.c.id < before)
    for column, value in (filters or {}).items():
        condition = table.c.name_key == normalised(value) if column == "name" else table.c[column] == value
        page = page.where(condition)
    return page
