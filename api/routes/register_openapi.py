"""What the OpenAPI document says of RegisterPlugin, which FastAPI does not parse (decision 0012)."""

from typing import Any

from api.http.prefer import PREFER
from api.http.problems import documented
from api.routes.registrations import RegistrationView
from shared.registration import Plugin, Submission

DRY_RUN: dict[str, Any] = {
    "name": "dryRun",
    "in": "query",
    "required": False,
    "schema": {
        "type": "boolean",
        "title": "Dryrun",
        "default": False,
        "description": "Check token, fields, egress and conflict; change nothing",
    },
    "description": "Check token, fields, egress and conflict; change nothing",
}

REGISTER_PLUGIN: dict[str, Any] = {
    "response_model": Plugin,
    "response_description": "Downloaded, matched and committed: the plugin",
    "responses": {
        200: {"headers": {"Location": {"schema": {"type": "string"}, "description": "The plugin"}}},
        202: {
            "model": RegistrationView,
            "description": "Accepted and committed; the outcome is still to come",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "The registration"},
                "Retry-After": {
                    "schema": {"type": "integer"},
                    "description": "Seconds to wait before asking",
                },
            },
        },
        204: {"description": "Dry run: nothing stands in the way"},
        **documented(
            "malformed-json",
            "malformed-request",
            "unauthorized",
            "forbidden",
            "too-many-requests",
            "quota-used-up",
            "conflict",
            "canceled",
            "body-too-large",
            "unsupported-media-type",
            "invalid-fields",
            "digest-mismatch",
            "artifact-missing",
            "artifact-too-large",
            "host-not-found",
            "forbidden-url",
            "forbidden-address",
            "bad-response",
            "bad-redirect",
            "bad-certificate",
            "upstream-busy",
            "connect-failed",
            "truncated",
            "read-timeout",
            "deadline-passed",
            "attempts-used-up",
            "store-unavailable",
            "internal-error",
        ),
    },
    "openapi_extra": {
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": Submission.model_json_schema(by_alias=True)}},
        },
        "parameters": [DRY_RUN, PREFER],
        "security": [{"HTTPBearer": []}],
    },
}
