"""What can go wrong, as classes: the root a failure derives from is its retry policy.

`Rejected` is final and somebody's to mend, `Unavailable` may pass and is tried again,
`Conflict` lost a race for a name, `Canceled` is what an operator wished. Adapters translate foreign
exceptions with ``from``; the core never sees a socket or SQLAlchemy. None of these derives from
`OSError`: what refuses an address must not pass for a connection that failed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self

REGISTERED_MEANWHILE = "registered-meanwhile"
"""The cause of a conflict with the very same plugin, of which whoever waits is told as if it were its own."""

Fault = Literal["submitter", "upstream", "registry"]


@dataclass(frozen=True)
class Failure:
    """A failure as a value: what is stored with a registration and told to a client.

    `code` is stable and decides what follows; `cause` is one stable word for what probably happened, the
    code itself where no more is known; `detail` is a sentence for a person; `facts` are the further
    members of its problem document (``declared``, ``computed``, ``pluginId`` ...).
    """

    code: str
    detail: str
    fault: Fault
    retryable: bool
    facts: Mapping[str, str] = field(default_factory=dict)
    cause: str = ""

    def __post_init__(self) -> None:
        if not self.cause:
            object.__setattr__(self, "cause", self.code)


class RegistryError(Exception):
    """The root of every failure the registry names."""

    code: ClassVar[str] = "registry-error"
    fault: Fault = "registry"
    """Whose it is as a rule; `blamed` says otherwise of one."""
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, cause: str = "", **facts: str) -> None:
        super().__init__(detail)
        self.detail = detail
        self.cause = cause
        self.facts = facts

    def blamed(self, fault: Fault, before: str = "") -> Self:
        """Make this the fault of another, with words *before* its detail that say why; return it."""
        self.fault = fault
        self.detail = before + self.detail
        return self

    def failure(self) -> Failure:
        """Return this error as the value that is stored and shown."""
        return Failure(self.code, self.detail, self.fault, self.retryable, self.facts, self.cause)


class Rejected(RegistryError):
    """Final: the same submission would fail again."""

    fault: Fault = "submitter"


class DigestMismatch(Rejected):
    """The bytes served do not hash to the declared digest."""

    code = "digest-mismatch"


class ArtifactTooLarge(Rejected):
    """More bytes than MAX_ARTIFACT_BYTES arrived or were announced."""

    code = "artifact-too-large"

    @classmethod
    def over(cls, max_bytes: int) -> Self:
        """Return the error that names the limit."""
        return cls(f"The artifact is larger than this registry takes ({max_bytes} bytes).")


class ArtifactMissing(Rejected):
    """Upstream answered 4xx, without a word of later: there is nothing for us to fetch."""

    code = "artifact-missing"


class HostNotFound(Rejected):
    """The name system says for certain that the host has no address."""

    code = "host-not-found"


class ForbiddenUrl(Rejected):
    """The URL itself breaks the egress policy: scheme, port, userinfo, spelling of the host."""

    code = "forbidden-url"


class ForbiddenAddress(Rejected):
    """The host is, or resolves to, an address that must not be reached."""

    code = "forbidden-address"


class BadResponse(Rejected):
    """Upstream broke HTTP in a way that trying again will not mend."""

    code = "bad-response"
    fault = "upstream"


class BadCertificate(Rejected):
    """Upstream's TLS certificate is expired, for another name, or of an issuer we do not trust."""

    code = "bad-certificate"
    fault = "upstream"


class BadRedirect(Rejected):
    """More hops than are followed, a circle, or a redirect that leads nowhere or to where it may not."""

    code = "bad-redirect"
    fault = "upstream"


class Conflict(RegistryError):
    """The name and version belong to another plugin."""

    code = "conflict"
    fault = "submitter"

    @classmethod
    def with_plugin(cls, plugin_id: str, checksum: str) -> Self:
        """Return the error that names the plugin which holds the name and version."""
        return cls(
            "This name and version are registered with other content, or another type, schema or runtime. "
            "Registered plugins never change: submit a new version.",
            pluginId=plugin_id,
            checksum=checksum,
        )

    @classmethod
    def with_same_content(cls, plugin_id: str, checksum: str) -> Self:
        """Return the error that names the plugin which is the same, but for the URL of its artifact."""
        return cls(
            "This name and version are registered with this very content, from another URL. There is nothing to "
            "register: a plugin's URL never changes.",
            cause="same-content",
            pluginId=plugin_id,
            checksum=checksum,
        )

    @classmethod
    def with_itself(cls, plugin_id: str, checksum: str) -> Self:
        """Return the error that names the plugin which the same submission, signed otherwise, became meanwhile."""
        return cls(
            "The same submission, with another query in its URL, was registered while this one was verified: "
            "it is that plugin.",
            cause=REGISTERED_MEANWHILE,
            pluginId=plugin_id,
            checksum=checksum,
        )


class Unavailable(RegistryError):
    """Transient: the attempt failed and another may not."""

    fault: Fault = "upstream"
    retryable = True

    def __init__(self, detail: str, *, cause: str = "", retry_after_s: float | None = None, **facts: str) -> None:
        super().__init__(detail, cause=cause, **facts)
        self.retry_after_s = retry_after_s


class ConnectFailed(Unavailable):
    """No connection: the name did not resolve, nobody answered, or TLS failed."""

    code = "connect-failed"


class UpstreamBusy(Unavailable):
    """Upstream answered 408, 425, 429 or 5xx, or said in another way that it would do so later."""

    code = "upstream-busy"


class Truncated(Unavailable):
    """The connection broke before the announced length arrived."""

    code = "truncated"


class ReadTimeout(Unavailable):
    """Nothing arrived for READ_TIMEOUT_S."""

    code = "read-timeout"


class DeadlinePassed(Unavailable):
    """The attempt was not done after FETCH_DEADLINE_S."""

    code = "deadline-passed"


class Shortage(Unavailable):
    """We have too little of what a download takes, as open files or memory. It costs no attempt (invariant 13)."""

    code = "registry-shortage"
    fault = "registry"


class Surprise(Unavailable):
    """Our own code failed in a way that it does not know."""

    code = "internal-error"
    fault = "registry"


class Canceled(RegistryError):
    """An operator ended the registration before it was final by itself."""

    code = "canceled"
    retryable = True


class AttemptsUsedUp(Unavailable):
    """Workers that claimed this registration never came back to settle it."""

    code = "attempts-used-up"
    fault = "registry"


class StoreUnavailable(Unavailable):
    """The store could not take or give what was asked of it; nothing was changed.

    *reason* is what the database said of it. That names hosts and roles, so it is for those who operate it: as text
    this error holds it, for logs and terminals; `detail`, which is stored and answered, does not.
    """

    code = "store-unavailable"
    fault = "registry"

    def __init__(self, detail: str, *, reason: str = "", **others: Any) -> None:
        super().__init__(detail, **others)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.detail.removesuffix('.')}: {self.reason}." if self.reason else self.detail
