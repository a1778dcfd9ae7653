"""JSON that every parser reads alike."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.http.strict_json import loads_strictly

_documents: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(deadline=None)
@given(_documents)
def test_what_json_can_say_is_read(document: object) -> None:
    assert loads_strictly(json.dumps(document)) == document


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1, "a": 1}', "'a' occurs twice"),
        ('{"a": {"b": 1, "b": 2}}', "'b' occurs twice"),
        ('[{"a": 1, "\\u0061": 2}]', "'a' occurs twice"),
        ('{"": 1, "": 2}', "'' occurs twice"),
        ("NaN", "NaN is not a JSON number"),
        ('{"a": Infinity}', "Infinity is not a JSON number"),
        ("[-Infinity]", "-Infinity is not a JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("{'a': 1}", "Expecting property name"),
        ("[1,]", "Expecting value|trailing comma"),
        ("1 2", "Extra data"),
        ("01", "Extra data"),
        ('"\n"', "Invalid control character"),
        ("9" * 5000, "limit"),
    ],
    ids=lambda text: text[:20],
)
def test_what_two_parsers_may_read_differently_is_refused_and_told_why(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        loads_strictly(text)


def test_one_name_in_two_objects_is_no_duplicate() -> None:
    assert loads_strictly('[{"a": {"a": 1}}, {"a": 2}]') == [{"a": {"a": 1}}, {"a": 2}]


def test_a_long_name_that_occurs_twice_is_not_repeated_whole() -> None:
    name = "n" * 1000
    with pytest.raises(ValueError, match="occurs twice") as refused:
        loads_strictly(json.dumps({name: 1})[:-1] + f', "{name}": 2}}')
    assert len(str(refused.value)) < 100


@pytest.mark.parametrize("text", ['{"\\ud800": 1}', '{"a": 1e999}', "[-1e999]"])
def test_what_no_other_parser_would_read_alike_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"surrogate|too large"):
        loads_strictly(text)
