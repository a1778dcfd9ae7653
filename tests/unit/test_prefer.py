"""The Prefer header, by RFC 7240."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.http.prefer import Preference

NONE = Preference()
ASYNC = Preference(respond_async=True)


@pytest.mark.parametrize(
    ("headers", "preference"),
    [
        ([], NONE),
        ([""], NONE),
        ([" , ,, "], NONE),
        (["respond-async"], ASYNC),
        (["Respond-ASYNC"], ASYNC),
        (["respond-async="], ASYNC),
        (['respond-async=""'], ASYNC),
        (["respond-async; a=b"], ASYNC),
        (["wait=10"], Preference(wait=10)),
        (["WAIT=10"], Preference(wait=10)),
        (["wait = 10"], Preference(wait=10)),
        (['wait="10"'], Preference(wait=10)),
        (["wait=0"], Preference(wait=0)),
        (["wait=010"], Preference(wait=10)),
        (["wait=60"], Preference(wait=60)),
        (["wait=61"], Preference(wait=60)),
        (["wait=" + "9" * 5000], Preference(wait=60)),
        (["respond-async, wait=10"], Preference(True, 10)),
        (["wait=10,respond-async"], Preference(True, 10)),
        (["respond-async", "wait=10"], Preference(True, 10)),
        (["wait=10; a=b; c, respond-async"], Preference(True, 10)),
    ],
)
def test_what_is_preferred_is_understood(headers: list[str], preference: Preference) -> None:
    assert Preference.parse(headers) == preference


@pytest.mark.parametrize(
    "header",
    [
        "wait",
        "wait=",
        "wait=abc",
        "wait=-1",
        "wait=+1",
        "wait=1.5",
        "wait=1e1",
        "wait=5x",
        "wait=\u00b2",
        "wait=\u0661",
        "wait=1_0",
    ],
)
def test_a_wait_that_is_no_number_of_seconds_is_ignored(header: str) -> None:
    assert Preference.parse([header]) == NONE
    assert Preference.parse([header, "respond-async"]) == ASYNC


@pytest.mark.parametrize(
    "headers",
    [["wait=5, wait=50"], ["wait=5", "wait=50"], ["wait=5; wait=50"], ["Wait=5, WAIT=50"], ["wait=5, wait=abc"]],
)
def test_the_first_of_a_name_counts(headers: list[str]) -> None:
    assert Preference.parse(headers) == Preference(wait=5)


def test_a_first_wait_that_is_unusable_is_not_mended_by_a_second() -> None:
    assert Preference.parse(["wait=abc, wait=5"]) == NONE


@pytest.mark.parametrize(
    "headers",
    [
        ["return=minimal"],
        ["handling=lenient; respond-async"],
        ["a; wait=5"],
        ["a=b; wait=5; respond-async"],
        ['a="b, wait=5, respond-async"'],
        ['a="b"; c="d, wait=5"'],
        ["xwait=5"],
        ["wait-for=5"],
        ["respond-asynchronously"],
    ],
)
def test_other_preferences_and_what_is_inside_them_are_ignored(headers: list[str]) -> None:
    assert Preference.parse(headers) == NONE
    assert Preference.parse([*headers, "wait=9"]) == Preference(wait=9)


@pytest.mark.parametrize(
    ("preference", "wait_s", "applied"),
    [
        (NONE, 30, {}),
        (ASYNC, 0, {"Preference-Applied": "respond-async"}),
        (Preference(wait=5), 5, {"Preference-Applied": "wait=5"}),
        (Preference(wait=0), 0, {"Preference-Applied": "wait=0"}),
        (Preference(wait=60), 60, {"Preference-Applied": "wait=60"}),
        (Preference(True, 5), 5, {"Preference-Applied": "respond-async, wait=5"}),
    ],
)
def test_the_answer_waits_as_asked_and_says_so(
    preference: Preference, wait_s: float, applied: dict[str, str]
) -> None:
    assert preference.wait_s(30) == wait_s
    assert preference.applied == applied


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text('wait=5,;" respond-async\\') | st.text()))
def test_no_header_breaks_the_reading_or_waits_longer_than_a_minute(headers: list[str]) -> None:
    assert 0 <= Preference.parse(headers).wait_s(30) <= 60


@pytest.mark.parametrize("header", ['"', 'wait="5', 'a="b, wait=5', 'a="b\\", wait=5', '"\\', 'wait="5\\'])
def test_a_string_without_an_end_reaches_to_the_end_and_says_nothing(header: str) -> None:
    assert Preference.parse([header]) == NONE
    assert Preference.parse(["respond-async", header]) == ASYNC


@pytest.mark.timeout(60)  # a pattern that looks back takes minutes for these
def test_a_header_full_of_nothing_is_read_at_once() -> None:
    for header in (" " * 60_000, "," + " " * 60_000, '"' * 60_000, '\\"' * 30_000, ";" * 60_000, "a=" * 30_000):
        Preference.parse([header])


def test_a_comma_in_a_quoted_string_separates_nothing() -> None:
    assert Preference.parse([r'foo="a\", wait=1"']) == Preference()
    assert Preference.parse(['foo="a, wait=1", wait=2']) == Preference(wait=2)
    assert Preference.parse(["wait=00000000010"]) == Preference(wait=10)
    assert Preference.parse(["wait=5 6"]) == Preference()
