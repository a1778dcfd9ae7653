"""The tables, and row <-> value. Private to the store: nothing else imports this.

Times are whole milliseconds since the epoch by the database's clock (invariant 8). SQLModel tables do
not validate; what enters was parsed before it came here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import BigInteger, Index, RowMapping, Table, Text, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from shared.errors import Failure
from shared.registration import Attempted, Plugin, Registration, Settled, Status, Submission, Trip

SCHEMA_VERSION = "0008"
"""The newest migration; a test holds it and the tables together with ``migrations/``."""
OLDEST_STORE = "0008"
"""The oldest migration on whose tables this code works, all the same: a test looks for these tables there."""

IN_FLIGHT_SQL = "status IN ('queued', 'verifying')"
UNCOUNTED_SQL = "status NOT IN ('queued', 'verifying') AND NOT counted"
WITHOUT_HOST_SQL = "host IS NULL AND status <> 'registered'"
"""Submitted by a release that did not note it; the sweep does."""
UNTOLD_SQL = "counted AND NOT told"
"""Final, and counted by a release that tells no events: in a rolling upgrade, or before there was a feed."""
_MILLISECONDS = BigInteger


def _where(condition: str) -> dict[str, Any]:
    """Return what makes an index hold only the rows for which *condition* is true."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class _Submitted(SQLModel):
    """The columns of what was submitted, which a registration and its plugin share."""

    fingerprint: str
    name: str
    name_key: str
    version: str
    plugin_type: str
    artifact_url: str
    checksum: str
    config_schema: str = Field(sa_type=Text)
    plugin_runtime: str


SUBMITTED = tuple(_Submitted.model_fields)
"""The names of these columns."""


class RegistrationRow(_Submitted, table=True):
    """One registration, from acceptance on."""

    __tablename__ = "registrations"
    __table_args__ = (
        # Joining: of identical submissions one is in flight at a time, whoever commits first.
        Index("one_in_flight", "fingerprint", unique=True, **_where(IN_FLIGHT_SQL)),
        Index("to_ring", "ring_at", **_where(IN_FLIGHT_SQL)),
        Index("in_flight_by_submitter", "submitted_by", "status", **_where(IN_FLIGHT_SQL)),
        Index("registrations_by_status", "status", "id"),
        Index("registrations_by_name", "name_key", "id"),
        Index("registrations_by_cause", "cause", "id", **_where("cause IS NOT NULL")),
        Index("registrations_to_count", "id", **_where(UNCOUNTED_SQL)),
        Index("registrations_by_host", "host", "id", **_where("host IS NOT NULL")),
        Index("registrations_without_host", "id", **_where(WITHOUT_HOST_SQL)),
        Index("registrations_to_tell", "updated_at", **_where(UNTOLD_SQL)),
        Index("registrations_by_retry", "retry_of", "id", **_where("retry_of IS NOT NULL")),
    )
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    submitted_by: str
    retry_of: str | None
    """The registration that an operator had tried again as this one."""
    trace: str | None
    """The W3C traceparent of the request that submitted it, where requests are traced."""
    host: str | None
    """Of its `artifact_url`, with the port where there is one; of old ones it may be missing."""

    status: str
    epoch: int
    attempts: int
    due_at: int = Field(sa_type=_MILLISECONDS)
    """When it may be claimed: a queued one's next attempt, a claimed one's end of lease."""
    ring_at: int = Field(sa_type=_MILLISECONDS)
    """When the sweep rings for it, should nobody have claimed it until then."""
    claimed_by: str | None
    claimed_at: int | None = Field(sa_type=_MILLISECONDS)
    progressed_at: int | None = Field(sa_type=_MILLISECONDS)
    """When the last byte was seen to arrive."""
    leases_lost: int = Field(sa_column_kwargs={"server_default": "0"})
    """How often its lease ran out, and another claim was made."""
    bytes_downloaded: int = Field(sa_type=BigInteger)
    artifact_bytes: int | None = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=_MILLISECONDS)
    updated_at: int = Field(sa_type=_MILLISECONDS)
    plugin_id: str | None
    hops: str | None = Field(sa_type=Text)
    """Where redirects led the attempt that it was registered by, as a JSON list of URLs without queries."""
    failure: str | None = Field(sa_type=Text)
    cause: str | None
    """The failure's cause, once more: to find and count by."""
    counted: bool = Field(sa_column_kwargs={"server_default": text("false")})
    """Whether the counters hold it; only a final one ever is."""
    told: bool = Field(sa_column_kwargs={"server_default": text("false")})
    """Whether the feed of events holds it."""


