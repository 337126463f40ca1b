"""An archive of a volume holds what was in it, whatever somebody does to the volume meanwhile, and nothing else."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import tarfile

import pytest

from alight.node import paths
from alight.node.volume_packs import Packer
from alight.node.volumes import Volumes


def packed(folder, packer=None, meanwhile=None):
    packer = packer or Packer()
    into = io.BytesIO()
    root = paths.open_root(folder)
    try:
        packer.pack(root, into)
    finally:
        os.close(root)
    into.seek(0)
    return packer, tarfile.open(fileobj=into)


def test_files_links_modes_and_times_come_back(tmp_path):
    data = tmp_path / "data"
    (data / "deep/er").mkdir(parents=True)
    (data / "deep/er/file").write_bytes(b"x" * 100_000)
    (data / "deep/er/file").chmod(0o640)
    os.utime(data / "deep/er/file", (5.25, 5.25))
    (data / "empty").mkdir(mode=0o700)
    (data / "out").symlink_to("/etc/passwd")
    os.link(data / "deep/er/file", data / "same")
    os.close(os.open(os.fsencode(data) + b"/not-\xff-text", os.O_CREAT | os.O_WRONLY))
    packer, archive = packed(data)
    assert packer.entries == 7
    archive.extractall(tmp_path / "again", filter="fully_trusted")
    again = tmp_path / "again"
    assert (again / "deep/er/file").read_bytes() == b"x" * 100_000
    assert (again / "same").stat().st_ino == (again / "deep/er/file").stat().st_ino
    assert (again / "same").stat().st_mode & 0o7777 == 0o640
    assert (again / "same").stat().st_mtime == 5.25
    assert os.readlink(again / "out") == "/etc/passwd"
    assert sorted(os.listdir(os.fsencode(again))) == sorted(os.listdir(os.fsencode(data)))


def test_what_is_no_file_is_left_out_and_nobody_waits_for_it(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    os.mkfifo(data / "pipe")
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(data / "socket"))
    packer, archive = packed(data)
    assert archive.getnames() == []
    assert packer.skipped == 2


class Hostile(Packer):
    """Does something between the look at a directory and the look at what is in it."""

    def __init__(self, act):
        super().__init__()
        self._act = act

    def _add(self, archive, folder, name, path):
        self._act(path)
        super()._add(archive, folder, name, path)


def test_a_directory_that_becomes_a_link_leads_nowhere(tmp_path):
    data, secret = tmp_path / "data", tmp_path / "host"
    for one in (data / "a", secret):
        one.mkdir(parents=True)
    (secret / "passwd").write_text("of the host")

    def exchange(path):
        if path == "a":
            (data / "a").rmdir()
            (data / "a").symlink_to(secret)

    _, archive = packed(data, Hostile(exchange))
    assert archive.getnames() == ["a"]
    assert archive.getmember("a").issym()


@pytest.mark.parametrize("length", [0, 10, 200_000])
def test_a_file_that_changes_its_length_keeps_the_archive_whole_and_is_named(tmp_path, monkeypatch, length):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_bytes(b"a" * 100_000)
    (data / "b").write_bytes(b"b")
    whole = tarfile.TarFile.addfile

    def addfile(self, entry, file=None):
        if entry.name == "a":
            os.truncate(data / "a", length)
        return whole(self, entry, file)

    monkeypatch.setattr(tarfile.TarFile, "addfile", addfile)
    packer, archive = packed(data)
    assert archive.getmember("a").size == 100_000
    assert archive.extractfile("b").read() == b"b"
    assert packer.changed == ["a"]


def test_what_is_removed_meanwhile_is_not_there_and_what_is_too_deep_is_named(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "a").write_text("a")
    (data / "b").write_text("b")
    folder = os.open(data, os.O_RDONLY)
    for _ in range(250):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    packer, archive = packed(data, Hostile(lambda path: (data / "b").unlink(missing_ok=True)))
    assert "b" not in archive.getnames()
    assert len(packer.changed) == 1
    assert "too deep" in packer.changed[0]


@pytest.mark.parametrize("clones", [True, False])
def test_what_is_packed_is_of_one_moment_where_that_costs_no_copy(tmp_path, monkeypatch, clones):
    volumes = Volumes(tmp_path)
    monkeypatch.setattr(volumes._kept.snapshots, "clones", lambda _: clones)
    (volumes.data("vo-1") / "a").write_text("before")

    async def story():
        async with volumes.still("vo-1") as folder:
            (volumes.data("vo-1") / "a").write_text("after")
            assert (folder / "a").read_text() == ("before" if clones else "after")
        assert volumes._kept.snapshots.all("vo-1") == []

    asyncio.run(story())
    assert (volumes.data("vo-1") / "a").read_text() == "after"
