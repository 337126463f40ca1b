"""Fixtures of the system tests: a real server, node and containers, as root, in state directories of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import base
from tests.system.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from alight.builder import BuiltImage

HERE = Path(__file__).parent
TIMEOUT_S = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here is a system test, and may take its time."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.system)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_S))


@pytest.fixture(autouse=True, scope="session")
def _root() -> None:
    if os.geteuid() != 0:
        pytest.skip("containers need root")


@pytest.fixture(scope="session")
def base_image() -> BuiltImage:
    """Debian with Python 3.11 and nothing else."""
    return base.base_image()


@pytest.fixture(scope="session")
def base_layers(base_image: BuiltImage) -> tuple[str, ...]:
    """The base image's directories, topmost first; read-only."""
    return tuple(base_image.layers)


@pytest.fixture(scope="session")
def new_machine() -> Iterator[Callable[..., Machine]]:
    """Make instances: ``new_machine(**env)``. Whoever made one closes it; what is left is closed in the end."""
    made: list[Machine] = []

    def make(**env: str) -> Machine:
        made.append(Machine(base.new_home(), env))
        return made[-1]

    yield make
    for machine in made:
        if machine.home.exists():
            machine.close()


@pytest.fixture(scope="session")
def machine(new_machine: Callable[..., Machine]) -> Machine:
    """The instance that most tests share. Leave it running, and leave no names behind that another test would use."""
    return new_machine()


@pytest.fixture
def fresh_machine(new_machine: Callable[..., Machine]) -> Iterator[Machine]:
    """An instance of this test alone, with nothing running yet and the base image there."""
    machine = new_machine()
    yield machine
    machine.close()


@pytest.fixture
def fresh_home() -> Iterator[Path]:
    """A state directory with the base image in it and nobody using it, for tests below the command line."""
    home = base.new_home()
    yield home
    base.remove_home(home)
