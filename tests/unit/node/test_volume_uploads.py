"""Uploads into volumes: all files or none, whatever breaks; nothing is sent twice; nothing leads out of the volume."""

from __future__ import annotations

import errno
import hashlib
import os
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.node import volume_placing
from alight.node.volume_uploads import Uploads
from alight.node.volumes import Volumes
from alight.wire import errors
from alight.wire.stored import VolumePath
from alight.wire.transfers import LARGE, Offer, UploadSay, name_in, name_out

VOLUME = "vo-0000000000000000000001"


class Place:
    """A volume with its uploads."""

    def __init__(self, tmp_path):
        self.volumes = Volumes(tmp_path)
        self.data = self.volumes.data(VOLUME)
        self.staging = self.volumes.staging(VOLUME)
        self.uploads = Uploads(self.volumes.data, self.volumes.staging)

    def begin(self, *, force=False):
        return self.uploads._begin(VolumePath(VOLUME, force=force))

    def put(self, files, *, force=False, check=True):
        """All of it, as a client does."""
        upload = self.begin(force=force)
        placed = False
        try:
            if check and not force:
                say(upload, check=tuple(name_out(path) for path in files))
            need = say(upload, offers=tuple(offer(path, content) for path, content in files.items()))[0]
            wanted = []
            for (path, content), number, offset in zip(files.items(), range(len(files)), need.offsets):
                if offset >= 0:
                    wanted.append(path)
                    say(upload, content[offset:], parts=((number, len(content) - offset),))
            finish(upload)
            result = upload.place()
            placed = True
        finally:
            upload.close(placed)
        return result, wanted

    def files(self):
        return {str(path.relative_to(self.data)): path.read_bytes() for path in self.data.rglob("*") if path.is_file()}

    def rests(self):
        """What lies in staging, but for what is kept for another try."""
        return [path for path in self.staging.iterdir() if path.name != "parts"]


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def offer(path, content, mode=0o644):
    return Offer(name_out(path), len(content), hashlib.sha256(content).hexdigest(), mode)


def say(upload, body=b"", **words):
    answers, _ = upload.take_all([(msgspec.json.encode(UploadSay(**words)), body)])
    return answers


def finish(upload):
    answers, finished = upload.take_all([(msgspec.json.encode(UploadSay(finish=True)), b"")])
    assert finished == (not answers)
    return answers[0].wrong if answers else ()


def test_files_appear_together_with_their_modes(place):
    upload = place.begin()
    say(upload, offers=(offer("a/b/c", b"one"), offer("d", b"", 0o755)))
    say(upload, b"one", parts=((0, 3),))
    assert place.files() == {}
    finish(upload)
    assert upload.place().files == 2
    upload.close(True)
    assert place.files() == {"a/b/c": b"one", "d": b""}
    assert (place.data / "d").stat().st_mode & 0o777 == 0o755
    assert place.rests() == []


def test_what_the_volume_has_is_not_asked_for(place):
    place.put({"same": b"s" * 100, "other": b"o" * 100})
    old = time.time() - 100
    os.utime(place.data / "same", (old, old))
    result, wanted = place.put({"same": b"s" * 100, "other": b"O" * 100}, force=True)
    assert wanted == ["other"]
    assert (result.files, result.came) == (2, 1)
    assert place.files() == {"same": b"s" * 100, "other": b"O" * 100}
    assert (place.data / "same").stat().st_mtime == old, "it was not written again"


def test_an_existing_file_is_refused_before_anything_is_offered(place):
    place.put({"b": b"old"})
    upload = place.begin()
    with pytest.raises(errors.AlreadyExistsError, match="'b'"):
        say(upload, check=("a", "b"))
    upload.close(False)
    assert place.files() == {"b": b"old"}


