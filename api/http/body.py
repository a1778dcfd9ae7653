"""The body of a request, above all of a submission: read under a limit, as strict JSON, parsed once."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect

from api.http.auth import require_name
from api.http.config_schema import fault_in_schema
from api.http.problems import Problem, problem_of
from api.http.strict_json import loads_strictly
from api.services import Services
from shared.egress import Egress
from shared.errors import Rejected
from shared.fields import MAX_NAME_CHARACTERS
from shared.registration import Submission
from shared.store.tokens import Token

PARSED_AT_ONCE_BYTES = 4096
"""Bodies of up to so many bytes, as nearly all are, cost less than to hand them to a thread."""
Fields = TypeVar("Fields", bound=BaseModel)
MAX_ERRORS = 50
"""More bad fields than these are counted, and not named."""
_NO_OBJECT = [{"pointer": "#", "detail": "must be a JSON object"}]


async def submission(request: Request, services: Services, token: Token) -> Submission:
    """Return the submission in *request*, which *token* may make.

    What is looked at first is what costs least: its size, its kind, its name, then all else. A large one is parsed in
    a thread, one at a time, for that may take longer than others who share the loop should wait (invariant 14).

    Raises:
        Problem: 400, 403, 413, 415 or 422; the last lists every bad field.
    """
    body = await read_body(request, max_bytes=services.settings.max_body_bytes)
    _require_json(request)
    if len(body) <= PARSED_AT_ONCE_BYTES:
        return _parsed(body, token, services.settings.egress)
    return await services.parse(_parsed, body, token, services.settings.egress)


async def fields(request: Request, services: Services, model: type[Fields], called: str) -> Fields:
    """Return the *model* that the body of *request* spells; *called*, with its article, is what an error says it is.

    Raises:
        Problem: 400, 413, 415 or 422; the last lists every bad field.
    """
    body = await read_body(request, max_bytes=services.settings.max_body_bytes)
    _require_json(request)
    if len(body) <= PARSED_AT_ONCE_BYTES:
        return _parsed_as(model, body, called)
    return await services.parse(_parsed_as, model, body, called)


def _parsed_as(model: type[Fields], body: bytes, called: str) -> Fields:
    document = _strict_json(body)
    if not isinstance(document, dict):
        raise invalid_fields(_NO_OBJECT)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise invalid_fields(_bad_fields(error, called)) from error


def _parsed(body: bytes, token: Token, egress: Egress) -> Submission:
    document = _strict_json(body)
    name = document.get("name") if isinstance(document, dict) else None
    # To a token that is limited to names, what has none of them is nothing to look at any further.
    require_name(token, name if isinstance(name, str) and len(name) <= MAX_NAME_CHARACTERS else "")
    return parse_submission(document, egress)


def parse_submission(document: object, egress: Egress) -> Submission:
    """Return the submission that *document*, decoded JSON, spells.

    Raises:
        Problem: 422, with a pointer for every bad field at once. A URL that egress forbids, and
            nothing else wrong, is told under its own code.
    """
    if not isinstance(document, dict):
        raise invalid_fields(_NO_OBJECT)
    bad: list[dict[str, str]] = []
    parsed: Submission | None = None
    try:
        parsed = Submission.model_validate(document)
    except ValidationError as error:
        bad += _bad_fields(error, "a submission")
    schema = document.get("configSchema", "{}")
    fault = fault_in_schema(schema) if isinstance(schema, str) else None
    if fault is not None and not any(each["pointer"] == "#/configSchema" for each in bad):
        bad.append({"pointer": "#/configSchema", "detail": fault})
    forbidden = _forbidden(document.get("artifactUrl"), egress)
    if forbidden is not None and not any(each["pointer"] == "#/artifactUrl" for each in bad):
        bad.append({"pointer": "#/artifactUrl", "detail": forbidden.detail})
        if len(bad) == 1:
            raise problem_of(forbidden.failure(), errors=bad)
    if parsed is None or bad:
        raise invalid_fields(bad)
    return parsed


def invalid_fields(errors: list[dict[str, str]]) -> Problem:
    """Return the problem that lists all of *errors*."""
    shown = errors[:MAX_ERRORS]
    named = ", ".join(each.get("pointer", each.get("parameter", "")).removeprefix("#/")[:100] for each in shown)
    more = f", and {len(errors) - MAX_ERRORS} more" if len(errors) > MAX_ERRORS else ""
    return Problem(
        "invalid-fields", f"Correct these and send the request again: {named}{more}.", members={"errors": shown}
    )


def invalid_query(errors: Iterable[Mapping[str, Any]]) -> Problem:
    """Return the problem that lists all of pydantic's *errors* about query parameters."""
    return invalid_fields(
        [
            {"parameter": str(each["loc"][-1]), "detail": str(each["msg"]).removeprefix("Value error, ")}
            for each in errors
        ]
    )


def _forbidden(url: object, egress: Egress) -> Rejected | None:
    """Return why *url* may not be fetched, as far as the URL alone shows it."""
    try:
        if isinstance(url, str):
            egress.check_url(url)
    except Rejected as error:
        return error
    return None


def _require_json(request: Request) -> None:
    media_type, *parameters = request.headers.get("Content-Type", "").lower().split(";")
    named = (parameter.partition("=") for parameter in parameters)
    charsets = {value.strip().strip('"') for name, _, value in named if name.strip().startswith("charset")}
    if media_type.strip() != "application/json" or charsets - {"utf-8", "utf8"}:
        raise Problem("unsupported-media-type", "Send the body as Content-Type: application/json.")


async def read_body(request: Request, *, max_bytes: int) -> bytes:
    """Return the body of *request*.

    Raises:
        Problem: 413, it is larger than *max_bytes*; 400, it broke off.
    """
    too_large = Problem("body-too-large", f"The body may have {max_bytes} bytes at most.")
    announced = request.headers.get("Content-Length", "0")
    if announced.isascii() and announced.isdigit() and int(announced[:19]) > max_bytes:
        raise too_large
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise too_large
    except ClientDisconnect:
        raise Problem("malformed-request", "The body broke off.") from None
    return bytes(body)


def _strict_json(body: bytes) -> object:
    try:
        return loads_strictly(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Problem("malformed-json", "The body is not UTF-8.") from None
    except ValueError as error:
        raise Problem("malformed-json", f"The body is not valid JSON: {error}.") from error


def _pointer(location: Iterable[str | int]) -> str:
    return "#/" + "/".join(str(part).replace("~", "~0").replace("/", "~1") for part in location)


def _bad_fields(error: ValidationError, called: str) -> list[dict[str, str]]:
    """Return a pointer, and what is wrong there, for each fault in what is *called* so."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return [{"pointer": _pointer(each["loc"]), "detail": _detail(each, called)} for each in faults]


def _detail(error: ErrorDetails, called: str) -> str:
    if error["type"] == "missing":
        return "is required"
    if error["type"] == "extra_forbidden":
        return f"is not a field of {called}"
    return error["msg"].removeprefix("Value error, ")
