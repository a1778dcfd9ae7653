"""A submission's body: parsed once, and every bad field told at once."""

from typing import Any

import pytest

from api.http.body import parse_submission
from api.http.problems import Problem
from shared.egress import Egress

DECLARED = {
    "name": "nginx-log-collector",
    "version": "2.1.0",
    "pluginType": "log",
    "artifactUrl": "https://artifacts.example.com/nginx-log-collector-2.1.0.tar.gz",
    "checksum": "sha256:" + "0a" * 32,
    "configSchema": '{"type": "object"}',
    "pluginRuntime": "go",
}


def _problem(document: object) -> Problem:
    with pytest.raises(Problem) as refused:
        parse_submission(document, Egress())
    assert refused.value.status == 422
    assert refused.value.document["code"] == "invalid-fields"
    return refused.value


def _errors(document: object) -> dict[str, str]:
    """Return pointer -> detail of every bad field in *document*, none of which may be told twice."""
    errors: list[dict[str, str]] = _problem(document).document["errors"]
    assert len({each["pointer"] for each in errors}) == len(errors)
    return {each["pointer"]: each["detail"] for each in errors}


def test_a_good_document_is_a_submission() -> None:
    assert parse_submission(DECLARED, Egress()).model_dump(mode="json") == DECLARED


def test_the_schema_and_the_runtime_may_be_left_out() -> None:
    required = {name: value for name, value in DECLARED.items() if name not in {"configSchema", "pluginRuntime"}}
    assert parse_submission(required, Egress()).config_schema == "{}"


@pytest.mark.parametrize("document", [None, [], "{}", 1, True, [DECLARED]], ids=repr)
def test_a_document_that_is_no_object_is_told_so(document: object) -> None:
    assert _errors(document) == {"#": "must be a JSON object"}


def test_every_missing_field_is_named() -> None:
    assert _errors({}) == dict.fromkeys(
        ["#/name", "#/version", "#/pluginType", "#/artifactUrl", "#/checksum"], "is required"
    )


def test_every_bad_field_is_told_at_once() -> None:
    errors = _errors(
        {
            "name": "-",
            "version": "v1",
            "pluginType": "logs",
            "artifactUrl": "",
            "checksum": "sha256:9f86d081884c",
            "configSchema": "{",
            "pluginRuntime": "\n",
            "id": "plugin-1",
        }
    )
    told = {
        "#/name": "use ASCII letters",
        "#/version": "SemVer 2.0.0",
        "#/pluginType": "'log', 'metric' or 'trace'",
        "#/artifactUrl": "at least 1 character",
        "#/checksum": "has 12 hex digits and a SHA-256 has 64",
        "#/configSchema": "is not valid JSON",
        "#/pluginRuntime": "must not hold U+000A",
        "#/id": "is not a field of a submission",
    }
    assert errors.keys() == told.keys()
    for pointer, words in told.items():
        assert words in errors[pointer]
        assert not errors[pointer].startswith("Value error")


def test_the_sentence_names_the_bad_fields() -> None:
    problem = _problem({**DECLARED, "version": "1", "configSchema": "{"})
    assert problem.document["detail"] == "Correct these and send the request again: version, configSchema."


@pytest.mark.parametrize("value", [None, 1, [], {"type": "object"}], ids=repr)
@pytest.mark.parametrize("field", DECLARED)
def test_a_field_of_another_type_is_told_once(field: str, value: object) -> None:
    assert _errors({**DECLARED, field: value}).keys() == {f"#/{field}"}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ("", "is not valid JSON"),
        ("[]", "must hold a JSON Schema"),
        ('{"type": "strnig"}', "is not a JSON Schema"),
        ('{"$ref": "https://schemas.example/a"}', "refers to another document"),
        ("\x00", "must not hold NUL"),
    ],
)
def test_a_bad_schema_is_a_bad_field(schema: str, told: str) -> None:
    errors = _errors({**DECLARED, "configSchema": schema})
    assert errors.keys() == {"#/configSchema"}
    assert told in errors["#/configSchema"]


@pytest.mark.parametrize(
    ("name", "pointer"), [("a/b", "#/a~1b"), ("a~b", "#/a~0b"), ("~1", "#/~01"), ("", "#/"), ("é", "#/é")]
)
def test_a_pointer_escapes_what_rfc_6901_asks(name: str, pointer: str) -> None:
    assert _errors({**DECLARED, name: 1}) == {pointer: "is not a field of a submission"}


def test_no_value_of_a_client_is_repeated() -> None:
    document: dict[str, Any] = dict.fromkeys(DECLARED, "hunter2\x00") | {"extra": "hunter2"}
    assert "hunter2" not in str(_problem(document).document)


@pytest.mark.parametrize("name", ["config_schema", "plugin_type", "plugin_runtime", "artifact_url"])
def test_a_field_has_its_documented_name_and_no_other(name: str) -> None:
    with pytest.raises(Problem) as raised:
        parse_submission({"name": "a", "version": "1.0.0", name: "not json"}, Egress())
    assert {"pointer": f"#/{name}", "detail": "is not a field of a submission"} in raised.value.document["errors"]


def test_a_forbidden_url_is_among_the_bad_fields() -> None:
    errors = _errors(DECLARED | {"artifactUrl": "ftp://example.com/a", "version": "x"})
    assert set(errors) == {"#/version", "#/artifactUrl"}


@pytest.mark.parametrize(
    ("url", "code"), [("ftp://example.com/a", "forbidden-url"), ("https://10.0.0.1/a", "forbidden-address")]
)
def test_a_forbidden_url_alone_has_a_code_of_its_own(url: str, code: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_submission(DECLARED | {"artifactUrl": url}, Egress())
    assert refused.value.document["code"] == code
    assert [each["pointer"] for each in refused.value.document["errors"]] == ["#/artifactUrl"]
