"""What a valid submission is, and what a plugin looks like on the wire."""

import hashlib
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from shared.fields import normalised
from shared.registration import Digest, Plugin, PluginId, Status, Submission, rfc3339

DECLARED = {
    "name": "nginx-log-collector",
    "version": "2.1.0",
    "pluginType": "log",
    "artifactUrl": "https://artifacts.example.com/nginx-log-collector-2.1.0.tar.gz",
    "checksum": "sha256:" + "0a" * 32,
    "configSchema": '{"type": "object"}',
    "pluginRuntime": "go",
}

# The two lists that semver.org tests its pattern with.
VALID_VERSIONS = """
    0.0.4 1.2.3 10.20.30 1.1.2-prerelease+meta 1.1.2+meta 1.1.2+meta-valid 1.0.0-alpha 1.0.0-beta
    1.0.0-alpha.beta 1.0.0-alpha.beta.1 1.0.0-alpha.1 1.0.0-alpha0.valid 1.0.0-alpha.0valid
    1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay 1.0.0-rc.1+build.1 2.0.0-rc.1+build.123 1.2.3-beta
    10.2.3-DEV-SNAPSHOT 1.2.3-SNAPSHOT-123 1.0.0 2.0.0 1.1.7 2.0.0+build.1848 2.0.1-alpha.1227 1.0.0-alpha+beta
    1.2.3----RC-SNAPSHOT.12.9.1--.12+788 1.2.3----R-S.12.9.1--.12+meta 1.2.3----RC-SNAPSHOT.12.9.1--.12
    1.0.0+0.build.1-rc.10000aaa-kk-0.1 99999999999999999999999.999999999999999999.99999999999999999
    1.0.0-0A.is.legal
"""
INVALID_VERSIONS = """
    1 1.2 1.2.3-0123 1.2.3-0123.0123 1.1.2+.123 +invalid -invalid -invalid+invalid -invalid.01 alpha alpha.beta
    alpha.beta.1 alpha.1 alpha+beta alpha_beta alpha. alpha.. beta 1.0.0-alpha_beta -alpha. 1.0.0-alpha..
    1.0.0-alpha..1 1.0.0-alpha...1 1.0.0-alpha....1 1.0.0-alpha.....1 01.1.1 1.01.1 1.1.01 1.2.3.DEV
    1.2-SNAPSHOT 1.2.31.2.3----RC-SNAPSHOT.12.09.1--..12+788 1.2-RC-SNAPSHOT -1.0.3-gamma+b7718 +justmeta
    9.8.7+meta+meta 9.8.7-whatever+meta+meta
    99999999999999999999999.999999999999999999.99999999999999999----RC-SNAPSHOT.12.09.1--------------------------------..12
"""


def _parse(**changes: object) -> Submission:
    return Submission.model_validate({**DECLARED, **changes})


def _fault(**changes: object) -> str:
    """Return what the one bad field among *changes* is told, after making sure that it is that field."""
    with pytest.raises(ValidationError) as refused:
        _parse(**changes)
    (problem,) = refused.value.errors()
    assert problem["loc"] == tuple(changes)
    return problem["msg"]


def test_a_submission_travels_to_json_and_back_unchanged() -> None:
    submission = _parse()
    assert submission.model_dump(mode="json") == DECLARED
    assert Submission.model_validate_json(submission.model_dump_json()) == submission


def test_only_the_schema_and_the_runtime_may_be_left_out() -> None:
    required = {name: value for name, value in DECLARED.items() if not name.startswith(("config", "pluginR"))}
    submission = Submission.model_validate(required)
    assert (submission.config_schema, submission.plugin_runtime) == ("{}", "")
    with pytest.raises(ValidationError) as refused:
        Submission.model_validate({})
    assert {(problem["type"], *problem["loc"]) for problem in refused.value.errors()} == {
        ("missing", name) for name in required
    }


@pytest.mark.parametrize("name", ["id", "registeredAt", "plugin-type", "Name", "x"])
def test_a_field_that_a_submission_does_not_have_is_refused(name: str) -> None:
    assert "not permitted" in _fault(**{name: "x"})


