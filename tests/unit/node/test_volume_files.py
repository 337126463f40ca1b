"""Files of volumes from outside of containers: listed, fetched, removed and copied, whatever a container lays there."""

from __future__ import annotations

import os

import pytest

from alight.node import paths, volume_files
from alight.node.volume_fetch import _Reading
from alight.node.volumes import Volumes
from alight.wire import errors
from alight.wire.codec import PIECE
from alight.wire.stored import VolumePath
from alight.wire.transfers import LARGE, Wanted, name_in, name_out

VOLUME = "vo-0000000000000000000001"


@pytest.fixture
def data(tmp_path):
    return Volumes(tmp_path).data(VOLUME)


def listed(data, path="/", *, recursive=False):
    root = paths.open_root(data)
    try:
        with volume_files.explained(path):
            return list(volume_files.list_files(root, VolumePath(VOLUME, path, recursive=recursive)))
    finally:
        os.close(root)


def fetched(data, *wanted, doors=False):
    """(contents by number, numbers that changed, failures by number)."""
    reading = _Reading(data)
    for one in wanted:
        reading.ask(one, doors=doors)
    contents, changed, failed = {}, [], {}
    while messages := reading.next_messages():
        for said, body in messages:
            at = 0
            for begun in said.begun:
                contents.setdefault(begun.number, b"")
            for number, count in said.parts:
                contents[number] += body[at : at + count]
                at += count
            assert at == len(body) <= PIECE
            changed += said.changed
            failed.update({one.number: one for one in said.failed})
    reading.close()
    return contents, changed, failed


def test_a_tree_is_listed_with_its_kinds_and_no_link_is_followed(data, tmp_path):
    (data / "d/deep").mkdir(parents=True)
    (data / "d/f").write_bytes(b"12")
    (data / "out").symlink_to("/etc")
    os.mkfifo(data / "pipe")
    found = {file.path: (file.kind, file.size) for file in listed(data, recursive=True)}
    assert found == {
        "d": ("directory", 0),
        "d/deep": ("directory", 0),
        "d/f": ("file", 2),
        "out": ("symlink", 0),
        "pipe": ("other", 0),
    }
    assert [file.path for file in listed(data)] == ["d", "out", "pipe"]
    with pytest.raises(errors.InvalidError, match="leads out"):
        listed(data, "out")
    with pytest.raises(errors.NotFoundError):
        listed(data, "nope")


def test_a_huge_directory_is_listed_without_a_limit(data, monkeypatch):
    monkeypatch.setattr(volume_files, "_SORTED", 10)
    for number in range(50):
        (data / f"f{number:02}").touch()
    names = [file.path for file in listed(data)]
    assert names[:10] == sorted(names[:10])
    assert sorted(names) == [f"f{number:02}" for number in range(50)]


def test_names_that_are_no_text_are_listed(data):
    odd = os.fsdecode(b"\xff\n")
    (data / odd).write_bytes(b"!")
    (found,) = listed(data)
    found.path.encode()
    assert name_in(found.path) == odd
    assert fetched(data, Wanted(found.path))[0] == {0: b"!"}


def test_many_small_files_and_pieces_of_large_ones_come_in_order(data):
    large = os.urandom(2 * PIECE + 17)
    (data / "large").write_bytes(large)
    (data / "empty").touch()
    for number in range(5):
        (data / str(number)).write_bytes(bytes([number]) * number)
    contents, changed, failed = fetched(data, Wanted("0"), Wanted("3"), Wanted("large"), Wanted("empty"), Wanted("4"))
    assert contents == {0: b"", 1: b"\3" * 3, 2: large, 3: b"", 4: b"\4" * 4}
    assert (changed, failed) == ([], {})


def test_a_fetch_goes_on_only_in_the_same_version(data):
    (data / "f").write_bytes(b"0123456789")
    version = listed(data)[0].version
    assert fetched(data, Wanted("f", 4, version))[0] == {0: b"456789"}
    assert fetched(data, Wanted("f", 4, "another"))[0] == {0: b"0123456789"}
    assert fetched(data, Wanted("f", 99, version))[0] == {0: b"0123456789"}


def test_a_file_that_changes_while_it_is_read_is_told(data):
    (data / "f").write_bytes(b"x" * (9 * PIECE))
    reading = _Reading(data)
    reading.ask(Wanted("f"), doors=False)
    reading.next_messages()
    with (data / "f").open("ab") as file:
        file.write(b"more")
    said = [head for _ in range(3) for head, _ in reading.next_messages()]
    assert said[-1].changed == (0,)
    reading.close()


def test_what_is_no_file_fails_alone(data):
    os.mkfifo(data / "pipe")
    (data / "out").symlink_to("/etc/passwd")
    (data / "d").mkdir()
    (data / "ok").write_bytes(b"ok")
    contents, _, failed = fetched(
        data, Wanted("pipe"), Wanted("out"), Wanted("d"), Wanted("gone"), Wanted("../x"), Wanted("ok")
    )
    assert contents == {5: b"ok"}
    assert set(failed) == {0, 1, 2, 3, 4}
    assert failed[3].missing
    assert not failed[0].missing
    assert "leads out" in failed[1].reason


def test_a_door_leads_to_the_file_and_stays_until_it_is_taken(data):
    (data / "big").write_bytes(b"b" * LARGE)
    reading = _Reading(data)
    reading.ask(Wanted("big"), doors=True)
    ((said, body),) = reading.next_messages()
    (door,) = said.doors
    with open(f"/proc/{door.process}/fd/{door.fd}", "rb") as file:
        assert os.fstat(file.fileno()).st_ino == door.inode
        assert len(file.read()) == LARGE
    assert body == b""
    assert reading.waits
    reading.taken.append(0)
    ((said, _),) = reading.next_messages()
    assert said.ended == (0,)
    reading.close()


def test_copies_share_nothing_and_leave_nothing_behind(data):
    (data / "a").write_bytes(b"a")
    root, staging = paths.open_root(data), paths.open_root(data.parent)
    try:
        volume_files._copy_all(root, staging, VolumePath(VOLUME, "b", sources=("a",)))
    finally:
        os.close(root)
        os.close(staging)
    assert (data / "b").read_bytes() == b"a"
    assert (data / "a").stat().st_ino != (data / "b").stat().st_ino
    assert sorted(os.listdir(data)) == ["a", "b"]
    assert not [name for name in os.listdir(data.parent) if name.startswith("loose-")]


def test_wire_names_are_those_of_the_kernel():
    assert name_out("plain/ä") == "plain/ä"
    assert name_out(os.fsdecode(b"\x80")) == "\x0080"
