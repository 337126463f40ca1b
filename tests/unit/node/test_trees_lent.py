"""Trees that are lent to a build step: links to what the machine keeps, laid out as safely as copies are."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from alight.node.trees import Trees
from alight.wire.errors import InvalidError
from alight.wire.spec import FileEntry, encode_tree


class Kept:
    """Blobs that are here."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {hashlib.sha256(one).hexdigest(): one for one in contents}

    async def read(self, digest):
        return self.contents[digest]

    async def fetch_to(self, digest, path, **_):
        path.write_bytes(self.contents[digest])

    async def fetch_small(self, digests, folder):
        for digest in digests:
            (folder / digest).write_bytes(self.contents[digest])
        return True


def lent(tmp_path, *entries, contents=(b"one", b"two")):
    manifest = encode_tree(list(entries))
    trees = Trees(tmp_path / "home", Kept(manifest, *contents))
    into = tmp_path / "into"
    into.mkdir()
    asyncio.run(trees.lend(hashlib.sha256(manifest).hexdigest(), into))
    return into


def entry(path, content=b"one", mode=0o644, **more):
    return FileEntry(path, mode, len(content), hashlib.sha256(content).hexdigest(), **more)


def test_the_files_are_there_with_their_modes_and_nothing_is_copied(tmp_path):
    into = lent(tmp_path, entry("a"), entry("b/c/d", b"two", 0o755), entry("b/e"), entry("b/f", mode=0o600))
    assert (into / "b/c/d").read_bytes() == b"two"
    assert (into / "b/c/d").stat().st_mode & 0o777 == 0o755
    assert (into / "b/f").stat().st_mode & 0o777 == 0o600
    assert (into / "a").stat().st_ino == (into / "b/e").stat().st_ino


def test_no_file_is_laid_through_a_link_of_the_tree(tmp_path):
    (tmp_path / "outside").mkdir()
    away = FileEntry("x", 0o777, link=str(tmp_path / "outside"))
    with pytest.raises(InvalidError, match="directory"):
        lent(tmp_path, away, entry("x/y"))
    assert not list((tmp_path / "outside").iterdir())
