"""Which local files go along, where they lie in a container, and that unchanged ones are not read twice."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
import time
from pathlib import Path

import pytest

from alight.sdk import source
from alight.sdk.image_patterns import NON_PYTHON_FILES, FilePatternMatcher
from alight.sdk.source import Hashes, LocalFiles, collect, definition_of, python_source
from alight.wire.errors import InvalidError, ModuleNotMountable


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "tree"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "__pycache__").mkdir()
    (root / "__pycache__" / "a.pyc").write_text("x")
    (root / "a.py").write_text("a")
    (root / ".hidden").write_text("h")
    (root / "run.sh").write_text("#!/bin/sh")
    (root / "run.sh").chmod(0o755)
    (root / "sub" / "b.txt").write_text("b")
    (root / "sub" / "deep" / "c.py").write_text("a")
    return root


def paths(made):
    return {entry.path: entry for entry in made.entries}


def test_a_directory_lands_with_its_modes_and_its_empty_directories(tree):
    made = collect(LocalFiles(tree, "/data"), Hashes())
    assert made.remote == "/data"
    found = paths(made)
    assert sorted(found) == [".hidden", "a.py", "empty", "run.sh", "sub/b.txt", "sub/deep/c.py"]
    assert found["run.sh"].mode == 0o755
    assert found["a.py"].mode == 0o644
    assert found["empty"].directory
    assert found["a.py"].digest == found["sub/deep/c.py"].digest
    assert Path(made.contents[found["a.py"].digest]).read_text() == "a"


def test_ignore_leaves_out_and_takes_back(tree):
    ignore = FilePatternMatcher("sub", "!sub/deep", ".hidden")
    assert sorted(paths(collect(LocalFiles(tree, "/d", ignore), Hashes()))) == ["a.py", "run.sh", "sub/deep/c.py"]
    only_python = paths(collect(LocalFiles(tree, "/d", NON_PYTHON_FILES, hidden=False), Hashes()))
    assert sorted(only_python) == ["a.py", "sub/deep/c.py"]


def test_links_are_followed_but_never_in_circles(tree):
    (tree / "loop").symlink_to(tree)
    (tree / "link.py").symlink_to("a.py")
    (tree / "dangling").symlink_to("nowhere")
    os.mkfifo(tree / "pipe")
    found = paths(collect(LocalFiles(tree, "/d"), Hashes()))
    assert found["link.py"].digest == found["a.py"].digest
    assert found["dangling"].link == "nowhere"
    assert "pipe" not in found
    assert not any(path.startswith("loop/loop") for path in found)


def test_one_file_is_a_tree_of_its_parent(tree):
    made = collect(LocalFiles(tree / "a.py", "/root/x/b.py"), Hashes())
    assert (made.remote, [entry.path for entry in made.entries]) == ("/root/x", ["b.py"])


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(InvalidError, match=r"no directory or file .*nope to add at /d"):
        collect(LocalFiles(tmp_path / "nope", "/d"), Hashes())


def test_large_files_are_hashed_once(tmp_path, monkeypatch):
    big = tmp_path / "big"
    big.write_bytes(b"x" * (300 << 10))
    os.utime(big, (time.time() - 60, time.time() - 60))
    first = Hashes()
    digest = first.of(big, big.stat())
    first.save()
    monkeypatch.setattr(hashlib, "sha256", lambda *_args: pytest.fail("read again"))
    assert Hashes().of(big, big.stat()) == digest


def test_a_changed_file_is_hashed_again(tmp_path):
    big = tmp_path / "big"
    big.write_bytes(b"x" * (300 << 10))
    hashes = Hashes()
    one = hashes.of(big, big.stat())
    big.write_bytes(b"y" * (300 << 10))
    assert hashes.of(big, big.stat()) != one


@pytest.fixture
def importable(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "alone_mod.py").write_text("def f(): ...\n")
    package = tmp_path / "some_pkg" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "some_pkg" / "__init__.py").write_text("")
    (package / "__init__.py").write_text("")
    (package / "part.py").write_text("def f(): ...\n")
    yield tmp_path
    for name in list(sys.modules):
        if name.startswith(("alone_mod", "some_pkg")):
            del sys.modules[name]


def test_a_single_file_goes_along_by_itself(importable):
    function = importlib.import_module("alone_mod").f
    found = definition_of(function, include_source=True, what="f")
    assert (found.definition, found.module, found.source_path) == ("file", "alone_mod", "/root/alone_mod.py")
    assert found.files == (LocalFiles(importable / "alone_mod.py", "/root/alone_mod.py"),)
    assert definition_of(function, include_source=False, what="f").files == ()


def test_a_package_goes_along_whole(importable):
    function = importlib.import_module("some_pkg.inner.part").f
    found = definition_of(function, include_source=True, what="f")
    assert (found.definition, found.module) == ("module", "some_pkg.inner.part")
    assert (found.files[0].local, found.files[0].remote) == (importable / "some_pkg", "/root/some_pkg")


def test_installed_modules_are_the_images_business():
    found = definition_of(pytest.fixture, include_source=True, what="f")
    assert found.files == ()
    assert found.definition == "module"


def test_what_has_no_file_says_what_to_do():
    scope = {"__name__": "nowhere_mod"}
    exec("def f(): ...", scope)
    with pytest.raises(InvalidError, match="no file") as caught:
        definition_of(scope["f"], include_source=True, what="f")
    assert "serialized=True" in caught.value.hint


def test_python_source_is_found_by_import_and_missing_modules_are_named(importable):
    assert python_source("some_pkg", NON_PYTHON_FILES).remote == "/root/some_pkg"
    assert python_source("alone_mod", NON_PYTHON_FILES).remote == "/root/alone_mod.py"
    with pytest.raises(ModuleNotMountable, match="surely_not_here"):
        python_source("surely_not_here", NON_PYTHON_FILES)
    assert importable
    assert source.HOME == "/root"


def test_the_running_script_is_the_module_that_containers_know(monkeypatch):
    """What a container pickles as `script.Mine` must be the script's own class here, or no `except` catches it."""
    monkeypatch.delitem(sys.modules, "surely_a_script", raising=False)
    source.name_main("surely_a_script")
    assert sys.modules["surely_a_script"] is sys.modules["__main__"]
    del sys.modules["surely_a_script"]
    source.name_main("json")
    assert sys.modules["json"] is not sys.modules["__main__"]


def test_what_is_watched_of_a_tree_is_what_goes_along(tmp_path):
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    (package / "data").mkdir()
    for name in ("__init__.py", "inner/code.py", "data/rows.csv"):
        (package / name).write_text("")
    files, folders = source.places(source.LocalFiles(package, "/root/package", NON_PYTHON_FILES, hidden=False))
    assert files == {str(package / "__init__.py"), str(package / "inner" / "code.py")}
    assert folders == {str(package), str(package / "inner")}
    assert source.places(source.LocalFiles(package / "__init__.py", "/root/x.py")) == (
        {str(package / "__init__.py")},
        set(),
    )
