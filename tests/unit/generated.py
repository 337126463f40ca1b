"""How tests with generated inputs run: the same few each time, or, for ``scripts/test --all``, many at random.

``conftest.py`` imports this before any such test.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]

# Whoever changes a line sees the same result as everybody else, and soon: what fails is shown as it was found.
settings.register_profile(
    "same",
    max_examples=50,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=_SLOW,
)
# What nobody has seen yet is found at random, in ten times as many. A failure is made small, which may take minutes;
# its last lines say how to repeat it.
settings.register_profile(
    "random",
    max_examples=500,
    stateful_step_count=100,
    database=None,
    deadline=None,
    print_blob=True,
    suppress_health_check=_SLOW,
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "same")
MANY = PROFILE == "random"
settings.load_profile(PROFILE)


def times(count: int) -> int:
    """For a test that wants more or fewer: ``count`` of the same each time, ten times as many at random."""
    return count * settings().max_examples // 50
