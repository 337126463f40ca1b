"""`import modal` means Alight where somebody asked for it, and nowhere else."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import alight
from alight import compat
from alight.wire.errors import DeprecationError

SOURCE = str(Path(__file__).parents[3] / "src")


@pytest.fixture
def installed():
    compat.install()
    yield
    compat.uninstall()


def test_without_asking_the_name_is_free():
    # In a process of its own: the command line, which other tests run in this one, asks for it.
    script = "import alight, sys, importlib.util; sys.exit(importlib.util.find_spec('modal') is not None)"
    subprocess.run([sys.executable, "-c", script], check=True, env={"PYTHONPATH": SOURCE})


def test_names_are_the_same_objects(installed):
    import modal
    import modal.exception
    from modal import App, Image, Volume
    from modal.exception import NotFoundError

    assert modal is alight
    assert (App, Image, Volume) == (alight.App, alight.Image, alight.Volume)
    assert NotFoundError is alight.exception.NotFoundError
    assert alight.__spec__.name == "alight", "the borrowed name must not stick to the module"
    assert alight.exception.__spec__.name == "alight.exception"


@pytest.mark.parametrize(
    ("module", "name", "same"),
    [
        ("functions", "FunctionCall", lambda: alight.FunctionCall),
        ("functions", "Function", lambda: alight.Function),
        ("call_graph", "InputStatus", lambda: alight.types.InputStatus),
        ("call_graph", "InputInfo", lambda: alight.types.InputInfo),
        ("volume", "FileEntryType", lambda: alight.types.FileEntryType),
        ("volume", "Volume", lambda: alight.Volume),
        ("image", "Image", lambda: alight.Image),
        ("secret", "Secret", lambda: alight.Secret),
        ("runner", None, None),
        ("experimental", "clustered", lambda: alight.experimental.clustered),
    ],
)
def test_modules_that_scripts_import_from(installed, module, name, same):
    if name is None:
        with pytest.raises(ModuleNotFoundError, match="means Alight here"):
            importlib.import_module(f"modal.{module}")
        return
    assert getattr(importlib.import_module(f"modal.{module}"), name) is same()


def test_our_own_packages_are_not_reachable_twice(installed):
    """`modal.server` as a second copy of alight.server would have classes of its own."""
    for name in ("sdk", "wire", "runtime", "cli"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module(f"modal.{name}")


def test_settings_are_read_when_they_are_asked_for(installed, monkeypatch):
    import modal.config

    monkeypatch.setenv("ALIGHT_ENVIRONMENT", "elsewhere")
    assert modal.config.config["environment"] == "elsewhere"
    assert modal.config.config.get("nothing") is None
    assert "token_secret" not in modal.config.config.to_dict()


def test_gpu_objects_are_text_with_a_warning(installed):
    import modal

    for make, text in (
        (lambda: modal.gpu.A100(size="80GB", count=2), "A100-80GB:2"),
        (lambda: modal.gpu.A100(memory=40), "A100-40GB"),
        (lambda: modal.gpu.H100(), "H100"),
        (lambda: modal.gpu.Any(), "any"),
    ):
        with pytest.warns(DeprecationError, match=f"gpu='{text}'"):
            assert make() == text


def test_names_that_are_gone_say_what_to_use(installed):
    import modal

    with pytest.raises(DeprecationError, match="use App"):
        modal.Stub  # noqa: B018  looking is the test
    with pytest.raises(DeprecationError, match="add_local_dir"):
        modal.Mount  # noqa: B018


def test_it_wins_over_an_installed_package(tmp_path):
    """An image may have the other package; the user's script still means us."""
    (tmp_path / "modal.py").write_text("raise RuntimeError('the other one')")
    code = f"import sys; sys.path[:0] = [{SOURCE!r}, {str(tmp_path)!r}]\n"
    code += "import alight.compat; alight.compat.install()\nimport modal, alight; assert modal is alight"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_it_imports_next_to_nothing():
    code = "import sys; before = set(sys.modules); import alight.compat; print(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": SOURCE}, capture_output=True, text=True, check=True
    )
    light = {"__future__", "types", "warnings", "_warnings"}
    foreign = {name for name in done.stdout.split() if name.split(".")[0] not in {"alight", "importlib", *light}}
    assert not foreign
