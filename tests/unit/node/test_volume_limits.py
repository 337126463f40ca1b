"""Limits of volumes: ENOSPC where they end, nothing left of them in the end, and a reason where there are none."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import subprocess

import pytest

from alight.node import volume_limits
from alight.node.volume_limits import SMALLEST
from alight.node.volumes import Volumes
from alight.wire import errors

VOLUME = "vo-1"

can_mount = pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mkfs.ext4") is None, reason="mounts need root")


def fill(path):
    """More than fits."""
    with path.open("wb") as file:
        for _ in range(200):
            file.write(b"x" * (1 << 20))


@can_mount
def test_an_image_ends_where_it_was_told_to(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGHT_VOLUME_IMAGES", "on")
    if not volume_limits.has_no_project_quota(tmp_path):
        pytest.skip("this machine has project quotas")
    volumes = Volumes(tmp_path)
    volumes._create(VOLUME, SMALLEST)
    try:
        data = volumes.data(VOLUME)
        assert volumes.staging(VOLUME).stat().st_dev == data.stat().st_dev != tmp_path.stat().st_dev
        assert list(data.iterdir()) == []
        with pytest.raises(OSError, match="No space left") as caught:
            fill(data / "big")
        assert caught.value.errno == errno.ENOSPC
        assert (data / "big").stat().st_size >= SMALLEST
        (data / "big").unlink()
        (data / "kept").write_text("1")
        assert asyncio.run(volumes.measure(VOLUME)).limit == SMALLEST
        volumes.hold(VOLUME, "co-1")
        asyncio.run(volumes.commit(VOLUME))
        (data / "kept").write_text("2")
        assert asyncio.run(volumes.commit(VOLUME)).files == 1
        volumes.release(VOLUME, "co-1")
        volumes.close()
        assert not os.path.ismount(tmp_path / "volumes" / VOLUME)
        again = Volumes(tmp_path)
        assert (again.data(VOLUME) / "kept").read_text() == "2", "it is mounted again by who needs it"
        asyncio.run(again._delete(VOLUME))
        assert not os.path.ismount(tmp_path / "volumes" / VOLUME)
        assert not list((tmp_path / "volumes/.images").iterdir())
    finally:
        subprocess.run(["umount", tmp_path / "volumes" / VOLUME], capture_output=True, check=False)


def test_where_there_are_no_limits_the_reason_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("ALIGHT_VOLUME_IMAGES", raising=False)
    if not volume_limits.has_no_project_quota(tmp_path):
        pytest.skip("this machine has project quotas")
    volumes = Volumes(tmp_path)
    with pytest.raises(errors.InvalidError, match="has no project quota") as caught:
        volumes._create(VOLUME, SMALLEST)
    assert "ALIGHT_VOLUME_IMAGES=on" in str(caught.value.hint)
    assert not (tmp_path / "volumes" / VOLUME).exists()
    with pytest.raises(errors.InvalidError, match="too small"):
        volumes._create(VOLUME, 1000)


@can_mount
def test_a_project_quota(tmp_path):
    """On a filesystem made with them, where the kernel has them."""
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 << 20)
    for make, options in ((["mkfs.xfs", "-q"], "prjquota"), (["mkfs.ext4", "-q", "-O", "quota,project"], "prjquota")):
        if shutil.which(make[0]) is None:
            continue
        force = "-f" if make[0] == "mkfs.xfs" else "-F"
        subprocess.run([*make, force, image], check=True, capture_output=True)
        mount = ["mount", "-o", f"loop,{options}", image, mounted]
        if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            break
    else:
        pytest.skip("this kernel mounts nothing with project quotas")
    try:
        if why := volume_limits.has_no_project_quota(mounted):
            pytest.skip(f"this kernel has no project quotas: {why}")
        volumes = Volumes(mounted)
        volumes._create(VOLUME, SMALLEST)
        data = volumes.data(VOLUME)
        with pytest.raises(OSError, match=r"space|quota"):
            fill(data / "big")
    finally:
        subprocess.run(["umount", mounted], check=True)
