"""Whether a string is a JSON Schema that may be kept, without fetching, compiling or running anything of it."""

import json
import socket
from pathlib import Path

import pytest

from api.http.config_schema import fault_in_schema
from tests.bounded import within_cpu_s
from tests.costly_schemas import COSTLY, DRAFTS


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "true",
        "false",
        ' {"type": "object"}\n',
        '{"type": "object", "properties": {"path": {"type": "string", "pattern": "^/[a-z]{1,255}$"}}}',
        '{"$defs": {"port": {"type": "integer"}}, "properties": {"port": {"$ref": "#/$defs/port"}}}',
        '{"properties": {"children": {"items": {"$ref": "#"}}}}',
        '{"$id": "https://schemas.example/a", "$defs": {"b": {"$id": "b"}}, "$ref": "b"}',
        '{"an unknown keyword": 1}',
        '{"pattern": "^(?!secret).*$"}',
        *(json.dumps({"$schema": draft, "type": "object", "required": ["a"]}) for draft in DRAFTS),
        json.dumps({"$ref": DRAFTS[-1]}),
        '{"$id": "https://schemas.example/x/a", "$defs": {"b": {"$id": "b"}}, "$ref": "https://schemas.example/x/b"}',
        '{"$id": "https://schemas.example/x/a", "$ref": "https://schemas.example/x/a#/$defs/b", "$defs": {"b": {}}}',
        '{"$defs": {"b": {"$anchor": "here"}}, "$ref": "#here"}',
        '{"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"b": {"$id": "#c"}}, "$ref": "#c"}',
        '{"definitions": {"a/b~c d": {}}, "$ref": "#/definitions/a~1b~0c%20d"}',
        '{"allOf": [{}, {"$ref": "#/allOf/0"}]}',
        '{"enum": [{"$ref": "https://schemas.example/a.json"}], "default": {"type": "strnig"}}',
        '{"properties": {"$ref": {"type": "string"}}}',
        '{"enum":' + "[" * 99 + "]" * 99 + "}",
        '{"pattern": "("}',
    ],
)
def test_a_schema_of_any_draft_is_taken(text: str) -> None:
    assert fault_in_schema(text) is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("{'type': 'object'}", "is not valid JSON"),
        ('{"a": 1, "a": 2}', "'a' occurs twice"),
        ('{"minimum": NaN}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"enum":' + "[" * 100 + "]" * 100 + "}", "nested too deeply"),
        ('{"not":' * 20_000 + "{}" + "}" * 20_000, "nested too deeply"),
        ('{"not":' * 500 + "{}" + "}" * 500, "nested too deeply"),
        ("[]", "an object, true or false"),
        ("null", "an object, true or false"),
        ("1", "an object, true or false"),
        ('"{}"', "an object, true or false"),
        ('{"type": "strnig"}', "is not a JSON Schema"),
        ('{"minimum": "1"}', "is not a JSON Schema"),
        (json.dumps({"minimum": "1" * 1000}), "is not a JSON Schema"),
        (json.dumps({"$ref": "#/a\nb"}), "refers to what is not in it: #/a b"),
        ('{"required": "a"}', "is not a JSON Schema"),
        ('{"properties": []}', "is not a JSON Schema"),
        ('{"$ref": "#/nowhere"}', "refers to what is not in it: #/nowhere"),
        ('{"$ref": "#nowhere"}', "refers to what is not in it"),
        ('{"$defs": {"a": {}}, "$ref": "#/$defs/b"}', "refers to what is not in it"),
        ('{"allOf": [{}], "$ref": "#/allOf/1"}', "refers to what is not in it"),
        ('{"properties": {"a": {"$dynamicRef": "#b"}}}', "refers to what is not in it"),
        ('{"$schema": 7}', "is not a JSON Schema"),
        ('{"$schema": "https://schemas.example/own"}', "is not a JSON Schema"),
        ('{"pattern": 1}', "is not a JSON Schema"),
        ('{"properties": {"a": {"items": {"type": "strnig"}}}}', '"strnig" is not'),
        ('{"a": "' + "b" * 300_000 + '"}', "characters"),
        ('{"title": "\\ud800"}', "a lone surrogate"),
        ('{"enum": [{"a": ["\\udfff"]}]}', "a lone surrogate"),
    ],
    ids=lambda text: text[:40],
)
def test_what_is_no_schema_is_refused_and_told_why(text: str, told: str) -> None:
    fault = fault_in_schema(text)
    assert fault is not None
    assert told in fault
    assert "\n" not in fault
    assert len(fault) < 250


@pytest.mark.parametrize("draft", [None, *DRAFTS])
@pytest.mark.parametrize(
    "reference",
    [
        "https://schemas.example/a.json",
        "http://127.0.0.1/a",
        "file:///etc/hostname",
        "other.json",
        "//host.example/a",
        "urn:a:b",
    ],
)
def test_a_reference_to_another_document_is_refused(reference: str, draft: str | None) -> None:
    schema = {"properties": {"a": {"$ref": reference}}, **({"$schema": draft} if draft else {})}
    assert fault_in_schema(json.dumps(schema)) == (
        "refers to another document: a $ref must stay within the schema, nothing is fetched"
    )


@pytest.mark.parametrize("keyword", ["$ref", "$schema", "$dynamicRef"])
def test_no_document_is_ever_fetched(keyword: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        host, port = server.getsockname()
        assert fault_in_schema(json.dumps({keyword: f"http://{host}:{port}/schema.json"})) is not None
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_file_is_ever_read(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text("{}")
    for keyword in ("$ref", "$schema"):
        assert fault_in_schema(json.dumps({keyword: (tmp_path / "schema.json").as_uri()})) is not None


@pytest.mark.parametrize("key", ["pattern", "patternProperties"])
@pytest.mark.parametrize(
    "pattern",
    ["(((((a{50}){50}){50}){50}){50}){50}", "(?=a)((a{1000}){1000}){1000}", "(" * 5000 + ")" * 5000, "^(a+)+$", "("],
    ids=lambda pattern: pattern[:40],
)
def test_a_pattern_costs_nothing_because_it_is_neither_compiled_nor_run(key: str, pattern: str) -> None:
    schema = {key: pattern if key == "pattern" else {pattern: {}}, "default": "a" * 100 + "b"}
    assert within_cpu_s(1, fault_in_schema, json.dumps(schema)) is None


@pytest.mark.parametrize("schema", COSTLY.values(), ids=COSTLY)
def test_no_schema_costs_more_than_a_moment(schema: object) -> None:
    within_cpu_s(1, fault_in_schema, json.dumps(schema))
