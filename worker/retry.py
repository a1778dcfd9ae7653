"""When to try again. Pure: the root class of the error is the policy, this is its arithmetic."""

from dataclasses import dataclass

from shared.errors import RegistryError, Unavailable


@dataclass(frozen=True)
class RetryPolicy:
    """How often and how far apart: *max_attempts* in all, delays from *base_s* doubling up to *cap_s*."""

    max_attempts: int
    base_s: float
    cap_s: float


def next_delay_s(error: RegistryError, attempt: int, policy: RetryPolicy, *, luck: float) -> float | None:
    """Return how long to wait after attempt number *attempt* (1 is the first), or None for never.

    The delay lies in the upper half of ``base_s * 2**(attempt - 1)``, where in it by *luck* (0 to 1), so
    that artifacts which failed together do not come back together. An upstream's ``Retry-After``
    is honoured, up to the cap.
    """
    if not isinstance(error, Unavailable) or attempt >= policy.max_attempts:
        return None
    full_s = min(policy.cap_s, policy.base_s * 2.0 ** min(attempt - 1, 32))
    delay_s = full_s * (1 + luck) / 2
    return min(policy.cap_s, max(delay_s, error.retry_after_s or 0))
