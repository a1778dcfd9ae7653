"""The OpenAPI document and its page: complete, working, and nobody else's host."""

import re
from typing import Any

import requests

from tests.running import PATIENCE_S, Registry


def document(registry: Registry) -> dict[str, Any]:
    found: dict[str, Any] = requests.get(f"{registry.address}/openapi.json", timeout=PATIENCE_S).json()
    return found


def test_the_operation_has_its_documented_name_and_statuses(registry: Registry) -> None:
    operation = document(registry)["paths"]["/api/v1/plugins"]["post"]
    assert operation["operationId"] == "RegisterPlugin"
    statuses = {"200", "202", "204", "400", "401", "403", "409", "413", "415", "422", "429", "500", "502", "503"}
    assert set(operation["responses"]) == statuses
    assert operation["security"] == [{"HTTPBearer": []}]


def test_every_problem_is_documented_as_a_problem(registry: Registry) -> None:
    for path, operations in document(registry)["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert set(response["content"]) == {"application/problem+json"}, (path, method, status)


def test_the_example_submission_is_taken(registry: Registry) -> None:
    operation = document(registry)["paths"]["/api/v1/plugins"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    example = {name: field["examples"][0] for name, field in schema["properties"].items()}
    assert set(schema["required"]) == {"name", "version", "pluginType", "artifactUrl", "checksum"}
    example["name"] += " of the documentation"  # the tests of the contract register the example's own
    assert registry.register(example, params={"dryRun": "true"}).status_code == 204


def test_the_page_loads_from_this_host_alone(registry: Registry) -> None:
    page = requests.get(f"{registry.address}/docs", timeout=PATIENCE_S).text
    assert "SwaggerUIBundle" in page
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", page) + re.findall(r"url: '([^']+)", page)
    assert loaded
    for each in loaded:
        assert each.startswith("/"), each
        assert requests.get(registry.address + each, timeout=PATIENCE_S).status_code == 200