def test_one_that_is_made_meanwhile_undoes_all_of_it(place):
    upload = place.begin()
    say(upload, check=("new/x", "z"))
    say(upload, offers=(offer("new/x", b"x"), offer("z", b"z")))
    say(upload, b"xz", parts=((0, 1), (1, 1)))
    (place.data / "z").write_bytes(b"theirs")
    finish(upload)
    with pytest.raises(errors.AlreadyExistsError, match="meanwhile"):
        upload.place()
    upload.close(False)
    assert place.files() == {"z": b"theirs"}
    assert not (place.data / "new").exists()


def test_files_that_were_replaced_are_put_back_when_a_later_one_cannot_be_placed(place):
    place.put({"a": b"old a", "b": b"old b"})
    upload = place.begin(force=True)
    say(upload, offers=(offer("a", b"new a"), offer("b", b"new b"), offer("c", b"new c")))
    say(upload, b"new anew bnew c", parts=((0, 5), (1, 5), (2, 5)))
    (place.data / "c").mkdir()
    (place.data / "c" / "inside").write_bytes(b"!")
    finish(upload)
    with pytest.raises(errors.AlreadyExistsError, match="is a directory"):
        upload.place()
    upload.close(False)
    assert place.files() == {"a": b"old a", "b": b"old b", "c/inside": b"!"}


def test_a_broken_upload_goes_on_where_it_was(place):
    content = os.urandom(3_000_000)
    upload = place.begin()
    say(upload, offers=(offer("small", b"s"), offer("big", content)))
    say(upload, b"s" + content[:1_000_000], parts=((0, 1), (1, 1_000_000)))
    upload.close(False)
    assert place.files() == {}
    assert place.rests() == []
    again = place.begin()
    need = say(again, offers=(offer("small", b"s"), offer("big", content)))[0]
    assert need.offsets == (-1, 1_000_000)
    say(again, content[1_000_000:], parts=((1, 2_000_000),))
    assert finish(again) == ()
    again.place()
    again.close(True)
    assert place.files() == {"small": b"s", "big": content}
    assert os.listdir(place.staging / "parts") == []


def test_what_was_kept_and_is_spoilt_is_sent_again(place):
    content = os.urandom(1000)
    parts = place.staging / "parts"
    parts.mkdir()
    (parts / hashlib.sha256(content).hexdigest()).write_bytes(b"!" * 1000)
    _, wanted = place.put({"f": content})
    assert wanted == ["f"]
    (parts / hashlib.sha256(content[::-1]).hexdigest()).write_bytes(b"!" * 400)
    upload = place.begin()
    assert say(upload, offers=(offer("g", content[::-1]),))[0].offsets == (400,)
    say(upload, content[::-1][400:], parts=((0, 600),))
    assert finish(upload) == (0,), "the whole does not have its digest"
    upload.close(False)


def test_parts_are_swept_after_a_day(place):
    upload = place.begin()
    say(upload, offers=(offer("f", b"content"),))
    say(upload, b"con", parts=((0, 3),))
    upload.close(False)
    (kept,) = (place.staging / "parts").iterdir()
    place.begin().close(False)
    assert kept.exists()
    os.utime(kept, (time.time() - 90_000,) * 2)
    place.begin().close(False)
    assert not kept.exists()


def test_bytes_that_are_not_those_of_the_digest_are_told_and_may_come_again(place):
    upload = place.begin()
    say(upload, offers=(offer("f", b"right"), offer("g", b"g")))
    say(upload, b"wrong" + b"g", parts=((0, 5), (1, 1)))
    assert finish(upload) == (0,)
    say(upload, offers=(offer("f", b"newer"),))
    say(upload, b"newer", parts=((2, 5),))
    assert finish(upload) == ()
    upload.place()
    upload.close(True)
    assert place.files() == {"f": b"newer", "g": b"g"}


def test_a_file_that_the_client_dropped_is_offered_again(place):
    upload = place.begin()
    say(upload, offers=(offer("f", b"0123456789"),))
    say(upload, b"0123", parts=((0, 4),))
    say(upload, dropped=(0,))
    say(upload, b"late", parts=((0, 4),))
    assert finish(upload) == (0,)
    upload.close(False)


