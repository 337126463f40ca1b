"""Snapshots of volumes: they hold what was there whatever happens later, share no live file, and come back."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alight.node import paths, volume_entries, volume_plans, volume_restoring
from alight.node.volume_entries import Entry
from alight.node.volume_snapshots import Bounds, Snapshots
from alight.wire import errors
from alight.wire.snapshots import Snapshot, SnapshotAsked

VOLUME = "vo-1"


class Place:
    """A volume's directory with its snapshots."""

    def __init__(self, root, bounds=None):
        self.root = root
        self.data = root / VOLUME / "data"
        self.data.mkdir(parents=True)
        self.all = Snapshots(root, lambda _: self.data, bounds or Bounds(100.0, 0.0), lambda path: None)

    def take(self, **more) -> Snapshot:
        return self.all.take(SnapshotAsked(VOLUME, **more))

    def files(self, name):
        return self.all.files(VOLUME, name)

    def diff(self, snapshot, other=""):
        found = self.all.diff(SnapshotAsked(VOLUME, snapshot=snapshot, other=other))
        return [(one.kind, one.path) for one in found]

    def restore(self, name, start=".", *, exact=False):
        aside = self.root / VOLUME / "restoring"
        aside.mkdir()
        source, target = paths.open_root(self.files(name)), paths.open_root(self.data)
        try:
            wanted = self.all.index(VOLUME, self.all.find(VOLUME, name).name)
            return volume_restoring.restore(source, target, wanted, aside, start=start, exact=exact)
        finally:
            os.close(source)
            os.close(target)