@pytest.mark.parametrize("field", DECLARED)
@pytest.mark.parametrize("value", [None, 1, True, ["log"], {}, b"log"], ids=repr)
def test_no_field_is_coerced_from_another_type(field: str, value: object) -> None:
    _fault(**{field: value})


def test_a_submission_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        _parse().version = "3.0.0"  # type: ignore[misc]


# name


@pytest.mark.parametrize("name", ["a", "7", "nginx-log-collector", "My Plugin v2.0_beta", "a--__..  b", "A" * 100])
def test_a_name_is_shown_as_given(name: str) -> None:
    assert _parse(name=name).name == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "-",
        " a",
        "a ",
        "a\n",
        "a\tb",
        ".a",
        "a_",
        "-a",
        "a-",
        "é",
        "\uff41",
        "a/b",
        "a\x00b",
        "a\u00a0b",
        "\u0661",
    ],
)
def test_a_name_of_other_characters_or_with_bare_ends_is_refused(name: str) -> None:
    assert "use ASCII letters" in _fault(name=name)


def test_a_name_of_more_than_a_hundred_characters_is_refused() -> None:
    assert "100 characters" in _fault(name="a" * 101)


@pytest.mark.parametrize("name", ["My Plugin", "my-plugin", "MY_PLUGIN", "my.plugin", "my - plugin", "mY._- pLUGIN"])
def test_spellings_of_one_name_are_one_name(name: str) -> None:
    assert _parse(name=name).name_key == normalised(name) == "my-plugin"


@pytest.mark.parametrize("name", ["myplugin", "my-plugin2", "m-y-plugin"])
def test_a_separator_more_or_less_is_another_name(name: str) -> None:
    assert normalised(name) != "my-plugin"


# version


@pytest.mark.parametrize("version", VALID_VERSIONS.split())
def test_what_semver_org_calls_valid_is_a_version(version: str) -> None:
    assert _parse(version=version).version == version


@pytest.mark.parametrize(
    "version", [*INVALID_VERSIONS.split(), "", "v1.2.3", "1.2.3 ", " 1.2.3", "1.2.3\n", "1.2.\u0663"]
)
def test_what_semver_org_calls_invalid_is_no_version(version: str) -> None:
    assert "SemVer 2.0.0" in _fault(version=version)


def test_a_version_of_more_than_255_characters_is_refused() -> None:
    assert _parse(version="1.0.0-" + "a" * 249).version
    assert "255 characters" in _fault(version="1.0.0-" + "a" * 250)


# plugin type, artifact URL, schema, runtime


@pytest.mark.parametrize("plugin_type", ["log", "metric", "trace"])
def test_the_three_plugin_types_are_taken(plugin_type: str) -> None:
    assert _parse(pluginType=plugin_type).plugin_type == plugin_type


@pytest.mark.parametrize("plugin_type", ["", "Log", "logs", "log ", "event"])
def test_another_plugin_type_is_refused_and_told_the_three(plugin_type: str) -> None:
    assert "'log', 'metric' or 'trace'" in _fault(pluginType=plugin_type)


def test_an_artifact_url_has_between_1_and_2048_characters() -> None:
    assert _parse(artifactUrl="u" * 2048).artifact_url == "u" * 2048
    assert "2048 characters" in _fault(artifactUrl="u" * 2049)
    assert "1 character" in _fault(artifactUrl="")


@pytest.mark.parametrize("text", ["", "{}", '{\n\t"a": "é"}', "not even JSON"])
def test_the_schema_is_kept_as_it_was_written(text: str) -> None:
    assert _parse(configSchema=text).config_schema == text


@pytest.mark.parametrize("text", ["\x00", '{"a": "\ud800"}'], ids=ascii)
def test_a_schema_that_no_store_can_hold_is_refused(text: str) -> None:
    assert "must not hold" in _fault(configSchema=text) or "valid string" in _fault(configSchema=text)


def test_a_runtime_is_any_text_of_one_line() -> None:
    assert _parse(pluginRuntime="Python ≥ 3.11").plugin_runtime == "Python ≥ 3.11"
    assert "200 characters" in _fault(pluginRuntime="r" * 201)


