"""Names of steps, and trees of files that cannot reach outside their directory."""

from __future__ import annotations

import io
import os

import pytest

from alight.builder import digest
from alight.wire.errors import InvalidError
from alight.wire.spec import FileEntry, digest_of, encode_tree

BLOBS = {digest_of(content): content for content in (b"one", b"two")}
ONE, TWO = BLOBS


def open_blob(name):
    return io.BytesIO(BLOBS[name])


def test_a_name_depends_on_what_and_on_all_below():
    what = {"op": "run", "command": "true"}
    key = digest.step_key(digest.ROOT, what)
    assert key == digest.step_key(digest.ROOT, dict(reversed(what.items())))
    assert key != digest.step_key(key, what)
    assert key != digest.step_key(digest.ROOT, {**what, "command": "false"})


def test_a_tree_is_laid_as_its_manifest_says(tmp_path):
    entries = [
        FileEntry("a/b.txt", mode=0o640, size=3, digest=ONE),
        FileEntry("run", mode=0o4755, size=3, digest=TWO),
        FileEntry("empty", mode=0o755, directory=True),
        FileEntry("to", link="/etc/passwd"),
    ]
    digest.lay_tree(digest.decode_tree(encode_tree(entries)), tmp_path, open_blob)
    assert (tmp_path / "a/b.txt").read_bytes() == b"one"
    assert (tmp_path / "a/b.txt").stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "run").stat().st_mode & 0o7777 == 0o755  # no setuid by way of a manifest
    assert (tmp_path / "empty").is_dir()
    assert os.readlink(tmp_path / "to") == "/etc/passwd"


@pytest.mark.parametrize("path", ["../out", "/out", "a/../../out", "", "a//b", "./a", "a/.", "nul\0"])
def test_a_path_that_leads_out_is_refused(tmp_path, path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(InvalidError):
        digest.lay_tree([FileEntry(path, digest=ONE, size=3)], inside, open_blob)
    assert not list(inside.iterdir())
    assert list(tmp_path.iterdir()) == [inside]


def test_a_file_below_a_link_is_refused(tmp_path):
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (inside / "door").symlink_to(outside)
    with pytest.raises(InvalidError):
        digest.lay_tree([FileEntry("door/x", digest=ONE, size=3)], inside, open_blob)
    assert not list(outside.iterdir())


def test_a_link_in_the_tree_cannot_carry_a_file_of_the_tree_out(tmp_path):
    entries = [FileEntry("door", link=str(tmp_path)), FileEntry("door/x", digest=ONE, size=3)]
    inside = tmp_path / "inside"
    inside.mkdir()
    with pytest.raises(InvalidError):
        digest.lay_tree(entries, inside, open_blob)
    assert not (tmp_path / "x").exists()


def test_content_that_is_not_what_the_manifest_says_is_refused(tmp_path):
    with pytest.raises(InvalidError, match=r"a\.txt"):
        digest.lay_tree([FileEntry("a.txt", digest=ONE, size=3)], tmp_path, lambda _: io.BytesIO(b"other"))


@pytest.mark.parametrize("manifest", [b"", b"{}x", b'[{"unknown": 1}]', b"[1]"])
def test_what_is_no_manifest_is_refused(manifest):
    with pytest.raises(InvalidError):
        digest.decode_tree(manifest)
