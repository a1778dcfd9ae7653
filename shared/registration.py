"""The values that travel: Submission, Registration, Plugin, Digest, Claim; and what a valid one is.

Values are made by parsing, so holding one means it is valid. Their wire form is camelCase JSON in
which every field of a plugin is a string (the RegisterPlugin page); rows never leave the store.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, NewType, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel

from shared import fields
from shared.characters import NO_HIDDEN, refuse_hidden
from shared.errors import Conflict, Failure

PluginType = Literal["log", "metric", "trace"]
RegistrationId = NewType("RegistrationId", str)
"""``registration-`` and a UUIDv7: ids sort by the time they were made."""
PluginId = NewType("PluginId", str)
"""``plugin-`` and a UUIDv7."""

_UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
ID = f"(?:plugin|registration|action|delivery|webhook)-{_UUID}"
REGISTRATION_ID = f"^registration-{_UUID}$"


class Status(StrEnum):
    """Where a registration stands; the last four are final (invariant 3)."""

    QUEUED = "queued"
    VERIFYING = "verifying"
    REGISTERED = "registered"
    REJECTED = "rejected"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def final(self) -> bool:
        """Whether nothing will change this any more."""
        return self not in IN_FLIGHT


IN_FLIGHT = frozenset({Status.QUEUED, Status.VERIFYING})
UNREGISTERED = frozenset({Status.REJECTED, Status.FAILED, Status.CANCELED})
"""How one ends that became no plugin: an operator may have it tried again, as a new registration."""


@dataclass(frozen=True)
class Digest:
    """A computed digest: *sha256* as 64 lower-case hex digits, over *size_bytes* bytes."""

    sha256: str
    size_bytes: int

    @property
    def checksum(self) -> str:
        """The digest as it is declared and shown: ``sha256:`` and the hex digits."""
        return f"sha256:{self.sha256}"


def rfc3339(moment: datetime) -> str:
    """Return *moment* as RFC 3339 in UTC with ``Z``, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Timestamp = Annotated[
    datetime,
    PlainSerializer(rfc3339, return_type=str),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-01-15T08:00:00.000Z"]},
        mode="serialization",
    ),
]


class _Value(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        alias_generator=to_camel,
        serialize_by_alias=True,
        use_attribute_docstrings=True,
    )


class Submission(_Value):
    """What a client declares of one plugin."""

    name: Annotated[str, Field(max_length=fields.MAX_NAME_CHARACTERS), AfterValidator(fields.parse_name)] = Field(
        examples=["nginx-log-collector"], json_schema_extra={"pattern": fields.NAME}
    )
    """Human-readable name; unique together with the version after case and separators are normalised."""
    version: Annotated[str, Field(max_length=255), AfterValidator(fields.parse_version)] = Field(
        examples=["2.1.0"], json_schema_extra={"pattern": fields.SEMVER}
    )
    """SemVer 2.0.0."""
    plugin_type: PluginType = Field(examples=["log"])
    """What the plugin collects."""
    artifact_url: Annotated[str, StringConstraints(min_length=1, max_length=2048)] = Field(
        examples=["https://artifacts.example.com/plugins/nginx-log-collector-2.1.0.tar.gz"]
    )
    """Where the artifact can be downloaded: https, no userinfo, no fragment."""
    checksum: Annotated[str, AfterValidator(fields.parse_checksum)] = Field(
        examples=["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"],
        json_schema_extra={"pattern": fields.CHECKSUM},
    )
    """The declared digest: ``sha256:`` and 64 hex digits."""
    config_schema: Annotated[str, AfterValidator(fields.parse_schema_text)] = Field("{}", examples=["{}"])
    """JSON Schema of the plugin's configuration, as a string."""
    plugin_runtime: Annotated[str, Field(max_length=200), AfterValidator(refuse_hidden)] = Field(
        "", examples=["go"], json_schema_extra={"pattern": NO_HIDDEN}
    )
    """Runtime environment the plugin needs."""

    @property
    def name_key(self) -> str:
        """The name as uniqueness sees it."""
        return fields.normalised(self.name)

    @property
    def fingerprint(self) -> str:
        """One short word for the whole submission: two that are identical share it, no others do."""
        fields = [
            self.name_key,
            self.version,
            self.plugin_type,
            self.artifact_url,
            self.checksum,
            self.config_schema,
            self.plugin_runtime,
        ]
        return hashlib.sha256(json.dumps(fields).encode()).hexdigest()


