"""Nothing that somebody lays into a directory leads the node out of it."""

from __future__ import annotations

import os
import threading

import pytest

from alight.node import paths
from alight.wire import errors


@pytest.fixture
def root(tmp_path):
    place = tmp_path / "root"
    place.mkdir()
    (tmp_path / "secret").write_text("outside")
    (place / "file").write_text("inside")
    (place / "deep").mkdir()
    (place / "deep/file").write_text("deep")
    (place / "in").symlink_to("deep/file")
    (place / "absolute").symlink_to(tmp_path / "secret")
    (place / "up").symlink_to("../secret")
    (place / "around").symlink_to("deep/../../root/file")
    (place / "folder").symlink_to(tmp_path)
    (place / "magic").symlink_to("/proc/self/cwd")
    os.mkfifo(place / "pipe")
    fd = paths.open_root(place)
    yield fd
    os.close(fd)


def _read(root: int, path: str) -> str:
    fd = paths.open_file(root, path)
    with os.fdopen(fd) as file:
        return file.read()


def test_links_that_stay_inside_are_followed(root):
    assert _read(root, "file") == "inside"
    assert _read(root, "in") == "deep"


@pytest.mark.parametrize("path", ["absolute", "up", "around", "folder/secret", "magic", "../secret", "/etc/passwd"])
def test_nothing_outside_is_reached(root, path):
    with pytest.raises(OSError):
        _read(root, path)
    with pytest.raises(OSError):
        paths.create_file(root, f"{path}/new")


@pytest.mark.parametrize("path", ["pipe", "deep"])
def test_only_regular_files_are_opened(root, path):
    with pytest.raises(errors.InvalidError):
        _read(root, path)


def test_what_exists_is_never_written_through(root):
    for name in ("file", "in", "absolute", "pipe"):
        with pytest.raises(FileExistsError):
            paths.create_file(root, name)


def test_missing_directories_are_made_but_not_through_links(root, tmp_path):
    os.close(paths.create_file(root, "a/b/c.txt"))
    assert (tmp_path / "root/a/b/c.txt").exists()
    with pytest.raises(OSError):
        paths.create_file(root, "folder/made/c.txt")
    assert not (tmp_path / "made").exists()


def test_an_exchange_during_the_open_never_leads_out(root, tmp_path):
    """Somebody swaps a directory for a link as fast as they can while we open a file in it."""
    place = tmp_path / "root"
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("outside")
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            (place / "deep").rename(place / "was")
            (place / "deep").symlink_to(outside)
            (place / "deep").unlink()
            (place / "was").rename(place / "deep")

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for _ in range(2000):
            try:
                seen.add(_read(root, "deep/file"))
            except OSError:
                continue
    finally:
        done.set()
        thread.join()
    assert seen <= {"deep"}


@pytest.mark.parametrize(
    ("written", "meant"), [("/a/b", "a/b"), ("a//b/./c/", "a/b/c"), ("/", "."), ("", "."), (".", ".")]
)
def test_paths_as_users_write_them(written, meant):
    assert paths.relative(written) == meant


@pytest.mark.parametrize("path", ["..", "/a/../b", "a/..", "a\0b", "x" * 5000])
def test_paths_that_cannot_be(path):
    with pytest.raises(errors.InvalidError):
        paths.relative(path)


def test_without_openat2_no_link_is_followed_at_all(root, monkeypatch):
    monkeypatch.setattr(paths, "open_beneath", paths._open_by_steps)
    fd = paths._open_by_steps(root, "deep/file", os.O_RDONLY, 0)
    os.close(fd)
    for path in ("in", "up", "folder/secret", "../secret"):
        with pytest.raises(OSError):
            os.close(paths._open_by_steps(root, path, os.O_RDONLY, 0))
