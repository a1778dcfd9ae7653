"""Methods: HEAD answers wherever GET does, a 405 names every method, and a slash too many is a plain 404."""

import re

import pytest
import requests

from tests.e2e.test_operations import accepted
from tests.running import PATIENCE_S, Registry, problem

NOT_COMPARED = {"date", "content-length", "transfer-encoding"}
"""Of a moment, or of a body (RFC 9112 section 6.1: HEAD may leave it out)."""


def asked_for(registry: Registry, path: str) -> str:
    """Return *path* with ids of what there is in the place of its parameters."""
    found = registry.get("/api/v1/registrations?status=registered").json()["items"][0]
    values = {"registration_id": found["id"], "plugin_id": found["pluginId"], "word": "status-404"}
    return re.sub(r"{(\w+)}", lambda name: str(values.get(name[1], "127.0.0.1")), path)


def test_head_is_answered_as_get_is_but_for_the_body(registry: Registry, artifact: object) -> None:
    submission, _ = artifact()  # type: ignore[operator]  # the fixture
    registry.final(accepted(registry, submission))
    document = registry.get("/openapi.json").json()
    paths = [path for path, operations in document["paths"].items() if "get" in operations]
    for path in [*paths, "/", "/operations", "/docs", "/openapi.json"]:
        place = asked_for(registry, path)
        got = registry.request("GET", place, stream=True)
        head = registry.request("HEAD", place)
        assert head.status_code == got.status_code, place
        assert head.content == b"", place
        kept = [name for name in got.headers if name.lower() not in NOT_COMPARED]
        assert {name: head.headers.get(name) for name in kept} == {name: got.headers[name] for name in kept}, place
        got.close()


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/api/v1/plugins", "GET, HEAD, POST"),
        ("/api/v1/tokens", "GET, HEAD, POST"),
        ("/api/v1/registrations", "GET, HEAD"),
        ("/api/v1/registrations/retry", "GET, HEAD, POST"),
        ("/tokens", "GET, HEAD, POST"),
        ("/healthz", "GET, HEAD"),
        ("/operations/act", "POST"),
    ],
)
def test_a_method_that_is_not_allowed_is_told_all_that_are(registry: Registry, path: str, methods: str) -> None:
    answer = registry.request("PATCH", path)
    problem(answer, 405, "method-not-allowed")
    assert answer.headers["Allow"] == methods


def test_a_stream_that_only_its_head_is_wanted_of_is_over(registry: Registry) -> None:
    with requests.Session() as session:
        session.headers["Accept"] = "text/html"
        sent = {"token": registry.token}
        session.post(f"{registry.address}/operations/sign-in", data=sent, timeout=PATIENCE_S)
        for _ in range(100):  # more than the streams that a token may have at once
            head = session.head(f"{registry.address}/operations/live", timeout=PATIENCE_S)
            assert (head.status_code, head.headers["Content-Type"][:17]) == (200, "text/event-stream")
