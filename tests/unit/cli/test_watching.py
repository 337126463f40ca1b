"""What counts as a change, and that each is told once."""

from __future__ import annotations

import os
import queue

import pytest

from alight.cli.watching import Watcher


@pytest.fixture
def told():
    return queue.Queue()


@pytest.fixture
def watcher(told):
    one = Watcher(told.put)
    yield one
    one.close()


def heard(told, *paths):
    assert told.get(timeout=10) == {str(path) for path in paths}


def nothing(told, folder):
    """Nothing was told before something that counts."""
    (folder / "last.py").write_text("x")
    heard(told, folder / "last.py")


def test_a_watched_file_is_told_and_its_neighbours_are_not(tmp_path, watcher, told):
    script, data, last = tmp_path / "script.py", tmp_path / "data.csv", tmp_path / "last.py"
    script.write_text("1")
    last.write_text("")
    watcher.watch({str(script), str(last)}, set(), anew=True)
    data.write_text("1")
    nothing(told, tmp_path)
    script.write_text("22")
    heard(told, script)


def test_a_file_that_is_put_in_the_place_of_another_is_a_change(tmp_path, watcher, told):
    """As editors save: a new file, renamed over the old one; and the same content written again is told, too."""
    script = tmp_path / "script.py"
    script.write_text("1")
    watcher.watch({str(script)}, set(), anew=True)
    (tmp_path / ".script.py.swp").write_text("22")
    os.replace(tmp_path / ".script.py.swp", script)
    heard(told, script)


def test_new_files_count_in_watched_folders_alone(tmp_path, watcher, told):
    package, other = tmp_path / "package", tmp_path / "other"
    package.mkdir()
    other.mkdir()
    (other / "known.py").write_text("1")
    watcher.watch({str(other / "known.py")}, {str(package)}, anew=True)
    (other / "new.py").write_text("1")
    (package / "new.py~").write_text("1")
    nothing(told, package)


def test_what_changes_while_the_watch_moves_is_told(tmp_path, watcher, told):
    first, second = tmp_path / "a" / "one.py", tmp_path / "b" / "two.py"
    for path in (first, second):
        path.parent.mkdir()
        path.write_text("1")
    watcher.watch({str(first), str(second)}, set(), anew=True)
    third = tmp_path / "c.py"
    third.write_text("1")
    watcher._files[str(first)] = (0, 0)  # as if it had changed between the two watches
    watcher.watch({str(third)}, set(), anew=False)
    heard(told, first)
