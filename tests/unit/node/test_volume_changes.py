"""What a commit says that changed: learnt from the kernel, or by a walk where the kernel did not tell."""

from __future__ import annotations

import asyncio
import mmap
import os
import shutil

import pytest

from alight.node import fanotify, volume_census, volume_mappings, volume_sync
from alight.node.volume_changes import Changes, volume_of
from alight.node.volumes import Volumes
from alight.wire import errors

VOLUME = "vo-0000000000000000000001"


def _heard() -> bool:
    try:
        fanotify.Group().close()
    except OSError:
        return False
    return True


heard = pytest.mark.skipif(not _heard(), reason="the kernel tells only root of changes")


@pytest.fixture(params=["kernel", "walk"])
def volumes(request, tmp_path):
    """Volumes of which the kernel tells, and ones that are walked."""
    made = Volumes(tmp_path)
    if request.param == "kernel":
        if not _heard():
            pytest.skip("the kernel tells only root of changes")
        made.hold(VOLUME, "co-1")
    yield made
    made.release(VOLUME, "co-1")
    made._changes.unwatch(VOLUME)


def commit(volumes):
    return asyncio.run(volumes.commit(VOLUME))


def test_nothing_is_no_version_and_each_kind_of_change_is_one(volumes):
    data = volumes.data(VOLUME)
    commit(volumes)
    assert not commit(volumes).any
    (data / "a").mkdir()
    (data / "a/file").write_text("12345")
    (data / "b").write_text("1")
    change = commit(volumes)
    assert (change.any, change.files, change.size) == (True, 2, 6)
    assert not commit(volumes).any
    for act in (
        lambda: (data / "a/file").write_text("123456"),
        lambda: (data / "a/file").chmod(0o600),
        lambda: (data / "a/file").rename(data / "a/other"),
        lambda: (data / "a").rename(data / "c"),
        lambda: (data / "c/other").write_text("in a directory that was moved"),
        lambda: (data / "c/link").symlink_to("other"),
        lambda: os.truncate(data / "c/other", 3),
        lambda: os.setxattr(data / "c/other", "user.x", b"1"),
        lambda: shutil.rmtree(data / "c"),
    ):
        act()
        assert commit(volumes).any
        assert not commit(volumes).any


def test_a_file_that_is_still_open_counts(volumes):
    data = volumes.data(VOLUME)
    with (data / "open").open("w") as file:
        commit(volumes)
        file.write("x")
        file.flush()
        assert commit(volumes).any
        assert not commit(volumes).any


@heard
def test_files_without_a_name_are_no_change_and_those_called_as_if_are(tmp_path):
    """The kernel calls them "#" and a number; programs make them for what is temporary, and we to try a filesystem."""
    made = Volumes(tmp_path)
    made.hold(VOLUME, "co-1")
    data = made.data(VOLUME)
    commit(made)
    fd = os.open(data, os.O_TMPFILE | os.O_RDWR)
    os.write(fd, b"nothing to keep")
    os.close(fd)
    assert not commit(made).any
    (data / "#12").write_text("1")
    assert commit(made).any
    with (data / "#12").open("a") as file:
        file.write("2")
    assert commit(made).any
    made.release(VOLUME, "co-1")
    made._changes.unwatch(VOLUME)


@heard
def test_what_moves_in_from_elsewhere_is_followed(tmp_path):
    volumes = Volumes(tmp_path)
    volumes.hold(VOLUME, "co-1")
    data = volumes.data(VOLUME)
    commit(volumes)
    outside = volumes.staging(VOLUME) / "up"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep/file").write_text("1")
    assert not commit(volumes).any, "what waits outside is no part of it"
    outside.rename(data / "up")
    assert commit(volumes).any
    (data / "up/deep/file").write_text("2")
    assert commit(volumes).files == 1
    volumes._changes.unwatch(VOLUME)


@heard
def test_other_volumes_and_directories_beside_it_are_told_apart(tmp_path):
    volumes = Volumes(tmp_path)
    for one in (VOLUME, "vo-2"):
        volumes.hold(one, "co-1")
        asyncio.run(volumes.commit(one))
    (tmp_path / "elsewhere").write_text("1")
    (volumes.data("vo-2") / "file").write_text("1")
    assert not commit(volumes).any
    assert asyncio.run(volumes.commit("vo-2")).files == 1
    for one in (VOLUME, "vo-2"):
        volumes._changes.unwatch(one)


@heard
def test_too_many_events_are_an_unknown_and_not_a_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("alight.node.volume_changes._MOST_AT_ONCE", 10)
    changes = Changes(tmp_path)
    data = tmp_path / VOLUME / "data"
    data.mkdir(parents=True)
    changes.watch(VOLUME, data)
    changes.take(VOLUME)
    for number in range(50):
        (data / str(number)).touch()
    assert changes.take(VOLUME).entries is None
    assert changes.take(VOLUME).entries is None, "nobody hears for a while"
    changes.unwatch(VOLUME)


