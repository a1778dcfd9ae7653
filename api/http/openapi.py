"""The OpenAPI document, with what FastAPI cannot be told put right."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.http.prefix import at

TAGS = {
    "plugins": "Registering plugins, and reading those that are registered.",
    "registrations": "Where a submission stands, how each attempt at it went, and why it ended.",
    "operations": "For whoever operates the registry: what goes on, what is wrong, and what to do about it.",
    "events": "What became of registrations, told once, in one order: by page, or as it happens.",
    "webhooks": "URLs that are told of events, for operators; and the keys that sign what they are sent.",
    "tokens": "Access tokens, for whoever has one of scope `admin`.",
    "health": "For load balancers, and whatever starts processes again.",
    "problems": "What each code and cause means, and what to do.",
}
DESCRIPTION = (
    "A registry of monitoring-agent plugins that lists nothing it has not checked itself: it downloads each artifact "
    "and hashes it as it streams, and lists the plugin if that is what was declared. Failures are problem documents "
    "(RFC 9457): `code` decides what follows, and `type` leads to a page that explains it."
)
_STREAM = {
    "type": "string",
    "description": "Server-sent events, each with an `event` and one line of JSON as its `data`",
}


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of *app*: problems have one media type, which is not the plugin's."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=DESCRIPTION,
            routes=app.routes,
            tags=[{"name": name, "description": said} for name, said in TAGS.items()],
            contact={"name": "Whoever operates this registry"},
            license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )
        for operations in document["paths"].values():
            for operation in operations.values():
                operation.setdefault("security", [])  # what needs no token says so
                for status, response in list(operation["responses"].items()):
                    _put_right(response, problem=status >= "400")
                    if status >= "400" and not response["content"]:  # FastAPI's own 422, of what is always valid
                        del operation["responses"][status]
        for unused in ("HTTPValidationError", "ValidationError"):
            document["components"]["schemas"].pop(unused, None)
        app.openapi_schema = document
    return {**app.openapi_schema, "servers": [{"url": at("") or "/"}]}  # relative: wherever this document was had


def _put_right(response: dict[str, Any], *, problem: bool) -> None:
    content = response.get("content", {})
    for other in ("application/json", "text/event-stream", "text/html") if problem else ():
        content.pop(other, None)
    if "itemSchema" in content.get("text/event-stream", {}):  # of OpenAPI 3.2, in a document of 3.1
        content["text/event-stream"] = {"schema": _STREAM}
