"""Whether a string is a JSON Schema that may be kept, without fetching anything or running a pattern."""

import json
import socket
from pathlib import Path

import pytest

from api.config_schema import fault_in_schema

DRAFTS = [
    "http://json-schema.org/draft-04/schema#",
    "http://json-schema.org/draft-06/schema#",
    "http://json-schema.org/draft-07/schema#",
    "https://json-schema.org/draft/2019-09/schema",
    "https://json-schema.org/draft/2020-12/schema",
]


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
        ('{"not":' * 20_000 + "{}" + "}" * 20_000, "nested too deeply"),
        ('{"not":' * 500 + "{}" + "}" * 500, "Recursion limit"),
        ("[]", "an object, true or false"),
        ("null", "an object, true or false"),
        ("1", "an object, true or false"),
        ('"{}"', "an object, true or false"),
        ('{"type": "strnig"}', "is not a JSON Schema"),
        ('{"minimum": "1"}', "is not a JSON Schema"),
        (json.dumps({"minimum": "1" * 1000}), "is not a JSON Schema"),
        (json.dumps({"$ref": "#/a\nb"}), "is not a JSON Schema"),
        ('{"required": "a"}', "is not a JSON Schema"),
        ('{"properties": []}', "is not a JSON Schema"),
        ('{"$ref": "#/nowhere"}', "'/nowhere' does not exist"),
        ('{"$schema": 7}', "is not a JSON Schema"),
        ('{"$schema": "https://schemas.example/own"}', "is not a JSON Schema"),
        ('{"pattern": "("}', "is not a JSON Schema"),
        ('{"pattern": "*"}', "is not a JSON Schema"),
        ('{"patternProperties": {"[": {}}}', "is not a JSON Schema"),
        ('{"title": "\\ud800"}', "is not a JSON Schema"),
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


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "((a{1000}){1000}){1000}",
        "(((((a{50}){50}){50}){50}){50}){50}",
        "(?=a)((a{1000}){1000}){1000}",
        r"(.{1,200}){50}",
        "(" * 5000 + ")" * 5000,
    ],
    ids=lambda pattern: pattern[:40],
)
@pytest.mark.parametrize("key", ["pattern", "patternProperties"])
@pytest.mark.timeout(10)
def test_a_pattern_built_to_fill_the_memory_is_refused_at_once(key: str, pattern: str) -> None:
    fault = fault_in_schema(json.dumps({key: pattern if key == "pattern" else {pattern: {}}}))
    assert fault is not None
    assert fault.startswith("is not a JSON Schema")


@pytest.mark.timeout(10)
def test_a_pattern_that_would_backtrack_for_ever_costs_nothing_because_it_is_not_run() -> None:
    fault_in_schema(json.dumps({"pattern": "^(a+)+$", "default": "a" * 100 + "b", "examples": ["a" * 100 + "b"]}))


@pytest.mark.parametrize("pattern", ["^.{1,255}$", r"^\S{1,100}$", r"\p{L}{2}", r"^(?=.*\d)[\w]{8,64}$"])
def test_an_ordinary_pattern_is_kept(pattern: str) -> None:
    assert fault_in_schema(json.dumps({"pattern": pattern})) is None


@pytest.mark.timeout(10)  # compiling all of them takes longer
def test_more_patterns_than_are_compiled_in_a_moment_are_refused() -> None:
    many = [f"^.{{1,1000}}{n}" for n in range(2000)]
    for schema in (
        {"allOf": [{"pattern": each} for each in many]},
        {"patternProperties": dict.fromkeys(many, True)},
        {"properties": {each: {"items": {"pattern": each}} for each in many}},
    ):
        assert "patterns" in str(fault_in_schema(json.dumps(schema)))
    assert fault_in_schema(json.dumps({"allOf": [{"pattern": f"a{n}"} for n in range(32)]})) is None
