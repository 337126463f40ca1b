"""What every test starts from: no settings of the one who runs them, and no state outside a temporary directory."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Hundreds of processes of ours are started by tests, and compiling the package is most of a short one's time; pytest
# keeps its own form of the tests, too. All of it lies in __pycache__.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

KEPT = {"ALIGHT_TEST_CACHE", "ALIGHT_PYTHON"}  # settings of the test run itself


@pytest.fixture(autouse=True, scope="session")
def _no_settings_from_outside(tmp_path_factory: pytest.TempPathFactory):
    """Remove ALIGHT_* and MODAL_* from the environment, and put home and configuration where nobody keeps any."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(("ALIGHT_", "MODAL_")) and name not in KEPT:
                patch.delenv(name)
        empty = tmp_path_factory.mktemp("nobody")
        patch.setenv("ALIGHT_HOME", str(empty / "home"))
        patch.setenv("ALIGHT_CONFIG_PATH", str(empty / "alight.toml"))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture
def disk_path() -> Iterator[Path]:
    """A directory on a disk, for what only disks do: ``scripts/test`` has ``tmp_path`` in memory."""
    with tempfile.TemporaryDirectory(prefix="alight-test-", dir="/var/tmp") as folder:
        yield Path(folder)