class PluginRow(_Submitted, table=True):
    """One verified record; it never changes."""

    __tablename__ = "plugins"
    __table_args__ = (
        UniqueConstraint("name_key", "version", name="one_plugin"),  # the referee of races, invariant 2
        UniqueConstraint("registration_id", name="one_plugin_a_registration"),  # invariant 5
        Index("plugins_by_checksum", "checksum", "id"),
        Index("plugins_by_name", "name_key", "id"),
        Index("plugins_by_type", "plugin_type", "id"),
    )
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    registration_id: str
    artifact_bytes: int = Field(sa_type=BigInteger)
    registered_at: int = Field(sa_type=_MILLISECONDS)


class AttemptRow(SQLModel, table=True):
    """One attempt that a worker ended without registering anything; that which did stands in its registration."""

    __tablename__ = "attempts"
    __table__: ClassVar[Table]

    registration_id: str = Field(foreign_key="registrations.id", ondelete="CASCADE", primary_key=True)
    epoch: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    begun_at: int = Field(sa_type=_MILLISECONDS)
    ended_at: int = Field(sa_type=_MILLISECONDS)
    worker: str | None
    bytes_downloaded: int = Field(sa_type=BigInteger)
    hops: str | None = Field(sa_type=Text)
    failure: str | None = Field(sa_type=Text)
    """None where its worker put it back."""


class TokenRow(SQLModel, table=True):
    """One access token; of the token itself only a SHA-256 is kept."""

    __tablename__ = "tokens"
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    label: str
    secret_sha256: str
    scopes: str
    names: str
    created_at: int = Field(sa_type=_MILLISECONDS)
    expires_at: int | None = Field(sa_type=_MILLISECONDS)
    revoked_at: int | None = Field(sa_type=_MILLISECONDS)


class CounterRow(SQLModel, table=True):
    """How often something happened since the store was made: what metrics are read from."""

    __tablename__ = "counters"
    __table__: ClassVar[Table]

    name: str = Field(primary_key=True)
    labels: str = Field(primary_key=True)
    """A JSON list of label values."""
    value: int = Field(sa_type=BigInteger)


class PeriodRow(SQLModel, table=True):
    """How many registrations settled in one period, by what: a status in each minute, a host in each hour."""

    __tablename__ = "periods"
    __table__: ClassVar[Table]

    kind: str = Field(primary_key=True)
    begun_at: int = Field(sa_type=_MILLISECONDS, primary_key=True)
    label: str = Field(primary_key=True)
    settled: int
    failed: int
    bytes: int = Field(sa_type=BigInteger)
    verifying_ms: int = Field(sa_type=BigInteger)


class WorkerRow(SQLModel, table=True):
    """A worker process, and when it was last heard of."""

    __tablename__ = "workers"
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    max_downloads: int
    started_at: int = Field(sa_type=_MILLISECONDS)
    seen_at: int = Field(sa_type=_MILLISECONDS)
    lost: bool = Field(sa_column_kwargs={"server_default": text("false")})
    """It went without a word, and was counted."""
    missed: int = Field(sa_column_kwargs={"server_default": "0"})
    """How many sweeps in a row have not heard of it."""


class MarkRow(SQLModel, table=True):
    """When something last ran."""

    __tablename__ = "marks"
    __table__: ClassVar[Table]

    name: str = Field(primary_key=True)
    at: int = Field(sa_type=_MILLISECONDS)


