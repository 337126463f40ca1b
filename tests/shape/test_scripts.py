"""The scripts that a newcomer runs first: they can be run, the shell understands them, and they say what they do."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.shape import tree

SHELL = ["scripts/lib.sh", "scripts/test", "scripts/demo", ".ci/run"]
RUN = ["scripts/test", "scripts/demo", "scripts/surface", "scripts/map", "scripts/vendor", ".ci/run", "bench/run.py"]


@pytest.mark.parametrize("name", SHELL)
def test_the_shell_understands_it(name):
    subprocess.run(["bash", "-n", tree.REPOSITORY / name], check=True)


@pytest.mark.parametrize("name", RUN)
def test_it_can_be_run(name):
    assert os.access(tree.REPOSITORY / name, os.X_OK), f"chmod +x {name}"


def test_an_argument_that_nobody_knows_is_refused():
    done = subprocess.run([tree.REPOSITORY / "scripts/test", "--nosuch"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--nosuch" in done.stderr


def test_help_says_what_each_flag_does():
    done = subprocess.run([tree.REPOSITORY / "scripts/test", "--help"], capture_output=True, text=True, check=True)
    assert all(flag in done.stdout for flag in ("--all", "--fast", "Set up"))
    assert "#" not in done.stdout