_PORTS = {"https": ":443", "http": ":80"}


def host_of(url: str) -> str:
    """Return the host and port in *url*, as operators read them: however a URL spells one, it is one."""
    parts = urlsplit(url)
    host, port = parts.netloc.lower(), _PORTS.get(parts.scheme, "")
    return host.removesuffix(port).removesuffix(".") if port else host


class Plugin(_Value):
    """A verified record: exactly the nine documented fields, every one a string on the wire."""

    id: PluginId = Field(examples=["plugin-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"])
    name: str = Field(examples=["nginx-log-collector"])
    version: str = Field(examples=["2.1.0"])
    plugin_type: PluginType = Field(examples=["log"])
    artifact_url: str = Field(examples=["https://artifacts.example.com/plugins/nginx-log-collector-2.1.0.tar.gz"])
    checksum: str = Field(examples=["sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"])
    config_schema: str = Field(examples=["{}"])
    plugin_runtime: str = Field(examples=["go"])
    registered_at: Timestamp


@dataclass(frozen=True)
class Registration:
    """One request to have an artifact verified, as the store knows it."""

    id: RegistrationId
    submission: Submission
    status: Status
    attempts: int
    bytes_downloaded: int
    artifact_bytes: int | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    plugin_id: PluginId | None
    failure: Failure | None
    """Why it ended, or why the last attempt did not."""
    retry_of: RegistrationId | None = None
    """The registration that this one tries again."""
    claimed_at: datetime | None = None
    progressed_at: datetime | None = None
    """When the last byte was seen to arrive."""
    claimed_by: str | None = None
    submitted_by: str = ""
    """The label of the token that submitted it, or its id."""
    epoch: int = 0
    """How many claims of it there were."""
    hops: tuple[str, ...] = ()
    """Where redirects led the attempt that it was registered by, without queries."""
    retried_as: RegistrationId | None = None
    """The newest registration that tries this one again."""

    @property
    def host(self) -> str:
        """The host of its artifact, with the port where the URL has one."""
        return host_of(self.submission.artifact_url)


@dataclass(frozen=True)
class Settled:
    """A registration that is final, and the plugin it became."""

    registration: Registration
    plugin: Plugin | None


@dataclass(frozen=True)
class Claim:
    """A worker's hold on a registration: a lease, fenced by *epoch* (invariant 4)."""

    registration_id: RegistrationId
    epoch: int
    attempt: int
    submission: Submission
    trace: str | None = None
    """The W3C traceparent of the request that submitted it, where requests are traced."""
    submitted_by: str = ""


@dataclass(frozen=True)
class Terms:
    """On what a worker's claims are made."""

    worker: str
    lease_s: float
    max_attempts: int


@dataclass(frozen=True)
class Waiting:
    """A registration that may be claimed: what a worker must know to decide whose turn it is."""

    id: RegistrationId
    artifact_url: str
    submitted_by: str


@dataclass(frozen=True)
class Trip:
    """What an attempt saw on its way: *bytes_downloaded*, and the *hops* that redirects led to, without queries."""

    bytes_downloaded: int
    hops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempted:
    """One attempt that is over: None for *failure* where it registered the artifact."""

    epoch: int
    begun_at: datetime
    ended_at: datetime
    worker: str | None
    trip: Trip
    failure: Failure | None


