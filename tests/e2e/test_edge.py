"""The edge of the API: what is malformed, hostile or too much is told so, quickly and clearly."""

import json
import socket
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
import requests

from tests.conftest import a_submission
from tests.running import PATIENCE_S, Registry, problem, running_api


def post_raw(registry: Registry, body: bytes) -> requests.Response:
    return registry.request("POST", "/api/v1/plugins", data=body, headers={"Content-Type": "application/json"})


def raw_exchange(registry: Registry, request: bytes) -> bytes:
    """Send bytes as they are, and return the answer."""
    where = urlsplit(registry.address)
    with socket.create_connection((where.hostname, where.port), timeout=PATIENCE_S) as wire:
        wire.sendall(request)
        received = b""
        while chunk := wire.recv(65536):
            received += chunk
        return received


@pytest.mark.parametrize(
    "body",
    [
        b'{"name":"a","name":"b"}',
        b'{"configSchema":{"a":1,"a":2}}',
        b'{"name":NaN}',
        b'{"name":Infinity}',
        b'{"name":1e999}',
        b"[" * 30_000 + b"]" * 30_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"\\ud800":1}',
        b'{"name":"\xff"}',
        b'\xef\xbb\xbf{"name":"a"}',
        b'{"name":"a"} {}',
        b"{'name':1}",
        b"\x00",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_json_that_parsers_read_differently_is_400(registry: Registry, body: bytes) -> None:
    problem(post_raw(registry, body), 400, "malformed-json")


@pytest.mark.parametrize("field", ["name", "pluginRuntime", "configSchema", "artifactUrl"])
def test_lone_surrogates_and_nul_are_422(registry: Registry, field: str) -> None:
    for text in ("\\ud800", "\\u0000"):
        body = json.dumps(a_submission() | {field: "@@"}).replace("@@", text).encode()
        answer = post_raw(registry, body)
        assert answer.status_code == 422, answer.text


@pytest.mark.parametrize(
    "filtered",
    [
        "plugins?name",
        "plugins?version",
        "plugins?checksum",
        "registrations?name",
        "registrations?version",
        "registrations?cause",
        "actions?registration",
    ],
)
def test_a_filter_in_which_something_is_hidden_is_422_and_told_what(registry: Registry, filtered: str) -> None:
    for hidden in ("\u202e", "\u200b", "\x1b", "\x00"):
        found = problem(registry.get(f"/api/v1/{filtered}=a{quote(hidden)}b"), 422, "invalid-fields")
        (error,) = found["errors"]
        assert error["parameter"] == filtered.partition("?")[2]
        assert f"U+{ord(hidden):04X}" in error["detail"]


def test_a_chunked_body_is_cut_off_at_the_limit(registry: Registry) -> None:
    head = (
        f"POST /api/v1/plugins HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {registry.token}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    )
    chunk = b"1000\r\n" + b" " * 4096 + b"\r\n"
    answer = raw_exchange(registry, head.encode() + chunk * 17)  # and never a last one
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"body-too-large" in answer


def test_two_authorization_headers_are_400(registry: Registry) -> None:
    request = (
        "GET /api/v1/plugins HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Authorization: Bearer {registry.token}\r\nAuthorization: Bearer other\r\n\r\n"
    )
    answer = raw_exchange(registry, request.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"malformed-request" in answer


@pytest.mark.parametrize("path", ["/api/v1/plugins", "/api/v1/plugins/plugin-x", "/api/v1/registrations/x"])
@pytest.mark.parametrize("name", ["access_token", "token", "anything"])
def test_a_token_in_the_query_is_400_whatever_else_is_sent(registry: Registry, path: str, name: str) -> None:
    found = problem(registry.get(path, params={name: registry.token}), 400, "malformed-request")
    assert registry.token not in str(found)
    problem(
        requests.get(registry.address + path, params={name: registry.token}, timeout=PATIENCE_S),
        400,
        "malformed-request",
    )


def test_a_query_that_is_longer_than_any_of_ours_is_400_before_anything_reads_it(registry: Registry) -> None:
    longest = {"name": "ü" * 100, "version": "ü" * 255, "cursor": "x"}
    problem(registry.get("/api/v1/plugins", params=longest), 422, "invalid-fields")
    for token in (None, "prg_bad"):
        problem(
            registry.get("/api/v1/plugins?" + "&".join(map(str, range(2000))), token=token), 400, "malformed-request"
        )


REMOTE = [
    '{"$ref": "https://example.com/schema.json"}',
    '{"$ref": "file:///etc/passwd"}',
    '{"properties": {"a": {"$ref": "other.json#/x"}}}',
    '{"$schema": "https://example.com/my-dialect"}',
    '{"$id": "https://example.com/a/", "$ref": "b"}',
]


@pytest.mark.parametrize("schema", ["[]", "1", "{", '{"type": "strange"}', *REMOTE])
def test_what_is_no_json_schema_of_its_own_is_422(registry: Registry, schema: str) -> None:
    found = problem(registry.register(a_submission(configSchema=schema)), 422, "invalid-fields")
    assert [each["pointer"] for each in found["errors"]] == ["#/configSchema"]


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(a+)+$"},
        {"allOf": [{"pattern": f"(a{{1000}}){{1000}}{n}"} for n in range(1200)]},
        {"allOf": [{"pattern": f"(x+x+)+y{n}"} for n in range(1500)]},
        {"$defs": {str(n): {"$ref": f"#/$defs/{n + 1}"} for n in range(1500)} | {"1500": {}}, "$ref": "#/$defs/0"},
        {"patternProperties": {f"(\\w{{500}}){{50}}{n}": {"$ref": "#"} for n in range(1000)}},
    ],
    ids=["catastrophic", "huge-patterns", "many-patterns", "long-chain", "recursive"],
)
def test_a_schema_built_to_run_for_ever_holds_nobody_up(registry: Registry, schema: object) -> None:
    dry = registry.register(a_submission(configSchema=json.dumps(schema)), params={"dryRun": "true"})
    assert dry.status_code in {204, 422}
    assert dry.elapsed.total_seconds() < 30, "the worst of them would take minutes"


def test_bad_tokens_are_limited_by_address_and_good_ones_are_not(tmp_path: Path) -> None:
    env = {"REGISTRY_BAD_TOKENS_A_MINUTE": "5", "REGISTRY_REQUESTS_A_MINUTE": "20"}
    with running_api(tmp_path / "state", env=env) as registry:
        answers = [registry.get("/api/v1/plugins", token="prg_bad") for _ in range(8)]
        assert [each.status_code for each in answers] == [401] * 5 + [429] * 3
        assert int(answers[-1].headers["Retry-After"]) > 0
        problem(answers[-1], 429, "too-many-requests")
        good = [registry.get("/api/v1/plugins").status_code for _ in range(25)]
        assert good == [200] * 20 + [429] * 5


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/plugins?" + "a=&" * 2000,
        "/operations?" + "a=&" * 2000,
        "/healthz?" + "a" * 5000,
        "/api/v1/plugins/" + "a" * 5000,
        "/" + "%41" * 5000,
    ],
    ids=lambda path: path[:24],
)
def test_what_is_longer_than_anything_of_ours_is_refused_before_it_is_read(registry: Registry, path: str) -> None:
    problem(registry.get(path, token="none"), 400, "malformed-request")


