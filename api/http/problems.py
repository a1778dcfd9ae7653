"""Errors -> RFC 9457 problem documents; the only place that knows the status codes of failures."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from api.http.prefix import at
from shared.errors import Failure, Fault, RegistryError
from shared.explained import explained
from shared.logs import get_logger
from shared.registration import RegistrationId

MEDIA_TYPE = "application/problem+json"
log = get_logger(__name__)
RETRY_AFTER_S = 2
"""What a client is told to wait before it asks again."""


class Kind(NamedTuple):
    """What holds of every problem of one code: its HTTP status, its title, whose fault it may be."""

    status: int
    title: str
    faults: tuple[Fault, ...]
    retryable: bool = False
    """Whether the same may succeed if it is sent again."""


_SUBMITTER: tuple[Fault, ...] = ("submitter",)
_UPSTREAM: tuple[Fault, ...] = ("upstream",)
_EITHER: tuple[Fault, ...] = ("submitter", "upstream")  # upstream's where a redirect led there
_REGISTRY: tuple[Fault, ...] = ("registry",)

# A code is stable; so is the type, a path of this registry's, that is made of it.
KINDS: dict[str, Kind] = {
    # failures of an artifact, shared/errors.py
    "digest-mismatch": Kind(422, "The artifact does not match its checksum", _SUBMITTER),
    "artifact-too-large": Kind(422, "The artifact is too large", _SUBMITTER),
    "artifact-missing": Kind(422, "The artifact is not there", _SUBMITTER),
    "host-not-found": Kind(422, "There is no such host", _EITHER),
    "forbidden-url": Kind(422, "The URL is not allowed", _SUBMITTER),
    "forbidden-address": Kind(422, "The address is not allowed", _EITHER),
    "bad-response": Kind(422, "The artifact's host sent something unusable", _UPSTREAM),
    "bad-redirect": Kind(422, "The artifact's host redirects too often or nowhere", _UPSTREAM),
    "bad-certificate": Kind(422, "The artifact's host has no valid certificate", _UPSTREAM),
    "conflict": Kind(409, "The name and version are taken", _SUBMITTER),
    "canceled": Kind(409, "An operator canceled it", _REGISTRY, retryable=True),
    "connect-failed": Kind(502, "The artifact's host could not be reached", (*_UPSTREAM, *_REGISTRY), retryable=True),
    "upstream-busy": Kind(502, "The artifact's host kept failing", _UPSTREAM, retryable=True),
    "truncated": Kind(502, "The download kept breaking", _UPSTREAM, retryable=True),
    "read-timeout": Kind(502, "The artifact's host stopped sending", _UPSTREAM, retryable=True),
    "deadline-passed": Kind(502, "The download took too long", _UPSTREAM, retryable=True),
    "attempts-used-up": Kind(502, "Verification never came to an end", _REGISTRY, retryable=True),
    "registry-shortage": Kind(503, "The registry had too little of something", _REGISTRY, retryable=True),
    "store-unavailable": Kind(503, "The registry cannot take this now", _REGISTRY, retryable=True),
    "overloaded": Kind(503, "The registry has no connection left", _REGISTRY, retryable=True),
    # failures of a request
    "malformed-request": Kind(400, "The request is malformed", _SUBMITTER),
    "malformed-json": Kind(400, "The body is not valid JSON", _SUBMITTER),
    "unauthorized": Kind(401, "A valid token is needed", _SUBMITTER),
    "forbidden": Kind(403, "The token does not allow this", _SUBMITTER),
    "wrong-state": Kind(409, "Its state does not allow this", _SUBMITTER),
    "not-found": Kind(404, "There is nothing here", _SUBMITTER),
    "method-not-allowed": Kind(405, "The method is not allowed here", _SUBMITTER),
    "events-gone": Kind(410, "The feed does not go on from there", _SUBMITTER),
    "request-timeout": Kind(408, "The request did not arrive in time", _SUBMITTER, retryable=True),
    "head-too-large": Kind(431, "The head of the request is too large", _SUBMITTER),
    "body-too-large": Kind(413, "The body is too large", _SUBMITTER),
    "unsupported-media-type": Kind(415, "The body must be JSON", _SUBMITTER),
    "too-many-requests": Kind(429, "Too many requests", _SUBMITTER, retryable=True),
    "quota-used-up": Kind(429, "Too many registrations are in flight", _SUBMITTER, retryable=True),
    "invalid-fields": Kind(422, "Some fields are not valid", _SUBMITTER),
    "internal-error": Kind(500, "The registry failed", _REGISTRY, retryable=True),
}


class Problem(Exception):
    """A request that cannot be answered as asked: *code* decides the status, the rest is for the client."""

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        fault: Fault = "submitter",
        retryable: bool = False,
        headers: Mapping[str, str] | None = None,
        members: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        # A failure that a newer version stored may have a code that this one does not know.
        kind = KINDS.get(code, KINDS["internal-error"])
        self.status = kind.status
        self.headers = dict(headers or {})
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        self.document = {
            "type": at(f"/problems/{code}"),
            "title": kind.title,
            "status": self.status,
            "detail": detail,
            "code": code,
            "fault": fault,
            "retryable": retryable,
            **(members or {}),
            **_explained(str((members or {}).get("cause", "")), code),
        }


def _explained(*words: str) -> dict[str, str]:
    """Return what to do about a problem, and the page that says more: its cause's, or its code's."""
    found = next((each for each in map(explained, words) if each and each.code == words[-1]), None)
    return {} if found is None else {"toDo": found.to_do, "help": at(f"/problems/{found.word}")}


def problem_of(
    failure: Failure, registration_id: RegistrationId | None = None, *, errors: list[dict[str, str]] | None = None
) -> Problem:
    """Return the problem that tells a client of *failure*, and of the registration or the fields it befell."""
    where = {"instance": at(f"/api/v1/registrations/{registration_id}")} if registration_id else {}
    return Problem(
        failure.code,
        failure.detail,
        fault=failure.fault,
        retryable=failure.retryable,
        members={"cause": failure.cause, **where, **failure.facts, **({"errors": errors} if errors else {})},
    )


def problem_response(problem: Problem) -> Response:
    """Return the HTTP answer that *problem* is."""
    return Response(json.dumps(problem.document), problem.status, headers=problem.headers, media_type=MEDIA_TYPE)


def answer_to(error: Exception) -> Response:
    """Return the HTTP answer to a request that ended with *error*; a surprise is logged, for nobody foresaw it."""
    if isinstance(error, Problem):
        return problem_response(error)
    if isinstance(error, RegistryError):
        return problem_response(problem_of(error.failure()))
    log.error("a request met what nobody foresaw", exc_info=error)
    return problem_response(
        Problem(
            "internal-error",
            "The registry failed in a way it did not expect; its log says more. Nothing was lost.",
            fault="registry",
            retryable=True,
        )
    )


class BadField(BaseModel):
    """One field, or query parameter, that is not valid."""

    pointer: str | None = Field(None, description="JSON pointer into the body, as a fragment (RFC 6901)")
    parameter: str | None = Field(None, description="Name of the query parameter")
    detail: str


class ProblemDocument(BaseModel):
    """What every failure looks like (RFC 9457)."""

    model_config = ConfigDict(alias_generator=to_camel)

    type: str = Field(description="Where this registry explains this kind of problem, `/problems/` and the code")
    title: str
    status: int
    detail: str = Field(description="What happened, whose fault it is, what to do")
    code: str = Field(description="The last word of `type`")
    cause: str | None = Field(None, description="One stable word for what probably happened to an artifact")
    fault: Fault
    retryable: bool = Field(description="Whether the same submission may succeed later")
    to_do: str | None = Field(None, description="What to do about it, in a sentence")
    help: str | None = Field(None, description="The page of this registry that explains its cause, or its code")
    instance: str | None = Field(None, description="The registration this befell")
    declared: str | None = Field(None, description="The digest the client declared")
    computed: str | None = Field(None, description="The digest of the bytes that were served")
    plugin_id: str | None = Field(None, description="On a conflict, the plugin that holds the name")
    checksum: str | None = Field(None, description="On a conflict, that plugin's checksum")
    errors: list[BadField] | None = Field(None, description="All bad fields at once")


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI responses for problems with these *codes*, one for each status."""
    by_status: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        kind = KINDS[code]
        status, title = kind.status, kind.title
        document = Problem(code, f"{title}.", fault=kind.faults[0], retryable=kind.retryable).document
        entry = by_status.setdefault(
            status,
            {
                "model": ProblemDocument,
                "description": "",
                "headers": _HEADERS_OF.get(status, {}),
                "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}},
            },
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], title]))
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": document}
    return by_status


_SECONDS = {"schema": {"type": "integer"}, "description": "Seconds to wait before the same is sent again"}
_HEADERS_OF: dict[int, dict[str, Any]] = {
    401: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "RFC 6750"}},
    403: {"WWW-Authenticate": {"schema": {"type": "string"}, "description": "Which scope is missing (RFC 6750)"}},
    429: {"Retry-After": _SECONDS},
    503: {"Retry-After": _SECONDS},
}
_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
