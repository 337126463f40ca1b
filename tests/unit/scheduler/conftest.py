"""The pretended cluster that most tests of the scheduler start with."""

from __future__ import annotations

import pytest

from tests.unit.scheduler.world import Pretend


@pytest.fixture
def world():
    """One machine of 1000 MiB with nothing on it."""
    world = Pretend()
    world.node()
    return world