def test_long_cookies_and_a_second_host_are_refused(registry: Registry) -> None:
    problem(registry.get("/healthz", headers={"Cookie": "a=1;" * 2000}), 400, "malformed-request")
    asked = b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n"
    assert raw_exchange(registry, asked).startswith(b"HTTP/1.1 400 ")


def test_the_token_is_looked_at_before_the_query(registry: Registry) -> None:
    for path in ("/api/v1/plugins", "/api/v1/registrations", "/api/v1/actions"):
        problem(registry.get(f"{path}?limit=1&limit=2", token="none"), 401, "unauthorized")
        problem(registry.get(f"{path}?limit=1&limit=2"), 422, "invalid-fields")


def test_of_thousands_of_bad_fields_fifty_are_named(registry: Registry) -> None:
    told = problem(registry.register({f"field{n}": 0 for n in range(4000)}), 422, "invalid-fields")
    assert len(told["errors"]) == 50
    assert "more" in told["detail"]


@pytest.mark.parametrize(
    ("content_type", "taken"),
    [
        ("application/json", True),
        ("Application/JSON; charset=UTF-8", True),
        ('application/json;charset="utf-8"', True),
        ("application/json; profile=x", True),
        ("application/json; charset=latin-1", False),
        ("application/json; charset*0*=utf-8''a; charset*1=b", False),
        ("application/json; charset*=;;charset*0*=", False),
        ("text/plain", False),
        ("", False),
        ("application/json" + ";" * 60_000, True),
        ('application/json; charset="' + ';"' * 30_000, False),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_content_type_is_read_at_once_whatever_it_is(registry: Registry, content_type: str, taken: bool) -> None:
    body = json.dumps(a_submission()).encode()
    answer = registry.request(
        "POST", "/api/v1/plugins?dryRun=true", data=body, headers={"Content-Type": content_type}
    )
    assert answer.status_code == (204 if taken else 415), answer.text
