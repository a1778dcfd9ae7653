"""Whatever the OpenAPI document allows or forbids is answered as it says, with every check of schemathesis on."""

from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
from hypothesis import HealthCheck, Phase, assume, given, settings

from shared.characters import visible
from tests.running import PATIENCE_S, Registry

if TYPE_CHECKING:
    from schemathesis import Case

OPERATIONS = [
    "RegisterPlugin",
    "GetPlugin",
    "ListPlugins",
    "GetRegistration",
    "ListRegistrations",
    "FollowRegistration",
    "RetryRegistration",
    "CancelRegistration",
    "RetryRegistrations",
    "ListActions",
    "GetSnapshot",
    "ListAttempts",
    "GetUpstream",
    "PauseUpstream",
    "ResumeUpstream",
    "AcknowledgeAlert",
    "WithdrawAcknowledgement",
    "CreateToken",
    "ListTokens",
    "GetCurrentToken",
    "RevokeToken",
    "ListEvents",
    "CreateWebhook",
    "ListWebhooks",
    "GetWebhook",
    "RemoveWebhook",
    "EnableWebhook",
    "RotateWebhook",
    "TestWebhook",
    "ListDeliveries",
    "Redeliver",
]


BY_HAND = {"FollowEvents"}
"""There is no end of what comes: `tests/e2e/test_events.py`."""


def test_every_operation_is_tried(registry: Registry) -> None:
    paths = requests.get(f"{registry.address}/openapi.json", timeout=PATIENCE_S).json()["paths"]
    found = {each["operationId"] for path in paths for each in paths[path].values() if path.startswith("/api/")}
    assert found == {*OPERATIONS, *BY_HAND}


@pytest.mark.parametrize("mode", ["positive", "negative"])
@pytest.mark.parametrize("operation_id", OPERATIONS)
def test_the_service_does_what_its_document_says(registry: Registry, operation_id: str, mode: str) -> None:
    import schemathesis  # which takes a second, and is collected in every process

    schema = schemathesis.openapi.from_url(f"{registry.address}/openapi.json")
    operation = schema.find_operation_by_id(operation_id)

    @given(case=operation.as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    @settings(
        max_examples=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def try_each(case: "Case[Any]") -> None:
        headers = {"Authorization": f"Bearer {registry.token}"}
        if case.method == "POST":
            headers["Prefer"] = "respond-async"
        if mode == "positive":
            _fill_in_what_a_schema_cannot_say(case)
        else:
            assume(_arrives_as_it_is(case))
        case.call_and_validate(headers=headers, timeout=PATIENCE_S)

    try_each()


def _arrives_as_it_is(case: "Case[Any]") -> bool:
    """Whether the query reaches the service as it was meant.

    On the wire a list of one is a string, an object is a list of its names, and what is empty is not sent at all.
    """
    if any(
        isinstance(each, dict) or (isinstance(each, list) and len(each) < 2) for each in (case.query or {}).values()
    ):
        return False
    url = requests.Request("GET", "http://localhost", params=case.query or {}).prepare().url
    sent = dict(parse_qsl(urlsplit(str(url)).query, keep_blank_values=True))
    return {str(name) for name in case.query or {}} <= sent.keys()


def _fill_in_what_a_schema_cannot_say(case: "Case[Any]") -> None:
    """Which URLs egress allows, which strings hold a JSON Schema, which cursors and causes there are; what is hidden.

    And that of several parameters one is required.
    """
    for given_fields in (case.body, case.query):
        if isinstance(given_fields, dict):
            assume(all(visible(each) == each for each in given_fields.values() if isinstance(each, str)))
    if isinstance(case.body, dict) and "artifactUrl" in case.body:
        case.body["artifactUrl"] = "https://artifacts.example.com/plugin.tar.gz"
        case.body.pop("configSchema", None)
    if isinstance(case.body, dict) and "url" in case.body:
        case.body["url"] = "https://hooks.example.com/"
    if isinstance(case.query, dict):
        case.query.pop("cursor", None)
    if case.operation.definition.raw["operationId"] == "ListEvents" and isinstance(case.query, dict):
        case.query.pop("after", None)
    if case.operation.definition.raw["operationId"] == "RetryRegistrations":
        case.query = dict(case.query or {}) | {"cause": "status-404"}
