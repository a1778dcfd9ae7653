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
from shared.registration import Plugin, Registration, Status, Submission

SCHEMA_VERSION = "0001"
"""The newest migration; a test holds it and the tables together with ``migrations/``."""

IN_FLIGHT_SQL = "status IN ('queued', 'verifying')"
_WHERE_IN_FLIGHT: Mapping[str, Any] = {
    "sqlite_where": text(IN_FLIGHT_SQL),
    "postgresql_where": text(IN_FLIGHT_SQL),
}
_MILLISECONDS = BigInteger


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


class RegistrationRow(_Submitted, table=True):
    """One registration, from acceptance on."""

    __tablename__ = "registrations"
    __table_args__ = (
        # Joining: of identical submissions one is in flight at a time, whoever commits first.
        Index("one_in_flight", "fingerprint", unique=True, **_WHERE_IN_FLIGHT),
        Index("to_ring", "ring_at", **_WHERE_IN_FLIGHT),
        Index("registrations_by_status", "status", "id"),
        Index("registrations_by_name", "name_key", "id"),
    )
    __table__: ClassVar[Table]

    id: str = Field(primary_key=True)
    submitted_by: str

    status: str
    epoch: int
    attempts: int
    due_at: int = Field(sa_type=_MILLISECONDS)
    """When it may be claimed: a queued one's next attempt, a claimed one's end of lease."""
    ring_at: int = Field(sa_type=_MILLISECONDS)
    """When the sweep rings for it, should nobody have claimed it until then."""
    claimed_by: str | None
    bytes_downloaded: int = Field(sa_type=BigInteger)
    artifact_bytes: int | None = Field(sa_type=BigInteger)
    created_at: int = Field(sa_type=_MILLISECONDS)
    updated_at: int = Field(sa_type=_MILLISECONDS)
    plugin_id: str | None
    failure: str | None = Field(sa_type=Text)


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


def submission_columns(submission: Submission) -> dict[str, Any]:
    """Return the columns that registrations and plugins share."""
    return {
        "fingerprint": submission.fingerprint,
        "name": submission.name,
        "name_key": submission.name_key,
        "version": submission.version,
        "plugin_type": submission.plugin_type,
        "artifact_url": submission.artifact_url,
        "checksum": submission.checksum,
        "config_schema": submission.config_schema,
        "plugin_runtime": submission.plugin_runtime,
    }


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
    )


def plugin_of(row: RowMapping) -> Plugin:
    """Return the plugin in a row."""
    fields = {name: row[name] for name in Plugin.model_fields}
    return Plugin.model_construct(**{**fields, "registered_at": moment(row["registered_at"])})


def failure_text(failure: Failure) -> str:
    """Return *failure* as it is kept in its column."""
    return json.dumps(asdict(failure))


def failure_of(stored: str | None) -> Failure | None:
    """Return the failure in a column, if one is there."""
    return Failure(**json.loads(stored)) if stored is not None else None


def moment(milliseconds: int) -> datetime:
    """Return a column's time as an aware datetime."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
