"""What runs elsewhere: an image's Python may be as old as 3.9, and a client's system may lack what only Unix has."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from tests.shape import tree

OLDEST = (3, 9)
IN_CONTAINERS_AND_CLIENTS = ("wire", "runtime", "sdk", "compat", "cli")
NOT_ON_WINDOWS = ("fcntl", "grp", "pwd", "resource", "termios", "tty", "pty", "syslog", "uvloop", "select.epoll")
TOO_NEW = {  # keyword arguments that came after 3.9
    "dataclass": {"slots", "kw_only", "match_args"},
    "zip": {"strict"},
    "field": {"kw_only"},
}

WITHOUT_UNIX = """
import importlib, pkgutil, sys
blocked = {blocked!r}

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name in blocked:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nowhere())
for name in blocked:
    sys.modules.pop(name, None)
for name in {modules!r}:
    importlib.import_module(name)
"""


@pytest.mark.parametrize("package", IN_CONTAINERS_AND_CLIENTS)
def test_the_oldest_python_understands_it(package):
    for file in tree.files(package):
        syntax = ast.parse(file.read_text(), str(file), feature_version=OLDEST)
        for node in ast.walk(syntax):
            assert not isinstance(node, ast.Match), f"{file}:{node.lineno}: match came with 3.10"
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func).rpartition(".")[2]
                newer = TOO_NEW.get(name, set()) & {keyword.arg for keyword in node.keywords}
                assert not newer, f"{file}:{node.lineno}: {name}({newer}) came after 3.9"


@pytest.mark.parametrize("package", IN_CONTAINERS_AND_CLIENTS)
def test_hints_are_never_evaluated(package):
    """`X | Y` in a hint is fine on 3.9 as long as nobody computes it."""
    for file in tree.files(package):
        syntax = tree.parsed(file)
        if any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in syntax.body):
            continue
        hints = [getattr(node, name, None) for node in ast.walk(syntax) for name in ("annotation", "returns")]
        unions = [ast.unparse(hint) for hint in hints if hint is not None and "|" in ast.unparse(hint)]
        assert not unions, f"{file} computes {unions}: it lacks `from __future__ import annotations`"


@pytest.mark.parametrize("package", ["wire", "sdk", "compat"])
def test_a_client_imports_without_what_only_unix_has(package):
    modules = ["alight", "alight.cli.main", *(tree.module_name(file) for file in tree.files(package))]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_UNIX.format(blocked=NOT_ON_WINDOWS, modules=modules)],
        cwd="/",
        env={"PYTHONPATH": str(tree.SOURCE)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