def test_of_two_uploads_of_one_path_the_last_to_finish_wins_whole(place):
    first, second = place.begin(force=True), place.begin(force=True)
    one, two = os.urandom(100_000), os.urandom(100_000)
    say(first, offers=(offer("f", one),))
    say(second, offers=(offer("f", two),))
    for start in range(0, 100_000, 25_000):
        say(first, one[start : start + 25_000], parts=((0, 25_000),))
        say(second, two[start : start + 25_000], parts=((0, 25_000),))
    for upload in (second, first):
        finish(upload)
        upload.place()
        upload.close(True)
    assert place.files() == {"f": one}


def test_two_uploads_of_the_same_content_do_not_share_a_staged_file(place):
    content = b"c" * 1000
    first, second = place.begin(), place.begin()
    say(first, offers=(offer("a", content),))
    say(second, offers=(offer("b", content),))
    for upload in (first, second):
        say(upload, content, parts=((0, 1000),))
        finish(upload)
        upload.place()
        upload.close(True)
    assert (place.data / "a").stat().st_ino != (place.data / "b").stat().st_ino


@pytest.mark.parametrize("path", ["../x", "a/../../x", "", "/", ".", "a\0b", "x" * 5000])
def test_paths_that_lead_out_or_nowhere(place, path):
    upload = place.begin()
    with pytest.raises(errors.InvalidError):
        say(upload, offers=(Offer(path, 1, "0" * 64),))
    upload.close(False)


@pytest.mark.parametrize("path", ["out/x", "up/x", "deep/out/x"])
def test_links_that_lead_out_of_the_volume_are_refused(place, tmp_path, path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.data / "out").symlink_to(outside)
    (place.data / "up").symlink_to("..")
    (place.data / "deep").mkdir()
    (place.data / "deep/out").symlink_to("/")
    upload = place.begin(force=True)
    with pytest.raises(errors.InvalidError, match="leads out"):
        say(upload, offers=(offer(path, b"!"),))
    upload.close(False)
    assert list(outside.iterdir()) == []


def test_a_directory_that_becomes_a_link_while_files_come(place, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.data / "d").mkdir()
    upload = place.begin()
    say(upload, offers=(offer("d/x", b"!"),))
    say(upload, b"!", parts=((0, 1),))
    (place.data / "d").rmdir()
    (place.data / "d").symlink_to(outside)
    finish(upload)
    with pytest.raises(errors.InvalidError, match="leads out"):
        upload.place()
    upload.close(False)
    assert list(outside.iterdir()) == []


def test_a_link_at_the_path_itself_is_replaced_and_not_followed(place, tmp_path):
    (tmp_path / "outside").write_bytes(b"safe")
    (place.data / "f").symlink_to(tmp_path / "outside")
    place.put({"f": b"mine"}, force=True)
    assert (tmp_path / "outside").read_bytes() == b"safe"
    assert not (place.data / "f").is_symlink()


def test_a_parent_that_is_a_file_is_said_before_anything_is_sent(place):
    place.put({"f": b"file"})
    upload = place.begin()
    with pytest.raises(errors.InvalidError, match="not a directory"):
        say(upload, check=("f/below",))
    upload.close(False)


def test_names_that_are_no_text_arrive_as_they_are(place):
    odd = os.fsdecode(b"new\nline \xff\xfe")
    place.put({odd: b"odd", "l" * 255: b"long"})
    assert sorted(os.listdir(os.fsencode(place.data))) == [b"l" * 255, b"new\nline \xff\xfe"]
    upload = place.begin()
    with pytest.raises(errors.ServiceError, match="name too long"):
        say(upload, offers=(offer("l" * 256, b""),))
    upload.close(False)


def test_a_volume_that_is_deleted_meanwhile(place):
    upload = place.begin()
    say(upload, offers=(offer("f", b"f"),))
    say(upload, b"f", parts=((0, 1),))
    place.data.parent.rename(place.data.parent.with_name(".deleted"))
    finish(upload)
    with pytest.raises(errors.NotFoundError, match="was deleted"):
        upload.place()
    upload.close(False)