class ActionRow(SQLModel, table=True):
    """What an operator did, to which registration, by which token."""

    __tablename__ = "actions"
    __table_args__ = (Index("actions_by_registration", "registration_id", "id"),)
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    at: int = Field(sa_type=_MILLISECONDS)
    by: str
    token_id: str
    what: str
    registration_id: str
    """Empty where it was not done to a registration."""
    became: str | None
    """The registration that a retried one is tried again as."""
    subject: str | None
    """What it was done to, where that is no registration: a host, an alert, a token."""
    note: str | None
    """Why, in the operator's words."""


class PausedHostRow(SQLModel, table=True):
    """A host from which nothing is fetched until somebody resumes it."""

    __tablename__ = "paused_hosts"
    __table__: ClassVar[Table]

    host: str = Field(primary_key=True)
    at: int = Field(sa_type=_MILLISECONDS)
    by: str
    note: str


class AcknowledgementRow(SQLModel, table=True):
    """An alert that somebody knows of, and which is to wake nobody for a while."""

    __tablename__ = "acknowledgements"
    __table__: ClassVar[Table]

    alert: str = Field(primary_key=True)
    at: int = Field(sa_type=_MILLISECONDS)
    until: int = Field(sa_type=_MILLISECONDS)
    by: str
    note: str


class EventRow(SQLModel, table=True):
    """What happened, told once: a line of the feed. It never changes."""

    __tablename__ = "events"
    __table_args__ = (UniqueConstraint("registration_id", name="one_event_a_registration"),)  # invariant 16
    __table__: ClassVar[Table]

    seq: int = Field(sa_type=BigInteger, primary_key=True, sa_column_kwargs={"autoincrement": False})
    """Its place in the feed, without gaps: who has read up to here has missed nothing."""
    id: str
    kind: str
    told_at: int = Field(sa_type=_MILLISECONDS)
    """When it was given its number: the two rise together."""
    name_key: str
    registration_id: str | None
    document: str = Field(sa_type=Text)
    """What readers and webhooks are sent, as JSON."""


class WebhookRow(SQLModel, table=True):
    """A URL that is told of events."""

    __tablename__ = "webhooks"
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    url: str
    host: str
    label: str
    kinds: str
    """Of the events it is told; one a line, none meaning all."""
    names: str
    """Patterns of the names it is told of; one a line, none meaning all."""
    secret: str | None
    """To sign with (`v1`); none where only the registry's own key is used (`v1a`)."""
    old_secret: str | None
    old_secret_until: int | None = Field(sa_type=_MILLISECONDS)
    created_at: int = Field(sa_type=_MILLISECONDS)
    created_by: str
    failing_since: int | None = Field(sa_type=_MILLISECONDS)
    disabled_at: int | None = Field(sa_type=_MILLISECONDS)
    disabled_why: str | None


class DeliveryRow(SQLModel, table=True):
    """One event that one webhook is to be told, and how that goes."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("deliveries_due", "webhook_id", "due_at", **_where("due_at IS NOT NULL")),
        Index("deliveries_by_webhook", "webhook_id", "id"),
        Index("deliveries_by_age", "created_at"),
    )
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    webhook_id: str = Field(foreign_key="webhooks.id", ondelete="CASCADE")
    event_id: str
    kind: str
    body: str = Field(sa_type=Text)
    created_at: int = Field(sa_type=_MILLISECONDS)
    due_at: int | None = Field(sa_type=_MILLISECONDS)
    """When it is tried, or tried again by somebody else if who tries it now is lost; null when it is over."""
    trials: int
    """How many were begun, and with how many somebody had it tried again: only the newest one's word counts."""
    failures: int
    """How many failed since it was last to be tried from the first: how long the next pause is."""
    tried_at: int | None = Field(sa_type=_MILLISECONDS)
    status: int | None
    """What was answered last."""
    error: str | None
    """Why there was no answer, or what was wrong with it."""
    delivered_at: int | None = Field(sa_type=_MILLISECONDS)