@dataclass(frozen=True)
class Settlement:
    """A worker's word on its claim: what it ends as, or that it is queued again and when."""

    claim: Claim
    status: Status
    digest: Digest | None = None
    """Of what is registered."""
    failure: Failure | None = None
    due_in_s: float | None = None
    ring_in_s: float | None = None
    given_back: bool = False
    """Whether the attempt counts for nothing."""
    trip: Trip = Trip(0)
    """What the attempt saw on its way."""

    @classmethod
    def registered(cls, claim: Claim, digest: Digest) -> Self:
        """Write its plugin, too; or reject it, if the name is taken by then."""
        return cls(claim, Status.REGISTERED, digest=digest)

    @classmethod
    def rejected(cls, claim: Claim, failure: Failure) -> Self:
        """End it for good."""
        return cls(claim, Status.REJECTED, failure=failure)

    @classmethod
    def failed(cls, claim: Claim, failure: Failure) -> Self:
        """End it, its attempts used up."""
        return cls(claim, Status.FAILED, failure=failure)

    @classmethod
    def postponed(cls, claim: Claim, failure: Failure, *, delay_s: float, given_back: bool = False) -> Self:
        """Have it tried again after *delay_s*."""
        return cls(claim, Status.QUEUED, failure=failure, due_in_s=delay_s, ring_in_s=delay_s, given_back=given_back)

    @classmethod
    def released(cls, claim: Claim) -> Self:
        """Put it back as if it had not been claimed; the next sweep rings for it."""
        return cls(claim, Status.QUEUED, due_in_s=0, ring_in_s=0, given_back=True)


@dataclass(frozen=True)
class Operator:
    """Who acts: the label and the id of a token."""

    label: str
    token_id: str

    @property
    def submitter(self) -> str:
        """Whose submissions the retried ones are: as of any token, its label, or its id where it has none."""
        return self.label or self.token_id


@dataclass(frozen=True)
class Action:
    """What an operator did: *by* is the label of a token, *became* the registration that a retry made.

    What was done to no registration has a *subject*: a host, an alert, a token.
    """

    id: str
    at: datetime
    by: str
    what: str
    registration_id: str | None
    became: str | None
    subject: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class Progress:
    """How far a claim has come: *bytes_downloaded* of *artifact_bytes*, where upstream announced them."""

    registration_id: RegistrationId
    epoch: int
    bytes_downloaded: int
    artifact_bytes: int | None


@dataclass(frozen=True)
class Accepted:
    """A submission that is now, or already was, in flight. *new* tells whether it needs a bell."""

    registration: Registration
    new: bool


@dataclass(frozen=True)
class AlreadyRegistered:
    """A submission identical to a plugin: there is nothing left to verify."""

    plugin: Plugin


@dataclass(frozen=True)
class Taken:
    """A submission whose name and version belong to a plugin that differs, if only by its URL."""

    plugin: Plugin
    by_url_alone: bool = False

    @property
    def conflict(self) -> Conflict:
        """The error that says so."""
        told = Conflict.with_same_content if self.by_url_alone else Conflict.with_plugin
        return told(self.plugin.id, self.plugin.checksum)


def standing_before(submission: Submission, plugin: Plugin) -> AlreadyRegistered | Taken:
    """Return what *plugin*, of the same name and version, is to *submission*.

    A URL that differs in its query alone is the same: it was signed anew.
    """
    declared = (submission.plugin_type, submission.checksum, submission.config_schema, submission.plugin_runtime)
    if declared != (plugin.plugin_type, plugin.checksum, plugin.config_schema, plugin.plugin_runtime):
        return Taken(plugin)
    if _without_query(submission.artifact_url) != _without_query(plugin.artifact_url):
        return Taken(plugin, by_url_alone=True)
    return AlreadyRegistered(plugin)


def _without_query(url: str) -> str:
    return url.partition("?")[0]


@dataclass(frozen=True)
class OverQuota:
    """A submission of somebody who has *limit* others in flight, which is all that one may have."""

    limit: int


Outcome = Accepted | AlreadyRegistered | Taken | OverQuota
