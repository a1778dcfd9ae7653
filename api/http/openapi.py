"""The OpenAPI document, with what FastAPI cannot be told put right."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """Return the document of *app*: problems have one media type, which is not the plugin's."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            servers=app.servers or None,
        )
        for operations in document["paths"].values():
            for operation in operations.values():
                for status, response in list(operation["responses"].items()):
                    if status >= "400":
                        for other in ("application/json", "text/event-stream", "text/html"):
                            response["content"].pop(other, None)
                        if not response["content"]:  # FastAPI's own 422, of a path that is always valid
                            del operation["responses"][status]
        app.openapi_schema = document
    return app.openapi_schema