class SigningKeyRow(SQLModel, table=True):
    """A key of the registry's own, to sign what it sends with."""

    __tablename__ = "signing_keys"
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    use: str
    private: str
    public: str
    created_at: int = Field(sa_type=_MILLISECONDS)


class SessionRow(SQLModel, table=True):
    """A browser that signed in to the operations page; of its secret only a SHA-256 is kept."""

    __tablename__ = "sessions"
    __table__: ClassVar[Table]

    secret_sha256: str = Field(primary_key=True)
    token_id: str
    expires_at: int = Field(sa_type=_MILLISECONDS)


registrations = RegistrationRow.__table__
plugins = PluginRow.__table__
tokens = TokenRow.__table__
counters = CounterRow.__table__
periods = PeriodRow.__table__
workers = WorkerRow.__table__
marks = MarkRow.__table__
actions = ActionRow.__table__
attempts = AttemptRow.__table__
paused_hosts = PausedHostRow.__table__
acknowledgements = AcknowledgementRow.__table__
sessions = SessionRow.__table__
events = EventRow.__table__
webhooks = WebhookRow.__table__
deliveries = DeliveryRow.__table__
signing_keys = SigningKeyRow.__table__


def submitted(submission: Submission) -> tuple[str, ...]:
    """Return the values of `SUBMITTED`, the columns that registrations and plugins share."""
    return tuple(getattr(submission, name) for name in SUBMITTED)


def submission_of(row: RowMapping) -> Submission:
    """Return the submission in a row; it was parsed before it was written."""
    return Submission.model_construct(**{name: row[name] for name in Submission.model_fields})


def registration_of(row: RowMapping) -> Registration:
    """Return the registration in a row."""
    status = Status(row["status"])
    return Registration(
        id=row["id"],
        submission=submission_of(row),
        status=status,
        attempts=row["attempts"],
        bytes_downloaded=row["bytes_downloaded"],
        artifact_bytes=row["artifact_bytes"],
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        next_attempt_at=moment(row["due_at"]) if status is Status.QUEUED else None,
        plugin_id=row["plugin_id"],
        failure=failure_of(row["failure"]),
        retry_of=row["retry_of"],
        claimed_at=moment(row["claimed_at"]) if row["claimed_at"] is not None else None,
        progressed_at=moment(row["progressed_at"]) if row["progressed_at"] is not None else None,
        claimed_by=row["claimed_by"],
        submitted_by=row["submitted_by"],
        epoch=row["epoch"],
        hops=hops_of(row["hops"]),
    )


def hops_of(stored: str | None) -> tuple[str, ...]:
    """Return the hops in a column."""
    return tuple(json.loads(stored)) if stored else ()


def attempted_of(row: RowMapping) -> Attempted:
    """Return the attempt in a row."""
    return Attempted(
        epoch=row["epoch"],
        begun_at=moment(row["begun_at"]),
        ended_at=moment(row["ended_at"]),
        worker=row["worker"],
        trip=Trip(row["bytes_downloaded"], hops_of(row["hops"])),
        failure=failure_of(row["failure"]),
    )


def plugin_of(row: Mapping[str, Any] | RowMapping) -> Plugin:
    """Return the plugin in a row."""
    fields = {name: row[name] for name in Plugin.model_fields}
    return Plugin.model_construct(**{**fields, "registered_at": moment(row["registered_at"])})


def settled_of(row: RowMapping) -> Settled:
    """Return what is in the row of a registration that is final, with its plugin's `registered_at` beside it."""
    plugin = plugin_of({**row, "id": row["plugin_id"]}) if row["registered_at"] is not None else None
    return Settled(registration_of(row), plugin)


def failure_columns(failure: Failure) -> dict[str, str]:
    """Return *failure* as it is kept in its columns."""
    return {"failure": json.dumps(asdict(failure)), "cause": failure.cause}


def failure_of(stored: str | None) -> Failure | None:
    """Return the failure in a column, if one is there."""
    return Failure(**json.loads(stored)) if stored is not None else None


def moment(milliseconds: int) -> datetime:
    """Return a column's time as an aware datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
