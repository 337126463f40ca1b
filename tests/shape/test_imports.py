"""What may import what, where the import linter cannot say it: only the standard library, one file per dependency."""

from __future__ import annotations

import configparser
import sys

import pytest

from tests.shape import tree

STANDARD_LIBRARY_ONLY = ("wire", "runtime", "compat", "sdk")
CLOUDPICKLE_IN = "alight.wire.payload"


@pytest.mark.parametrize("package", STANDARD_LIBRARY_ONLY)
def test_what_runs_in_every_container_needs_only_the_standard_library(package):
    """A container brings its own Python and nothing of ours besides these packages."""
    foreign = [
        f"{file.relative_to(tree.SOURCE)}:{found.line} imports {found.module}"
        for file in tree.files(package)
        for found in tree.imports(file)
        if not found.for_types_only and not _allowed(tree.module_name(file), found.module)
    ]
    assert not foreign, "\n".join(foreign)


def test_relative_imports_stay_out():
    """One way to write an import, so that searching for a module finds all its users."""
    relative = [
        f"{file.relative_to(tree.SOURCE)}:{node.lineno}"
        for file in tree.files()
        if "from ." in file.read_text()  # parsing every file takes seconds
        for node in tree.ast.walk(tree.parsed(file))
        if isinstance(node, tree.ast.ImportFrom) and node.level
    ]
    assert not relative, relative


def test_every_island_is_in_the_import_contract():
    """An island that the linter has not heard of may import anything."""
    contract = configparser.ConfigParser()
    contract.read(tree.REPOSITORY / ".importlinter")
    layers = contract["importlinter:contract:layers"]["layers"]
    absent = [package for package in tree.packages() if f"alight.{package}" not in layers]
    assert not absent, f"add to .importlinter: {absent}"


def _allowed(module: str, imported: str) -> bool:
    top = imported.split(".", 1)[0]
    if top == "cloudpickle":
        return module == CLOUDPICKLE_IN
    # The renderer of the CLI is asked for when it is installed, and done without when not.
    return top == "alight" or top in sys.stdlib_module_names