@pytest.mark.parametrize(
    "hidden", ["\x00", "\n", "\r", "\x1b", "\x7f", "\x85", "\x9f", "\u200b", "\u202e", "\u2066", "\ufeff"], ids=ascii
)
def test_a_runtime_in_which_something_is_hidden_is_refused_and_told_what(hidden: str) -> None:
    assert f"must not hold U+{ord(hidden):04X}" in _fault(pluginRuntime=f"go{hidden}1.22")


def test_a_schema_may_describe_itself_in_any_language_and_on_several_lines() -> None:
    text = '{\n\t"description": "\u200e\u05e9\u05dc\u05d5\u05dd\u200f, \u0645\u06cc\u200c\u062e\u0648"\n}'
    assert _parse(configSchema=text).config_schema == text


# checksum

HEX = hashlib.sha256(b"artifact").hexdigest()


@pytest.mark.parametrize(
    "checksum", [f"sha256:{HEX}", f"sha256:{HEX.upper()}", f"SHA256:{HEX}", f"Sha256:{HEX.capitalize()}"]
)
def test_a_checksum_of_either_case_is_kept_in_lower_case(checksum: str) -> None:
    assert _parse(checksum=checksum).checksum == f"sha256:{HEX}"


@pytest.mark.parametrize("count", [0, 1, 12, 63, 65, 127, 129])
def test_a_checksum_of_another_length_is_refused_and_told_its_length(count: int) -> None:
    fault = _fault(checksum="sha256:" + "a" * count)
    assert f"has {count} hex digits" in fault
    assert "64" in fault


BASE64 = b64encode(bytes.fromhex(HEX)).decode()


@pytest.mark.parametrize(
    "pasted",
    [
        HEX,
        HEX.upper(),
        f"{HEX}\n",
        f" sha256:{HEX}",
        f"sha256: {HEX}",
        f":{HEX}",
        f"0x{HEX}",
        f"{HEX}  plugin.tar.gz",
        f"{HEX} *plugin.tar.gz\r\n",
        f"sha256:{HEX}  plugin.tar.gz",
        f"\\{HEX}  plu\\ngin",
        f"SHA256 (plugin.tar.gz) = {HEX}",
        f"SHA2-256(plugin.tar.gz)= {HEX}",
        f"sha256={HEX}",
        f"sha256-{BASE64}",
        f"sha256:{BASE64}",
        f"SHA256={BASE64}",
        BASE64,
        BASE64.rstrip("="),
        f"sha-256={BASE64}",
        f"sha-256=:{BASE64}:",
        f'"sha256-{BASE64}"',
        f"sha256-{BASE64}?opt",
        f"sha256:{BASE64}  plugin.tar.gz",
        BASE64.replace("+", "-").replace("/", "_"),
        ":".join(HEX[n : n + 2].upper() for n in range(0, 64, 2)),
        " ".join(HEX[n : n + 2] for n in range(0, 64, 2)),
        f"{HEX}  a\n{HEX}  b",
    ],
)
def test_a_pasted_checksum_is_met_with_the_text_to_send(pasted: str) -> None:
    told = f"sha256:{HEX}"
    assert f"write '{told}'" in _fault(checksum=pasted)
    assert _parse(checksum=told).checksum == told


@pytest.mark.parametrize(
    ("checksum", "told"),
    [
        ("sha256:" + "g" * 64, "hex digits only"),
        ("sha256:" + "\u0661" * 64, "hex digits only"),
        ("", "must begin with 'sha256:'"),
        ("abc", "must begin with 'sha256:'"),
        ("a-file-name-that-has-just-forty-four-letters", "must begin with 'sha256:'"),
        (f"sha512:{HEX * 2}", "a SHA-512"),
        (f"sha512:{HEX}", "a SHA-512"),
        (HEX * 2, "a SHA-512"),
        (f"{HEX * 2}  plugin.tar.gz", "a SHA-512"),
        ("sha512-" + "A" * 86 + "==", "a SHA-512"),
        ("a" * 96, "a SHA-384"),
        ("a" * 40, "a SHA-1"),
        (f"md5:{HEX[:32]}", "an MD5"),
        (HEX[:32], "an MD5"),
        (f"sha3-256:{HEX}", "a SHA3-256"),
        (f"BLAKE2s (plugin) = {HEX}", "a BLAKE2S"),
        (f"sm3:{HEX}", "a SM3"),
        (f"crc32:{HEX[:8]}", "only sha256 is supported"),
        (f"{HEX}  a\n{HEX[::-1]}  b", "several SHA-256"),
        ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "of nothing"),
        ("SHA256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855", "of nothing"),
        ("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  -", "of nothing"),
    ],
)
def test_a_checksum_of_another_form_is_refused_in_its_writers_words(checksum: str, told: str) -> None:
    assert told in _fault(checksum=checksum)


