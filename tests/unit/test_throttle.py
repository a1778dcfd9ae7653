"""Limits on how often: counted by whom, told with how long to wait."""

import pytest

from api.http.limits import Throttle
from api.http.problems import Problem


def refused(throttle: Throttle, *, address: str = "", token: str = "") -> bool:
    try:
        if address:
            throttle.bad_token_from(address)
        if token:
            throttle.request_with(token)
    except Problem as problem:
        return problem.status == 429
    return False


def test_a_refusal_says_how_long_to_wait() -> None:
    throttle = Throttle(bad_tokens_a_minute=1, requests_a_minute=0)
    throttle.bad_token_from("192.0.2.1")
    with pytest.raises(Problem) as raised:
        throttle.bad_token_from("192.0.2.1")
    assert raised.value.document["retryable"]
    assert 1 <= int(raised.value.headers["Retry-After"]) <= 60


def test_bad_tokens_are_counted_by_address() -> None:
    throttle = Throttle(bad_tokens_a_minute=3, requests_a_minute=0)
    assert [refused(throttle, address="192.0.2.1") for _ in range(5)] == [False, False, False, True, True]
    assert not refused(throttle, address="192.0.2.2")
    assert not refused(throttle, token="a")


def test_requests_are_counted_by_token() -> None:
    throttle = Throttle(bad_tokens_a_minute=0, requests_a_minute=2)
    assert [refused(throttle, token="a") for _ in range(3)] == [False, False, True]
    assert not refused(throttle, token="b")
    assert not refused(throttle, address="192.0.2.1")


@pytest.mark.parametrize("who", ["address", "token"])
def test_a_limit_of_zero_is_none(who: str) -> None:
    throttle = Throttle(bad_tokens_a_minute=0, requests_a_minute=0)
    assert not any(refused(throttle, **{who: "x"}) for _ in range(1000))


def test_many_requests_are_counted_in_portions_and_the_limit_holds() -> None:
    throttle = Throttle(bad_tokens_a_minute=0, requests_a_minute=6000)
    taken = sum(not refused(throttle, token="a") for _ in range(6100))
    assert taken == 6000
    assert not refused(throttle, token="b"), "each token has portions of its own"