@heard
def test_few_changes_are_synced_one_by_one_and_what_is_not_known_as_a_whole(tmp_path, monkeypatch):
    volumes = Volumes(tmp_path)
    volumes.hold(VOLUME, "co-1")
    data = volumes.data(VOLUME)
    wholes, files = [], []
    whole, fsync = volume_sync.whole, os.fsync
    monkeypatch.setattr(volume_sync, "whole", lambda path: (wholes.append(path), whole(path)))
    monkeypatch.setattr(os, "fsync", lambda fd: (files.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    commit(volumes)
    assert wholes, "what was there before is not known"
    wholes.clear()
    (data / "a/b").mkdir(parents=True)
    (data / "a/b/file").write_text("1")
    os.mkfifo(data / "a/pipe")
    (data / "a/link").symlink_to("/etc/passwd")
    assert commit(volumes).files == 3
    assert not wholes
    assert set(files) == {str(data), str(data / "a"), str(data / "a/b"), str(data / "a/b/file")}
    files.clear()
    (data / "a/b/file").unlink()
    (data / "a/b").rmdir()
    assert commit(volumes).any
    assert set(files) == {str(data / "a")}
    (volumes.staging(VOLUME) / "up").mkdir()
    (volumes.staging(VOLUME) / "up/file").write_text("1")
    (volumes.staging(VOLUME) / "up").rename(data / "up")
    assert commit(volumes).any
    assert wholes, "nobody heard what came with the directory"
    wholes.clear()
    for number in range(volume_sync.FEW + 1):
        (data / str(number)).touch()
    assert commit(volumes).any
    assert wholes
    volumes._changes.unwatch(VOLUME)


@heard
def test_what_a_failed_sync_took_counts_again(tmp_path, monkeypatch):
    volumes = Volumes(tmp_path)
    volumes.hold(VOLUME, "co-1")
    commit(volumes)
    (volumes.data(VOLUME) / "file").write_text("1")

    def full(*_):
        raise errors.ResourceExhaustedError("full")

    with monkeypatch.context() as patch:
        patch.setattr("alight.node.volume_sync.few", full)
        with pytest.raises(errors.ResourceExhaustedError):
            commit(volumes)
    assert commit(volumes).files == 1
    volumes._changes.unwatch(VOLUME)


def test_a_mapped_file_is_found_by_its_time(tmp_path):
    mountinfo = (
        "36 35 98:0 /a/volumes/vo-1/data/sub /mnt/vol rw - ext4 /dev/x rw\n"
        "37 35 98:0 /etc /etc rw - ext4 /dev/x rw\n38 35 9:9 /volumes/vo-1/data /no rw - ext4 /dev/y rw\n"
    )
    places = tuple(volume_mappings.mount_points(mountinfo, "vo-1", os.makedev(98, 0)))
    assert places == ("/mnt/vol",)
    maps = (
        "7f00-7f01 rw-s 00000000 62:00 12 /mnt/vol/file with spaces\n"
        "7f01-7f02 r--s 00000000 62:00 12 /mnt/vol/read\n7f02-7f03 rw-p 00000000 62:00 12 /mnt/vol/private\n"
        "7f03-7f04 rw-s 00000000 62:00 12 /mnt/volume/other\n7f04-7f05 rw-p 00000000 00:00 0 \n"
    )
    assert list(volume_mappings.mapped(maps, places)) == ["7f00-7f01"]


def test_a_mapped_file_changes_its_time_when_a_page_is_written_to(disk_path):
    """What volume_mappings relies on, as this kernel does it."""
    path = disk_path / "file"
    path.write_bytes(b"x" * 4096)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
        mapped[0] = 1
        mapped.flush()
        at = volume_census.Clock(disk_path).after_now()
        assert path.stat().st_ctime_ns < at
        mapped[0] = 2
        assert path.stat().st_ctime_ns >= at


def test_which_volume_a_directory_belongs_to():
    prefix = "/h/volumes/"
    assert volume_of("/h/volumes/vo-1/data", prefix) == "vo-1"
    assert volume_of("/h/volumes/vo-1/data/a/b", prefix) == "vo-1"
    for path in (
        "/h/volumes/vo-1/staging/x",
        "/h/volumes/vo-1",
        "/h/volumes/vo-1/database",
        "/h",
        "/h/volumes2/a/data",
    ):
        assert volume_of(path, prefix) == ""


def test_who_holds_a_volume_keeps_it_and_a_deleted_one_never_comes_back(tmp_path):
    volumes = Volumes(tmp_path)
    (volumes.data(VOLUME) / "file").write_text("1")
    volumes.hold(VOLUME, "co-7", writes=False)
    with pytest.raises(errors.ConflictError, match="co-7"):
        asyncio.run(volumes._delete(VOLUME))
    volumes.release(VOLUME, "co-7", writes=False)
    asyncio.run(volumes._delete(VOLUME))
    assert not (tmp_path / "volumes" / VOLUME).exists()
    for again in (lambda: volumes.hold(VOLUME, "co-8"), lambda: volumes.mount(VOLUME, None)):
        with pytest.raises(errors.NotFoundError, match="was deleted"):
            again()
    with pytest.raises(errors.NotFoundError):
        Volumes(tmp_path).hold(VOLUME, "co-9")


def test_a_measure_is_what_is_there(volumes):
    data = volumes.data(VOLUME)
    (data / "a").mkdir()
    (data / "a/b").write_text("12345")
    found = asyncio.run(volumes.measure(VOLUME))
    assert (found.files, found.size) == (1, 5)
