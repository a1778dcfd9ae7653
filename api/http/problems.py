"""Errors -> RFC 9457 problem documents; the only place that knows the status codes of failures."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from starlette.responses import Response

from shared.errors import Failure, Fault, RegistryError
from shared.logs import get_logger
from shared.registration import RegistrationId

MEDIA_TYPE = "application/problem+json"
log = get_logger(__name__)
RETRY_AFTER_S = 2
"""What a client is told to wait before it asks again."""

# code -> (status, title). A code is stable; so is the type URI that is made of it.
_KINDS: dict[str, tuple[int, str]] = {
    # failures of an artifact, shared/errors.py
    "digest-mismatch": (422, "The artifact does not match its checksum"),
    "artifact-too-large": (422, "The artifact is too large"),
    "artifact-missing": (422, "The artifact is not there"),
    "host-not-found": (422, "There is no such host"),
    "forbidden-url": (422, "The URL is not allowed"),
    "forbidden-address": (422, "The address is not allowed"),
    "bad-response": (422, "The artifact's host sent something unusable"),
    "bad-redirect": (422, "The artifact's host redirects too often or nowhere"),
    "bad-certificate": (422, "The artifact's host has no valid certificate"),
    "conflict": (409, "The name and version are taken"),
    "canceled": (409, "An operator canceled it"),
    "connect-failed": (502, "The artifact's host could not be reached"),
    "upstream-busy": (502, "The artifact's host kept failing"),
    "truncated": (502, "The download kept breaking"),
    "read-timeout": (502, "The artifact's host stopped sending"),
    "deadline-passed": (502, "The download took too long"),
    "attempts-used-up": (502, "Verification never came to an end"),
    "registry-shortage": (503, "The registry had too little of something"),
    "store-unavailable": (503, "The registry cannot take this now"),
    "overloaded": (503, "The registry has no connection left"),
    # failures of a request
    "malformed-request": (400, "The request is malformed"),
    "malformed-json": (400, "The body is not valid JSON"),
    "unauthorized": (401, "A valid token is needed"),
    "forbidden": (403, "The token does not allow this"),
    "wrong-state": (409, "Its state does not allow this"),
    "not-found": (404, "There is nothing here"),
    "method-not-allowed": (405, "The method is not allowed here"),
    "request-timeout": (408, "The request did not arrive in time"),
    "head-too-large": (431, "The head of the request is too large"),
    "body-too-large": (413, "The body is too large"),
    "unsupported-media-type": (415, "The body must be JSON"),
    "too-many-requests": (429, "Too many requests"),
    "quota-used-up": (429, "Too many registrations are in flight"),
    "invalid-fields": (422, "Some fields are not valid"),
    "internal-error": (500, "The registry failed"),
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
        self.status, self._title = _KINDS.get(code, _KINDS["internal-error"])
        self.headers = dict(headers or {})
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))
        self.document = {
            "type": f"urn:problem-type:plugin-registry:{code}",
            "title": self._title,
            "status": self.status,
            "detail": detail,
            "code": code,
            "fault": fault,
            "retryable": retryable,
            **(members or {}),
        }


def problem_of(
    failure: Failure, registration_id: RegistrationId | None = None, *, errors: list[dict[str, str]] | None = None
) -> Problem:
    """Return the problem that tells a client of *failure*, and of the registration or the fields it befell."""
    where = {"instance": f"/api/v1/registrations/{registration_id}"} if registration_id else {}
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

    type: str = Field(description="Stable URI of this kind of problem")
    title: str
    status: int
    detail: str = Field(description="What happened, whose fault it is, what to do")
    code: str = Field(description="The last word of `type`")
    cause: str | None = Field(None, description="One stable word for what probably happened to an artifact")
    fault: Fault
    retryable: bool = Field(description="Whether the same submission may succeed later")
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
        status, title = _KINDS[code]
        document = Problem(code, f"{title}.").document
        entry = by_status.setdefault(
            status,
            {
                "model": ProblemDocument,
                "description": "",
                "content": {MEDIA_TYPE: {"schema": _SCHEMA, "examples": {}}},
            },
        )
        entry["description"] = "; ".join(filter(None, [entry["description"], title]))
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": document}
    return by_status


_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