def test_a_full_disk_gives_back_what_it_took(place, monkeypatch):
    upload = place.begin()
    say(upload, offers=(offer("a", b"a"), offer("big", b"b" * LARGE)))
    say(upload, b"a", parts=((0, 1),))

    def full(fd, size):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("alight.node.volume_upload.allocate", full)
    with pytest.raises(errors.ResourceExhaustedError, match="full"):
        say(upload, b"b" * 10, parts=((1, 10),))
    upload.close(False)
    assert place.rests() == []
    assert list((place.staging / "parts").iterdir()) == []
    assert place.files() == {}


def test_a_killed_node_finishes_what_was_sealed_and_keeps_the_rest(place):
    place.put({"b": b"old b"})
    sealed = place.begin(force=True)
    say(sealed, offers=(offer("a", b"new a"), offer("b", b"new b"), offer("c/d", b"new d")))
    say(sealed, b"new anew bnew d", parts=((0, 5), (1, 5), (2, 5)))
    finish(sealed)
    sealed._plan.seal()
    placing = volume_placing.Placing(sealed._root, sealed._folder, force=True)
    lines = list(sealed._plan.lines())
    placing.place(lines[0])
    placing.place(lines[1])  # killed here: of three two have their names
    unfinished = place.begin()
    say(unfinished, offers=(offer("e", b"half"),))
    say(unfinished, b"ha", parts=((0, 2),))
    (place.staging / "loose-1").write_bytes(b"of a copy")
    unfinished._plan.close()

    Volumes(place.volumes._root.parent).sweep()
    assert place.files() == {"a": b"new a", "b": b"new b", "c/d": b"new d"}
    assert place.rests() == []
    again = place.begin()
    assert say(again, offers=(offer("e", b"half"),))[0].offsets == (2,)
    again.close(False)


def test_a_client_cannot_fill_the_memory_with_offers(place):
    upload = place.begin()
    page = tuple(offer(str(number), b"x") for number in range(1000))
    for _ in range(4):
        say(upload, offers=page)
    with pytest.raises(errors.InvalidError, match="in pages"):
        say(upload, offers=page)
    upload.close(False)


def test_more_bytes_than_offered_are_refused(place):
    upload = place.begin()
    say(upload, offers=(offer("f", b"12"),))
    with pytest.raises(errors.InvalidError, match="more bytes"):
        say(upload, b"123", parts=((0, 3),))
    upload.close(False)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=40).filter(lambda name: b"\0" not in name))
def test_every_name_survives_the_wire(name):
    path = os.fsdecode(name)
    there = name_out(path)
    there.encode()  # it is text
    assert name_in(there) == path
    assert os.fsencode(name_in(there)) == name


@settings(max_examples=60, deadline=None)
@given(
    before=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2"])),
    new=st.dictionaries(st.sampled_from("abcd"), st.sampled_from([b"1", b"2", b"33"]), min_size=1),
    blocked=st.sampled_from(["", "a", "b", "c", "d"]),
)
def test_any_upload_is_all_or_nothing(tmp_path_factory, before, new, blocked):
    place = Place(tmp_path_factory.mktemp("v"))
    for path, content in before.items():
        (place.data / path).write_bytes(content)
    upload = place.begin(force=True)
    need = say(upload, offers=tuple(offer(path, content) for path, content in new.items()))[0]
    for number, (content, offset) in enumerate(zip(new.values(), need.offsets)):
        if offset >= 0:
            say(upload, content, parts=((number, len(content)),))
    if blocked:
        (place.data / blocked).unlink(missing_ok=True)
        (place.data / blocked).mkdir()
        before.pop(blocked, None)
    finish(upload)
    try:
        upload.place()
    except errors.AlreadyExistsError:
        assert blocked in new
        assert place.files() == before
    else:
        assert {path: content for path, content in place.files().items() if path != blocked} == {
            path: content for path, content in {**before, **new}.items() if path != blocked
        }
    finally:
        upload.close(False)
