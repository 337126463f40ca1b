"""Steps as commands: uv for speed with pip's meaning, pip where only pip will do, and nothing private in arguments."""

from __future__ import annotations

import pytest

from alight.builder import installs, recipe
from alight.builder.steps import LENT
from alight.wire.spec import ImageSpec

PYTHON = "/usr/local/bin/python"


def install(indexes=None, **what):
    raw = {"op": "pip_install", "tool": "pip", "packages": ["six"], **what}
    _, step = recipe.parse(ImageSpec(steps=({"op": "debian_slim"}, raw)))
    return installs.pip_install(step, indexes or installs.Indexes(), PYTHON)


@pytest.mark.parametrize("tool", ["pip", "uv"])
def test_both_tools_install_through_uv_with_bytecode(tool):
    argv = install(tool=tool).argv
    assert argv[:3] == ("uv", "pip", "install")
    assert "--compile-bytecode" in argv
    assert argv[argv.index("--python") + 1] == PYTHON


def test_an_option_that_only_pip_knows_is_given_to_pip():
    argv = install(extra_options="--use-pep517 --no-deps").argv
    assert argv[:4] == (PYTHON, "-m", "pip", "install")
    assert {"--use-pep517", "--no-deps", "six"} <= set(argv)


def test_uv_install_never_falls_back():
    assert install(tool="uv", extra_options="--brand-new-option").argv[0] == "uv"


def test_prereleases_in_each_tools_words():
    assert "--prerelease=allow" in install(pre=True).argv
    assert "--pre" in install(pre=True, extra_options="--use-pep517").argv


def test_indexes_of_step_and_machine_join_and_stay_out_of_arguments():
    machine = installs.Indexes("https://machine/simple", ("https://more/simple",), ("/wheels",))
    command = install(machine, index_url="https://u:secret@step/simple", extra_index_url="https://extra/simple")
    assert command.env["UV_DEFAULT_INDEX"] == command.env["PIP_INDEX_URL"] == "https://u:secret@step/simple"
    assert command.env["UV_EXTRA_INDEX_URL"].split() == ["https://extra/simple", "https://more/simple"]
    assert command.env["UV_FIND_LINKS"] == "/wheels"
    assert "://" not in " ".join(command.argv)


def test_requirements_are_lent_as_files_whatever_they_are_called():
    command = install(packages=[], requirements=[{"name": "../a b.txt", "text": "six\n"}])
    (name,) = command.files
    assert command.files[name] == b"six\n"
    assert command.argv[-2:] == ("-r", f"{LENT}/{name}")
    assert ".." not in name


def test_apt_packages_are_words_and_never_shell():
    _, step = recipe.parse(
        ImageSpec(steps=({"op": "debian_slim"}, {"op": "apt_install", "packages": ["git", "x; rm -rf /"]}))
    )
    assert "'x; rm -rf /'" in installs.apt_install(step).argv[-1]