@pytest.fixture(params=["ext4", "xfs", "btrfs"])
def place(request, tmp_path):
    """On the machine's own filesystem, and on ones that can share blocks."""
    if request.param == "ext4":
        yield Place(tmp_path)
        return
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    make = {"xfs": ["mkfs.xfs", "-q"], "btrfs": ["mkfs.btrfs", "-q"]}[request.param]
    if os.geteuid() != 0 or shutil.which(make[0]) is None:
        pytest.skip(f"{make[0]} is not there, or we may not mount")
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    subprocess.run([*make, image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not mount {request.param}")
    try:
        yield Place(mounted)
    finally:
        subprocess.run(["umount", mounted], check=True)


def fill(data):
    (data / "a/b").mkdir(parents=True)
    (data / "a/one").write_bytes(b"one" * 1000)
    (data / "a/b/two").write_text("two")
    os.link(data / "a/one", data / "a/same")
    (data / "link").symlink_to("a/b/../one")
    (data / os.fsdecode(b"raw\xff\n")).write_text("name")
    with (data / "sparse").open("wb") as file:
        file.seek(8 << 20)
        file.write(b"end")
    os.chown(data / "a/b/two", 1234, 77)
    (data / "a/b/two").chmod(0o4750)
    os.setxattr(data / "a/b/two", "user.note", b"x")
    (data / "a").chmod(0o2770)
    os.utime(data / "a/b/two", ns=(1_000_000_007, 1_000_000_007))
    os.mkfifo(data / "pipe")


def test_a_snapshot_has_all_of_a_file_and_restores_it(place):
    fill(place.data)
    made = place.take(label="before")
    assert (made.name, made.left_out, made.unsteady) == ("s1", 1, 0)
    there = place.files("before")
    two = (there / "a/b/two").stat()
    assert (stat.S_IMODE(two.st_mode), two.st_uid, two.st_gid, two.st_mtime_ns) == (0o4750, 1234, 77, 1_000_000_007)
    assert os.getxattr(there / "a/b/two", "user.note") == b"x"
    assert stat.S_IMODE((there / "a").stat().st_mode) == 0o2770
    assert (there / "a/one").stat().st_ino == (there / "a/same").stat().st_ino
    assert os.readlink(there / "link") == "a/b/../one"
    assert (there / "sparse").stat().st_size == (8 << 20) + 3
    assert (there / "sparse").stat().st_blocks * 512 < 1 << 20
    shutil.rmtree(place.data / "a")
    (place.data / "link").unlink()
    (place.data / "sparse").write_text("other")
    (place.data / "new").write_text("stays")
    restored = place.restore("s1")
    assert restored.files == 5
    assert (place.data / "a/one").read_bytes() == b"one" * 1000
    assert (place.data / "a/one").stat().st_ino == (place.data / "a/same").stat().st_ino
    two = (place.data / "a/b/two").stat()
    assert (stat.S_IMODE(two.st_mode), two.st_uid, two.st_mtime_ns) == (0o4750, 1234, 1_000_000_007)
    assert (place.data / "new").read_text() == "stays"
    assert place.diff("s1") == [("added", "new")]


def test_no_file_of_a_snapshot_is_a_live_one_and_unchanged_ones_are_copied_once(place):
    (place.data / "same").write_bytes(os.urandom(100_000))
    (place.data / "other").write_text("1")
    first = place.take()
    (place.data / "other").write_text("2")
    second = place.take()
    if first.how == "copy":
        assert (first.copied, second.copied) == (100_001, 1)
    else:
        assert (first.copied, second.copied) == (0, 0)
    one, two = place.files("s1") / "same", place.files("s2") / "same"
    assert one.stat().st_ino == two.stat().st_ino
    assert one.stat().st_ino != (place.data / "same").stat().st_ino
    with (place.data / "same").open("r+b") as file:
        file.write(b"overwritten in place")
    assert one.read_bytes()[:20] != b"overwritten in place"
    assert (place.files("s1") / "other").read_text() == "1"


def test_whether_blocks_are_shared_is_said(place, request):
    cloned = request.node.callspec.params["place"] != "ext4"
    (place.data / "x").write_text("1")
    assert place.all.clones(VOLUME) == cloned or not cloned
    assert place.take().how == ("reflink" if place.all.clones(VOLUME) else "copy")
    if cloned:
        assert place.all.clones(VOLUME)


def test_differences(place):
    for name in ("same", "changed", "gone", "mode", "touched", "kind"):
        (place.data / name).write_text(name)
    place.take()
    (place.data / "changed").write_text("changed!")
    (place.data / "gone").unlink()
    (place.data / "mode").chmod(0o600)
    (place.data / "kind").unlink()
    (place.data / "kind").mkdir()
    before = (place.data / "touched").stat()
    (place.data / "touched").write_text("TOUCHED")
    os.utime(place.data / "touched", ns=(before.st_mtime_ns, before.st_mtime_ns))
    (place.data / "new").write_text("")
    place.take()
    expected = [
        ("changed", "changed"),
        ("removed", "gone"),
        ("type", "kind"),
        ("mode", "mode"),
        ("added", "new"),
        ("changed", "touched"),
    ]
    assert place.diff("s1") == expected
    assert place.diff("s1", "s2") == expected
    assert place.diff("s2") == []


def test_a_restore_replaces_files_and_open_ones_keep_the_old(tmp_path):
    place = Place(tmp_path)
    (place.data / "file").write_text("old")
    place.take()
    (place.data / "file").write_text("new")
    with (place.data / "file").open() as file:
        place.restore("s1")
        assert file.read() == "new"
    assert (place.data / "file").read_text() == "old"


def test_a_restore_of_one_path_and_an_exact_one(tmp_path):
    place = Place(tmp_path)
    for name in ("a/x", "b/x"):
        (place.data / name).parent.mkdir(exist_ok=True)
        (place.data / name).write_text("1")
    place.take()
    for name in ("a/x", "b/x", "a/more"):
        (place.data / name).write_text("2")
    assert place.restore("s1", "a").files == 1
    assert [(place.data / name).read_text() for name in ("a/x", "b/x", "a/more")] == ["1", "2", "2"]
    assert place.restore("s1", "a", exact=True).removed == 1
    assert not (place.data / "a/more").exists()
    assert (place.data / "b/x").read_text() == "2"
    with pytest.raises(errors.NotFoundError, match="has no 'c'"):
        place.restore("s1", "c")


def test_what_stands_in_the_way_of_a_restore(tmp_path):
    place = Place(tmp_path)
    (place.data / "dir").mkdir()
    (place.data / "dir/file").write_text("inside")
    (place.data / "file").write_text("file")
    place.take()
    shutil.rmtree(place.data / "dir")
    outside = tmp_path / "outside"
    outside.mkdir()
    (place.data / "dir").symlink_to(outside)
    (place.data / "file").unlink()
    (place.data / "file/full").mkdir(parents=True)
    place.restore("s1")
    assert (place.data / "dir/file").read_text() == "inside"
    assert not (place.data / "dir").is_symlink()
    assert (place.data / "file").read_text() == "file"
    assert list(outside.iterdir()) == [], "a restore never leaves the volume"


def test_a_file_that_changes_while_it_is_copied_is_copied_again_and_said(tmp_path, monkeypatch):
    place = Place(tmp_path)
    path = place.data / "busy"
    path.write_text("0")
    original, count = volume_entries.copy_file, [0]

    def disturbed(source, target, *, clone):
        done = original(source, target, clone=clone)
        if count[0] < limit:
            count[0] += 1
            path.write_text(f"{count[0]}")
        return done

    monkeypatch.setattr(volume_entries, "copy_file", disturbed)
    limit = 1
    made = place.take()
    assert made.unsteady == 0
    assert (place.files("s1") / "busy").read_text() == "1"
    limit = 100
    assert place.take().unsteady == 1


def test_a_full_disk_leaves_no_half_snapshot(tmp_path, monkeypatch):
    place = Place(tmp_path)
    (place.data / "file").write_text("1")

    def full(source, target, *, clone):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(volume_entries, "copy_file", full)
        with pytest.raises(errors.ResourceExhaustedError, match="full"):
            place.take()
    assert place.all.all(VOLUME) == []
    assert list((tmp_path / ".snapshots" / VOLUME).iterdir()) == []
    assert place.take().name == "s1"


def test_what_a_killed_agent_left_is_swept(tmp_path):
    place = Place(tmp_path)
    (place.data / "file").write_text("1")
    place.take()
    half = tmp_path / ".snapshots" / VOLUME / ".new-123" / "data"
    half.mkdir(parents=True)
    place.all.sweep()
    assert not half.exists()
    assert [one.name for one in place.all.all(VOLUME)] == ["s1"]


def test_names_labels_and_removal(tmp_path):
    place = Place(tmp_path)
    (place.data / "file").write_text("1")
    place.take(label="v1.0")
    with pytest.raises(errors.AlreadyExistsError):
        place.take(label="v1.0")
    for bad in ("s3", "../x", "a b", "-x"):
        with pytest.raises(errors.InvalidError):
            place.take(label=bad)
    place.take()
    place.all.remove(VOLUME, "v1.0")
    assert [one.name for one in place.all.all(VOLUME)] == ["s2"]
    assert (place.files("s2") / "file").read_text() == "1", "what two share stays with the other"
    with pytest.raises(errors.NotFoundError, match="no snapshot 's1'") as caught:
        place.all.find(VOLUME, "s1")
    assert "s2" in str(caught.value.hint)


def test_copies_are_bounded(tmp_path):
    place = Place(tmp_path, Bounds(1.5, 0.0))
    (place.data / "file").write_bytes(os.urandom(1 << 20))
    place.take()
    place.take()  # copies nothing
    (place.data / "file").write_bytes(os.urandom(1 << 20))
    with pytest.raises(errors.ResourceExhaustedError, match=r"1\.5 times") as caught:
        place.take()
    assert "ALIGHT_SNAPSHOTS_SHARE" in str(caught.value.hint)
    full = volume_plans.Room(copies=10, kept=0, volume=10, free=15, disk=100)
    assert "10%" in volume_plans.refusal(full, 3.0, 0.1)


@given(
    ages=st.lists(st.floats(0, 100 * 3600), max_size=60),
    labelled=st.sets(st.integers(0, 59)),
    by_hand=st.sets(st.integers(0, 59)),
)
@settings(deadline=None)
def test_which_automatic_snapshots_stay(ages, labelled, by_hand):
    now = 1_000_000_000.0
    have = [
        Snapshot(f"s{number + 1}", "kept" * (number in labelled), now - age, automatic=number not in by_hand)
        for number, age in enumerate(ages)
    ]
    gone = set(volume_plans.outdated(have, now))
    automatic = [one for one in have if one.automatic and not one.label]
    assert gone <= {one.name for one in automatic}
    newest = sorted(automatic, key=lambda one: -one.at)[: volume_plans.COMMITS_KEPT]
    assert not gone & {one.name for one in newest}
    assert len(automatic) - len(gone) <= volume_plans.COMMITS_KEPT + volume_plans.HOURS_KEPT + 1
    hours = {int(one.at // 3600) for one in automatic if now - one.at < 24 * 3600}
    assert hours <= {int(one.at // 3600) for one in automatic if one.name not in gone}


def test_background_commits_make_a_snapshot_an_hour_and_slow_ones_less():
    have = [Snapshot("s1", at=1000.0, automatic=True)]
    assert volume_plans.due(have, "commit", 1001.0, 0.01)
    assert not volume_plans.due(have, "background", 1001.0, 0.01)
    assert volume_plans.due(have, "background", 1000.0 + 3600, 0.01)
    assert not volume_plans.due(have, "commit", 1010.0, 1.0)


def test_a_time_that_was_set_back_hides_no_change():
    one = Entry("x", "file", 1, 10, 5, 100, 0o644, 0, 0)
    assert volume_plans.unchanged(one, one)
    assert not volume_plans.unchanged(Entry("x", "file", 1, 10, 5, 101, 0o644, 0, 0), one)
    assert not volume_plans.unchanged(volume_plans.steady(one, 100), volume_plans.steady(one, 100))
