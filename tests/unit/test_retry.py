"""When to try again: a pure decision, as a table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shared.errors
from shared.errors import RegistryError, Truncated, Unavailable, UpstreamBusy
from worker.retry import RetryPolicy, next_delay_s

POLICY = RetryPolicy(max_attempts=5, base_s=2, cap_s=300)
PATIENT = RetryPolicy(max_attempts=100, base_s=2, cap_s=300)
ALL = [each for each in vars(shared.errors).values() if isinstance(each, type) and issubclass(each, RegistryError)]


@pytest.mark.parametrize("kind", [kind for kind in ALL if not issubclass(kind, Unavailable)])
@pytest.mark.parametrize("attempt", [1, 4, 5])
def test_a_final_error_is_never_tried_again(kind: type[RegistryError], attempt: int) -> None:
    assert next_delay_s(kind("It broke."), attempt, POLICY, luck=0.5) is None


@pytest.mark.parametrize("kind", [kind for kind in ALL if issubclass(kind, Unavailable)])
def test_a_transient_error_is_tried_until_the_attempts_are_used_up(kind: type[Unavailable]) -> None:
    again = [next_delay_s(kind("It broke."), attempt, POLICY, luck=0.5) is not None for attempt in range(1, 8)]
    assert again == [True, True, True, True, False, False, False]


def test_a_single_attempt_is_never_followed_by_another() -> None:
    once = RetryPolicy(max_attempts=1, base_s=2, cap_s=300)
    assert next_delay_s(UpstreamBusy("Busy.", retry_after_s=1), 1, once, luck=0) is None


@pytest.mark.parametrize(
    ("attempt", "luck", "delay_s"),
    [
        (1, 0, 1),
        (1, 0.5, 1.5),
        (1, 1, 2),
        (2, 0, 2),
        (2, 1, 4),
        (4, 0, 8),
        (4, 1, 16),
        (8, 0, 128),
        (8, 1, 256),
        (9, 0, 150),
        (9, 1, 300),
        (99, 0, 150),
        (99, 1, 300),
    ],
)
def test_the_delay_doubles_up_to_the_cap_and_luck_spreads_it(attempt: int, luck: float, delay_s: float) -> None:
    assert next_delay_s(Truncated("Broke."), attempt, PATIENT, luck=luck) == delay_s


@pytest.mark.parametrize(
    ("attempt", "retry_after_s", "delay_s"),
    [
        (1, None, 2),
        (1, 0, 2),
        (1, 1.5, 2),
        (1, 120, 120),
        (1, 300, 300),
        (1, 301, 300),
        (1, 86_400, 300),
        (1, float("inf"), 300),
        (1, -5, 2),
        (7, 10, 128),
    ],
)
def test_a_retry_after_is_honoured_up_to_the_cap_and_never_shortens(
    attempt: int, retry_after_s: float | None, delay_s: float
) -> None:
    assert next_delay_s(UpstreamBusy("Busy.", retry_after_s=retry_after_s), attempt, PATIENT, luck=1) == delay_s


@settings(deadline=None)
@given(
    st.integers(1, 10**6),
    st.floats(0.001, 86_400),
    st.floats(0.001, 86_400),
    st.floats(0, 1),
    st.none() | st.floats(0, 10**9),
)
def test_no_delay_is_negative_or_above_the_cap(
    attempt: int, base_s: float, cap_s: float, luck: float, retry_after_s: float | None
) -> None:
    policy = RetryPolicy(max_attempts=10**6 + 1, base_s=base_s, cap_s=cap_s)
    delay_s = next_delay_s(UpstreamBusy("Busy.", retry_after_s=retry_after_s), attempt, policy, luck=luck)
    assert delay_s is not None
    assert min(base_s, cap_s) / 2 <= delay_s <= cap_s
