"""What goes wrong between a client and a registry: one class for each thing that a caller would do differently.

`exit_status` is what the command `plugin-registry` ends with, so that a script can tell the same apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urljoin

FAILED = 1
USAGE = 2
REFUSED = 3
NOT_AUTHORISED = 4
STILL_RUNNING = 5
CONFLICT = 6
UNREACHABLE = 7
ALERTS = 8
CANCELED = 9
UPSTREAM_FAILED = 10


class RegistryError(Exception):
    """Anything that this client has to say no with. Its text is a sentence for a person; *details* go on."""

    exit_status = FAILED
    code = "failed"

    def __init__(self, sentence: str, *, details: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.details = tuple(details)

    @property
    def document(self) -> dict[str, Any]:
        """The same as JSON, for a program that reads what the command printed."""
        details = {"details": [*self.details]} if self.details else {}
        return {"code": self.code, "title": str(self), **details, "exitStatus": self.exit_status}


class BadSettings(RegistryError):
    """Which registry is meant, or how it is reached, is not said in a way that can be followed."""

    exit_status = USAGE
    code = "bad-settings"


class NoToken(RegistryError):
    """There is no token to send, or one that no registry ever made."""

    exit_status = NOT_AUTHORISED
    code = "no-token"


class Unreachable(RegistryError):
    """No registry answered; nothing is known of what was asked. To ask again is safe."""

    exit_status = UNREACHABLE
    code = "unreachable"


class NotARegistry(Unreachable):
    """Something answered that is no registry, or one of another version."""

    code = "not-a-registry"


class StillRunning(RegistryError):
    """A registration had not ended when the time to wait for it was over. It goes on."""

    exit_status = STILL_RUNNING
    code = "still-running"

    def __init__(self, registration: Mapping[str, Any], timeout_s: float) -> None:
        super().__init__(
            f"Still {registration['status']} after {timeout_s:g} s: "
            f"`plugin-registry wait {registration['id']}` goes on waiting."
        )
        self.registration = registration

    @property
    def document(self) -> dict[str, Any]:
        """The registration, as it was last seen."""
        return dict(self.registration)


class ProblemAnswered(RegistryError):
    """The registry said no, by a problem document (RFC 9457)."""

    def __init__(self, problem: Mapping[str, Any], url: str = "") -> None:
        super().__init__(
            f"{problem.get('title', 'The registry refused')} ({problem.get('code', problem.get('status'))}).",
            details=_details(problem, url),
        )
        self.problem = problem
        self.code = str(problem.get("code", ""))
        self.cause: str | None = problem.get("cause")
        self.detail = str(problem.get("detail", ""))
        self.fault: str | None = problem.get("fault")
        """Whose it is: `submitter`, `upstream` or `registry`."""
        self.retryable = problem.get("retryable") is True
        """Whether the same submission may succeed later."""
        self.to_do: str | None = problem.get("toDo")
        """What to do about it, in a sentence."""
        self.declared: str | None = problem.get("declared")
        self.computed: str | None = problem.get("computed")
        self.retry_after_s: float | None = None
        """How long the registry wants to be left alone, where it said so."""

    @property
    def document(self) -> dict[str, Any]:
        """The problem, as it was sent."""
        return dict(self.problem)


class BadRequest(ProblemAnswered):
    """What was asked is malformed, or asks for what is not there."""

    exit_status = USAGE


class Refused(ProblemAnswered):
    """The registry looked at the artifact, or at its URL, and will not list it."""

    exit_status = REFUSED


class NotAuthorised(ProblemAnswered):
    """The token is not valid, or does not allow this."""

    exit_status = NOT_AUTHORISED


class Conflict(ProblemAnswered):
    """The name and version are taken, or a state does not allow what was asked."""

    exit_status = CONFLICT


class Canceled(ProblemAnswered):
    """An operator canceled the registration."""

    exit_status = CANCELED


class UpstreamFailed(ProblemAnswered):
    """The artifact's host kept failing until all attempts were used up."""

    exit_status = UPSTREAM_FAILED


class RegistryInTrouble(ProblemAnswered):
    """The registry cannot answer now, or has no place for this token at the moment. Ask again later."""

    exit_status = UNREACHABLE


def error_of(problem: Mapping[str, Any], url: str = "") -> ProblemAnswered:
    """Return the error that *problem* of the registry at *url* is."""
    return _kind_of(problem)(problem, url)


def _kind_of(problem: Mapping[str, Any]) -> type[ProblemAnswered]:  # one for each kind
    status, code = problem.get("status"), problem.get("code")
    if status in {401, 403}:
        return NotAuthorised
    if code == "canceled":
        return Canceled
    if status == 409:
        return Conflict
    if status in {429, 500, 503} or (status == 502 and problem.get("fault") == "registry"):
        return RegistryInTrouble
    if status == 502:
        return UpstreamFailed
    return Refused if status == 422 and code != "invalid-fields" else BadRequest


def _details(problem: Mapping[str, Any], url: str) -> list[str]:
    details = [str(problem["detail"])] if "detail" in problem else []
    details += [
        f"{(each.get('pointer') or each.get('parameter', '')).removeprefix('#/')}: {each['detail']}"
        for each in problem.get("errors") or ()
    ]
    details += [
        f"{label:<9} {problem[key]}"
        for label, key in (
            ("declared", "declared"),
            ("computed", "computed"),
            ("plugin", "pluginId"),
            ("checksum", "checksum"),
            ("fault", "fault"),
        )
        if key in problem
    ]
    if problem.get("toDo"):
        details.append(str(problem["toDo"]))
    if problem.get("help"):
        details.append(f"more: {urljoin(url, str(problem['help']))}")
    return details
