"""Layers from the world: what is laid as the archive says, and what an archive cannot do."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import tarfile
import zlib
from pathlib import Path

import pytest

from alight.builder.registry import unpack
from tests.unit.builder.archives import entry, folder, link, sha, tar

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="unpacking changes its root directory, which needs root")


@pytest.fixture
def lay(tmp_path):
    """Lay an archive as the builder does: by the program of its own. Returns what it reports."""
    (tmp_path / "layer").mkdir()

    def lay(archive: bytes, reserve: int = 0) -> dict:
        file = tmp_path / "archive"
        file.write_bytes(archive)
        argv = [sys.executable, "-I", unpack.__file__, str(file), str(tmp_path / "layer"), str(reserve)]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        assert not done.stderr
        return json.loads(done.stdout)

    return lay


@pytest.fixture
def layer(tmp_path) -> Path:
    return tmp_path / "layer"


def test_files_arrive_as_they_were_packed(lay, layer):
    long = "/".join(["directory-with-a-long-name"] * 12) + "/file"
    plain = tar(
        folder("./", mode=0o750),
        folder("bin"),
        entry("bin/su", b"program", mode=0o4755, uid=0, gid=7),
        link("bin/sh", "/bin/su", uid=5),
        entry("bin/hard", type=tarfile.LNKTYPE, linkname="bin/su"),
        entry(long, b"far"),
        entry("schöne Datei", b"x" * 3_000_000, mtime=1_500_000_000.25),
        entry("pipe", type=tarfile.FIFOTYPE),
        folder("tmp", mode=0o1777, mtime=1_400_000_000),
        entry("tmp/late", b""),
    )
    report = lay(gzip.compress(plain))
    assert "error" not in report
    assert (report["diff_id"], report["entries"], report["opaque"]) == (sha(plain), 10, False)
    su = (layer / "bin/su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid, su.st_nlink) == (0o4755, 0, 7, 2)
    assert (layer / "bin/hard").stat().st_ino == su.st_ino
    assert os.readlink(layer / "bin/sh") == "/bin/su"
    assert (layer / "bin/sh").lstat().st_uid == 5
    assert (layer / long).read_bytes() == b"far"
    assert (layer / "schöne Datei").stat().st_mtime == 1_500_000_000.25
    assert (layer / "schöne Datei").stat().st_size == 3_000_000
    assert stat.S_ISFIFO((layer / "pipe").stat().st_mode)
    assert (stat.S_IMODE((layer / "tmp").stat().st_mode), (layer / "tmp").stat().st_mtime) == (0o1777, 1_400_000_000)
    assert stat.S_IMODE(layer.stat().st_mode) == 0o750


def test_gnu_archives_with_long_names_are_read(lay, layer):
    name = "n" * 90 + "/" + "m" * 90
    assert "error" not in lay(tar(entry(name, b"1"), link("l" * 150, "t" * 150), form=tarfile.GNU_FORMAT))
    assert (layer / name).read_bytes() == b"1"
    assert os.readlink(layer / ("l" * 150)) == "t" * 150


def test_zstd_is_known_by_its_first_bytes(lay, layer):
    zstd = pytest.importorskip("backports.zstd")
    plain = tar(entry("file", b"zstandard" * 1000))
    report = lay(zstd.compress(plain))
    assert report["diff_id"] == sha(plain)
    assert (layer / "file").read_bytes() == b"zstandard" * 1000


def test_an_empty_layer_is_one(lay, layer):
    assert lay(gzip.compress(bytes(1024)))["entries"] == 0
    assert lay(b"")["entries"] == 0
    assert not list(layer.iterdir())


def is_whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(path: Path) -> bool:
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y"
    except OSError:
        return False


def test_whiteouts_hide_what_is_below_and_nothing_of_their_own_layer(lay, layer):
    report = lay(
        tar(
            entry("etc/.wh.gone"),
            folder("var/cache"),
            entry("var/cache/.wh..wh..opq"),
            entry("var/cache/new", b"1"),
            entry("was/.wh.dir"),
            entry("was/dir/now", b"2"),  # it comes after its whiteout, and before its directory
            folder("here"),
            entry("here/file", b"3"),
            entry(".wh.here"),
            entry("kept", b"4"),
            entry(".wh.kept"),
            entry(".wh..wh.plnk", b"old bookkeeping"),
        )
    )
    assert "error" not in report
    assert is_whiteout(layer / "etc/gone")
    assert is_opaque(layer / "var/cache")
    assert (layer / "var/cache/new").read_bytes() == b"1"
    assert is_opaque(layer / "was/dir")
    assert (layer / "was/dir/now").read_bytes() == b"2"
    assert is_opaque(layer / "here")
    assert (layer / "here/file").read_bytes() == b"3"
    assert (layer / "kept").read_bytes() == b"4"
    assert not [path for path in layer.rglob("*") if path.name.startswith(".wh.")]


def test_a_root_that_hides_everything_below_is_told(lay):
    assert lay(tar(entry(".wh..wh..opq"), entry("file")))["opaque"] is True


def test_what_comes_twice_counts_the_second_time(lay, layer):
    report = lay(
        tar(
            entry("file", b"one"),
            entry("file", b"two"),
            folder("was-dir"),
            entry("was-dir/x", b""),
            entry("was-dir", b"now a file"),
            entry("was-file", b""),
            folder("was-file"),
            entry("was-file/y", b""),
        )
    )
    assert "error" not in report
    assert (layer / "file").read_bytes() == b"two"
    assert (layer / "was-dir").read_bytes() == b"now a file"
    assert (layer / "was-file/y").exists()


def test_capabilities_are_kept_and_overlays_own_attributes_are_not(lay, layer):
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    headers = {
        "SCHILY.xattr.security.capability": capability.decode("latin-1"),
        "SCHILY.xattr.user.note": "hello",
        "SCHILY.xattr.trusted.overlay.redirect": "/etc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
    }
    lay(tar(entry("ping", b"", pax_headers=headers), folder("dir", pax_headers=dict(list(headers.items())[2:]))))
    assert os.getxattr(layer / "ping", "security.capability") == capability
    assert os.getxattr(layer / "ping", "user.note") == b"hello"
    assert set(os.listxattr(layer / "ping")) == {"security.capability", "user.note"}
    assert os.listxattr(layer / "dir") == []


def test_devices_are_left_out_and_said(lay, layer):
    report = lay(tar(entry("dev/null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), entry("file")))
    assert report["left_out"] == {"device": 1}
    assert not (layer / "dev/null").exists()
    assert (layer / "file").exists()


@pytest.mark.parametrize(
    "entries",
    [
        (entry("../outside", b"x"),),
        (entry("a/../../outside", b"x"),),
        (entry(".wh..."),),
        (entry("dir/.wh..."),),
        (entry("etc/.wh."),),
        (entry("link", type=tarfile.LNKTYPE, linkname="../../etc/passwd"),),
        (entry("link", type=tarfile.LNKTYPE, linkname="nowhere"),),
        (entry("file", b""), entry("file/below", b"x")),
        (link("loop", "loop"), entry("loop/file", b"x")),
        (entry("x" * 300, b""),),
        (entry("file", b"", uid=1 << 40),),
    ],
)
def test_an_archive_that_no_honest_tool_writes_is_refused(lay, tmp_path, entries):
    before = {path.name for path in tmp_path.iterdir()} | {"archive"}
    report = lay(tar(*entries))
    assert report["kind"] == "bad"
    assert {path.name for path in tmp_path.iterdir()} == before


def test_links_lead_nowhere_else(lay, layer, tmp_path):
    """The classic: a link out of the directory, then a file through it. The link means the image's own root."""
    (tmp_path / "victim").mkdir()
    victim = str(tmp_path / "victim")
    lay(tar(link("out", victim), entry("out/file", b"evil")))
    assert not list((tmp_path / "victim").iterdir())
    lay(tar(link("up", "../../../../../../victim"), entry("up/file", b"evil")))
    assert not list((tmp_path / "victim").iterdir())
    lay(tar(folder("tmp"), link("in", "/tmp"), entry("in/file", b"good")))
    assert (layer / "tmp/file").read_bytes() == b"good"


def test_what_is_broken_says_so(lay):
    plain = tar(entry("file", os.urandom(100_000)))
    assert "ends" in lay(plain[:50_000])["error"]
    assert lay(gzip.compress(plain)[:50_000])["kind"] == "bad"
    assert lay(gzip.compress(plain)[:-8] + bytes(8))["kind"] == "bad"
    assert lay(b"this is no archive at all, and not a short text either" * 100)["kind"] == "bad"


def test_a_header_without_end_is_refused_and_not_held_in_memory(lay):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 8 << 30

    squeeze = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = squeeze.compress(header.tobuf(tarfile.GNU_FORMAT))
    bomb += b"".join(squeeze.compress(bytes(16 << 20)) for _ in range(4)) + squeeze.flush()
    report = lay(bomb)
    assert "header of 8192 MiB" in report["error"]
    assert report["kind"] == "bad"


def test_a_layer_never_fills_the_disk(lay, tmp_path):
    disk = os.statvfs(tmp_path)
    report = lay(tar(entry("file", b"x")), reserve=disk.f_bavail * disk.f_frsize + (1 << 40))
    assert report["kind"] == "space"
    assert "MiB are left" in report["error"]
