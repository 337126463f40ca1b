"""Fixtures of the contract tests. Fillings that need root or a base image say so by asking for it."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="session")
def base_layers() -> tuple[str, ...]:
    """Directories of a Debian with Python, topmost first; read-only. Skips without root."""
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    from tests.system import base

    return tuple(base.base_image().layers)
