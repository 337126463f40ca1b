"""Files to and from volumes as the SDK sends and fetches them, against the real code of the machine."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

import alight
from alight.node.volume_words import version_of
from alight.sdk import volume_fetch, volume_items, volume_upload
from alight.sdk.sync import run
from alight.wire import errors, stored
from alight.wire.transfers import LARGE, Begun
from tests.unit.sdk.volume_machine import VOLUME, Machine


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def machine(tmp_path_factory, far):
    made = Machine(tmp_path_factory.mktemp("node"), far)
    yield made
    made.close()


@pytest.fixture
def volume(far, client, machine):
    far.answers["volume.ensure"] = lambda asked: asked.answer(stored.VolumeInfo(VOLUME, "v", "main"))
    return alight.Volume.from_name("v", client=client)


def files(machine):
    return {
        path.relative_to(machine.data).as_posix(): path.read_bytes()
        for path in machine.data.rglob("*")
        if path.is_file()
    }


def test_all_files_are_in_one_stream_and_a_second_time_none_is_sent(volume, machine, far, tmp_path):
    for number in range(50):
        (tmp_path / f"{number % 5}").mkdir(exist_ok=True)
        (tmp_path / f"{number % 5}" / f"f{number}").write_bytes(str(number).encode() * 10)
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/many")
    assert len(files(machine)) == 50
    assert len(far.of("volume.upload")) == 1
    assert machine.bodies == sum(len(content) for content in files(machine).values())
    with volume.batch_upload(force=True) as batch:
        batch.put_directory(tmp_path, "/many")
    assert machine.bodies == sum(len(content) for content in files(machine).values()), "nothing more was sent"


def test_open_files_go_along_from_where_they_stand_with_their_mode(volume, machine):
    at_three = io.BytesIO(b"0123456")
    at_three.seek(3)
    read, write = os.pipe()
    os.write(write, b"from a pipe")
    os.close(write)
    with os.fdopen(read, "rb") as pipe, volume.batch_upload() as batch:
        batch.put_file(at_three, "three", mode=0o600)
        batch.put_file(pipe, "/pipe")
        batch.put_file(io.BytesIO(), "empty")
    assert files(machine) == {"three": b"3456", "pipe": b"from a pipe", "empty": b""}
    assert (machine.data / "three").stat().st_mode & 0o777 == 0o600


def test_the_last_file_for_a_path_is_the_one_that_is_meant(volume, machine):
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"first"), "/a//b")
        batch.put_file(io.BytesIO(b"second"), "a/./b")
    assert files(machine) == {"a/b": b"second"}


@pytest.mark.parametrize("doors", [True, False])
def test_a_large_file_comes_whole_by_a_door_and_without(volume, machine, tmp_path, monkeypatch, doors):
    if not doors:
        monkeypatch.setattr(volume_upload, "open_door", lambda door, flags: None)
        monkeypatch.setattr(volume_fetch, "open_door", lambda door, flags: None)
    content = os.urandom(3 * LARGE + 11)
    (tmp_path / "big").write_bytes(content)
    with volume.batch_upload() as batch:
        batch.put_file(tmp_path / "big", "big")
    assert files(machine) == {"big": content}
    assert machine.bodies == (0 if doors else len(content))
    assert b"".join(volume.read_file("big")) == content
    target = volume_fetch.Target(stored.VolumeFile("big", "file", len(content)), tmp_path / "here")
    assert run(volume_fetch.fetch(volume._client, VOLUME, [target])) == []
    assert (tmp_path / "here").read_bytes() == content
    assert sorted(os.listdir(tmp_path)) == ["big", "here"]


def test_a_large_file_comes_whole_where_the_kernel_does_not_copy(volume, machine, tmp_path, monkeypatch):
    def elsewhere(*_words):
        raise OSError(errno.EXDEV, "on another filesystem")

    monkeypatch.setattr(os, "copy_file_range", elsewhere)
    content = os.urandom(2 * LARGE + 11)
    (tmp_path / "big").write_bytes(content)
    with volume.batch_upload() as batch:
        batch.put_file(tmp_path / "big", "big")
    target = volume_fetch.Target(stored.VolumeFile("big", "file", len(content)), tmp_path / "here")
    assert run(volume_fetch.fetch(volume._client, VOLUME, [target])) == []
    assert (tmp_path / "here").read_bytes() == content
    assert machine.bodies == 0


def test_a_lost_connection_is_gone_on_from(volume, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_upload, "open_door", lambda door, flags: None)
    content = os.urandom(4 * LARGE)
    (tmp_path / "big").write_bytes(content)
    broken = []

    def breaks(asked, said):
        if said.get("parts") and machine.bodies >= 2 * LARGE and not broken:
            broken.append(1)
            machine.break_off(asked)

    machine.before_message = breaks
    with volume.batch_upload() as batch:
        batch.put_file(tmp_path / "big", "big")
    assert broken
    assert files(machine) == {"big": content}
    assert machine.bodies <= 5 * LARGE, "what had come was not sent again"


def test_an_answer_that_was_lost_is_asked_for_again(volume, machine, far):
    done = []

    def breaks(asked, said):
        if said.get("finish") and not done:
            done.append(1)
            upload = machine._under_way[id(asked)]
            upload.take_all([(b'{"finish":true}', b"")])
            machine.uploads._remember((VOLUME, asked.args["upload"]), upload.place())
            machine._under_way.pop(id(asked)).close(True)
            asked.break_off()

    def again(asked):
        known = machine.uploads._done.get((VOLUME, asked.args["upload"]))
        if known is not None:
            asked.answer(known)

    machine.before_message = breaks
    far.answers["volume.upload"] = again
    with volume.batch_upload() as batch:
        batch.put_file(io.BytesIO(b"once"), "f")
    assert files(machine) == {"f": b"once"}


def test_a_file_that_changes_while_it_is_sent_is_sent_once_more(volume, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_upload, "open_door", lambda door, flags: None)
    path = tmp_path / "f"
    path.write_bytes(b"before" * LARGE)

    def changes(asked, said):
        if said.get("offers") and len(machine.heads) <= 2:
            path.write_bytes(b"after!" * LARGE)

    machine.before_message = changes
    with volume.batch_upload() as batch:
        batch.put_file(path, "f")
    assert files(machine) == {"f": b"after!" * LARGE}


@pytest.mark.parametrize("doors", [True, False])
def test_a_file_that_never_holds_still_is_refused_and_nothing_appears(volume, machine, tmp_path, monkeypatch, doors):
    if not doors:
        monkeypatch.setattr(volume_upload, "open_door", lambda door, flags: None)
    path, other = tmp_path / "f", tmp_path / "other"
    path.write_bytes(b"a" * (2 * LARGE))
    other.write_bytes(b"other")

    def changes(asked, said):
        if said.get("offers"):
            path.write_bytes(os.urandom(2 * LARGE))

    machine.before_message = changes
    items = [volume_items.Item(one, one.name, None) for one in (other, path)]
    volume.hydrate()
    with pytest.raises(errors.InvalidError, match="changed while it was uploaded, twice"):
        run(volume_upload.upload(volume._client, VOLUME, items, force=False))
    assert files(machine) == {}


def test_a_file_that_becomes_shorter_or_goes_away(volume, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_upload, "open_door", lambda door, flags: None)
    path = tmp_path / "f"
    path.write_bytes(b"a" * 100)
    machine.before_message = lambda asked, said: said.get("offers") and path.write_bytes(b"short")
    with volume.batch_upload() as batch:
        batch.put_file(path, "f")
    assert files(machine) == {"f": b"short"}
    machine.before_message = lambda asked, said: None
    path.unlink()
    with pytest.raises(errors.InvalidError, match="cannot be read"):
        run(volume_upload.upload(volume._client, VOLUME, [volume_items.Item(path, "g", None)], force=False))


def test_pipes_devices_and_links_to_nowhere(volume, machine, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").write_bytes(b"real")
    (tmp_path / "nowhere").symlink_to("gone")
    (tmp_path / "round").symlink_to(tmp_path)
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "d")
        with pytest.raises(errors.InvalidError, match="not a regular file"):
            batch.put_file(tmp_path / "pipe", "pipe")
        with pytest.raises(errors.InvalidError, match="not a regular file"):
            batch.put_file("/dev/null", "null")
    assert files(machine) == {"d/link": b"real", "d/real": b"real"}


@pytest.mark.parametrize("path", ["../x", "a/../../b", "/", "", "a\0"])
def test_paths_that_lead_nowhere_are_refused_at_once(volume, path):
    with volume.batch_upload() as batch, pytest.raises(errors.InvalidError):
        batch.put_file(io.BytesIO(b"x"), path)


def test_names_that_are_no_text_come_and_go(volume, machine, tmp_path):
    odd = os.fsdecode(b"new\nline\xff")
    (tmp_path / odd).write_bytes(b"odd")
    with volume.batch_upload() as batch:
        batch.put_directory(tmp_path, "/")
    assert os.listdir(os.fsencode(machine.data)) == [b"new\nline\xff"]
    assert b"".join(volume.read_file(odd)) == b"odd"


def test_a_fetch_goes_on_where_a_lost_connection_left_it(volume, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_fetch, "open_door", lambda door, flags: None)
    content = os.urandom(6 * LARGE)
    (machine.data / "big").write_bytes(content)
    (machine.data / "small").write_bytes(b"small")
    broken, sent = [], [0]

    def breaks(asked, message):
        sent[0] += sum(count for _, count in message.parts)
        if sent[0] >= 3 * LARGE and not broken:
            broken.append(1)
            asked.break_off()

    machine.before_message = breaks
    version = version_of((machine.data / "big").stat())
    targets = [
        volume_fetch.Target(stored.VolumeFile("big", "file", len(content), 0, version), tmp_path / "big"),
        volume_fetch.Target(stored.VolumeFile("small", "file", 5), tmp_path / "small"),
    ]
    assert run(volume_fetch.fetch(volume._client, VOLUME, targets)) == []
    assert broken
    assert (tmp_path / "big").read_bytes() == content
    assert (tmp_path / "small").read_bytes() == b"small"
    assert sent[0] < 9 * LARGE
    assert sorted(os.listdir(tmp_path)) == ["big", "small"]


def test_two_fetches_to_one_place_do_not_mix(volume, machine, tmp_path, monkeypatch):
    monkeypatch.setattr(volume_fetch, "open_door", lambda door, flags: None)
    content = os.urandom(4 * LARGE)
    (machine.data / "big").write_bytes(content)
    found = stored.VolumeFile("big", "file", len(content), 0, version_of((machine.data / "big").stat()))
    second = []

    def at_once(asked, message):
        if message.parts and not second:
            second.append(volume_fetch.Target(found, tmp_path / "big"))
            volume_fetch._begin(second[0], Begun(0, len(content), 0, 0o644, found.version))

    machine.before_message = at_once
    assert run(volume_fetch.fetch(volume._client, VOLUME, [volume_fetch.Target(found, tmp_path / "big")])) == []
    assert (tmp_path / "big").read_bytes() == content
    volume_fetch._put_down(second[0], keep=False)
    assert os.listdir(tmp_path) == ["big"]


def test_what_cannot_be_fetched_is_told_and_the_rest_comes(volume, machine, tmp_path):
    (machine.data / "out").symlink_to("/etc/passwd")
    (machine.data / "ok").write_bytes(b"ok")
    targets = [
        volume_fetch.Target(stored.VolumeFile(name, "file", 1), tmp_path / name) for name in ("out", "gone", "ok")
    ]
    odd = run(volume_fetch.fetch(volume._client, VOLUME, targets))
    assert {one.file.path: bool(one.failed) for one in odd} == {"out": True, "gone": True}
    assert os.listdir(tmp_path) == ["ok"]


def test_an_upload_from_an_event_loop(volume, machine):
    import asyncio

    async def put():
        async with volume.batch_upload.aio() as batch:
            batch.put_file(io.BytesIO(b"x" * 100), "a")
        return [entry async for entry in volume.read_file.aio("a")]

    assert b"".join(asyncio.run(put())) == b"x" * 100


def test_network_file_systems_are_volumes(far, client, machine, tmp_path):
    far.answers["volume.ensure"] = lambda asked: asked.answer(stored.VolumeInfo(VOLUME, "v", "main"))
    with pytest.warns(alight.exception.DeprecationError, match="use a Volume"):
        old = alight.NetworkFileSystem.from_name("v", client=client)
    counted = []
    assert old.write_file("a/b", io.BytesIO(b"four"), progress_cb=lambda advance: counted.append(advance)) == 4
    assert sum(counted) == 4
    (tmp_path / "f").write_bytes(b"f")
    old.add_local_file(tmp_path / "f")
    old.add_local_dir(str(tmp_path), "d")
    assert files(machine) == {"a/b": b"four", "f": b"f", "d/f": b"f"}
    assert b"".join(old.read_file("a/b")) == b"four"


def test_paths_are_pathlib_too(volume, machine, tmp_path):
    (tmp_path / "f").write_bytes(b"f")
    with volume.batch_upload() as batch:
        batch.put_file(str(tmp_path / "f"), Path("x/f"))
    assert files(machine) == {"x/f": b"f"}
