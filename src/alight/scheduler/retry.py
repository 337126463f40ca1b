"""What a failed attempt means: the user's policy for the user's failures, three tries for ours."""

from __future__ import annotations

from alight.scheduler.state import INFRASTRUCTURE_TRIES, Tried
from alight.wire.spec import RetryPolicy
from alight.wire.states import ResultStatus

_USERS = {ResultStatus.EXCEPTION, ResultStatus.TIMEOUT}


def is_ours(status: str) -> bool:
    """Whether a status is a fault of the infrastructure, which costs the user no retry."""
    return status == ResultStatus.INTERNAL


def users_retry(status: str, tried: Tried, policy: RetryPolicy, *, users_fault: bool = False) -> float | None:
    """Seconds until the next attempt by the user's policy; None when this was the last."""
    if (status not in _USERS and not users_fault) or tried.retries >= policy.max_retries:
        return None
    # A hostile coefficient must not overflow: past the cap the exponent does not matter.
    exponent = min(tried.retries, 64)
    return float(min(policy.max_delay, policy.initial_delay * policy.backoff_coefficient**exponent))


def our_retry(tried: Tried) -> bool:
    """Whether an input that lost its container is tried again."""
    return tried.failures + 1 < INFRASTRUCTURE_TRIES