# fingerprint

ANOTHER = {
    "name": ["NGINX log.collector", "nginx-log-collectors"],
    "version": ["2.1.1"],
    "pluginType": ["trace"],
    "artifactUrl": ["https://artifacts.example.com/NGINX-log-collector-2.1.0.tar.gz"],
    "checksum": ["sha256:" + "0A" * 32, "sha256:" + "0b" * 32],
    "configSchema": ['{"type":  "object"}', ""],
    "pluginRuntime": ["Go", "", "go "],
}


@pytest.mark.parametrize("field", DECLARED)
def test_a_change_of_any_field_changes_the_fingerprint(field: str) -> None:
    assert _parse(**{field: ANOTHER[field][-1]}).fingerprint != _parse().fingerprint


@pytest.mark.parametrize("field", ["name", "checksum"])
def test_another_spelling_of_the_same_keeps_the_fingerprint(field: str) -> None:
    assert _parse(**{field: ANOTHER[field][0]}).fingerprint == _parse().fingerprint


def test_text_that_moves_from_one_field_to_the_next_changes_the_fingerprint() -> None:
    assert (
        _parse(configSchema="a", pluginRuntime="b").fingerprint
        != _parse(configSchema="ab", pluginRuntime="").fingerprint
    )
    assert (
        _parse(configSchema='a", "b', pluginRuntime="").fingerprint
        != _parse(configSchema="a", pluginRuntime="b").fingerprint
    )


_documents = st.fixed_dictionaries({field: st.sampled_from([DECLARED[field], *ANOTHER[field]]) for field in DECLARED})


def _identity(submission: Submission) -> dict[str, Any]:
    return {**submission.model_dump(), "name": submission.name_key}


@settings(deadline=None, max_examples=200)
@given(_documents, _documents)
def test_two_submissions_share_a_fingerprint_exactly_if_they_are_identical(
    one: dict[str, object], other: dict[str, object]
) -> None:
    first, second = Submission.model_validate(one), Submission.model_validate(other)
    assert (first.fingerprint == second.fingerprint) == (_identity(first) == _identity(second))


# plugin, digest, status, times

NINE_FIELDS = "id name version pluginType artifactUrl checksum configSchema pluginRuntime registeredAt"
LOCAL = timezone(timedelta(hours=5, minutes=30))


def test_a_plugin_has_exactly_the_nine_documented_fields_and_each_is_a_string() -> None:
    plugin = Plugin.model_validate(
        {**DECLARED, "id": PluginId("plugin-1"), "registeredAt": datetime(2026, 1, 15, 13, 30, tzinfo=LOCAL)}
    )
    wire = plugin.model_dump(mode="json")
    assert list(wire) == NINE_FIELDS.split()
    assert wire == {**DECLARED, "id": "plugin-1", "registeredAt": "2026-01-15T08:00:00.000Z"}
    assert {type(value) for value in wire.values()} == {str}


@settings(deadline=None)
@given(st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2999, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_every_time_is_told_in_utc_with_z_to_the_millisecond(moment: datetime) -> None:
    text = rfc3339(moment)
    assert text.endswith("Z")
    assert len(text) == len("2026-01-15T08:00:00.000Z")
    assert timedelta(0) <= moment - datetime.fromisoformat(text).astimezone(UTC) < timedelta(milliseconds=1)


def test_a_digest_reads_like_a_checksum() -> None:
    assert Digest(HEX, 8).checksum == f"sha256:{HEX}"


def test_the_last_four_states_are_final() -> None:
    assert [status.value for status in Status if status.final] == [
        "registered",
        "rejected",
        "failed",
        "canceled",
    ]
