"""A backup of a volume that a container writes to: of one moment where the filesystem can share blocks."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import time

import pytest

SCRIPT = """
from pathlib import Path

import alight

app = alight.App("busy", image=alight.Image.debian_slim(python_version="3.11"))
data = alight.Volume.from_name("busy-data", create_if_missing=True)


@app.function(volumes={"/data": data}, timeout=200)
def write():
    with open("/data/log", "wb") as file:
        file.write(bytes(96 << 20))
        (Path("/data") / "begun").touch()
        while not (Path("/data") / "stop").exists():
            file.write(b"line")
            file.flush()
"""


@pytest.fixture(params=["xfs", "btrfs", "plain"])
def volumes(request, tmp_path):
    """A directory for volumes, on a filesystem of this kind."""
    if request.param == "plain":
        yield request.param, tmp_path / "volumes"
        return
    make = shutil.which(f"mkfs.{request.param}")
    if make is None:
        pytest.skip(f"mkfs.{request.param} is not there")
    image, mounted = tmp_path / "image", tmp_path / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(2 << 30)
    subprocess.run([make, "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, check=False).returncode:
        pytest.skip(f"this machine does not mount {request.param}")
    yield request.param, mounted / "volumes"
    subprocess.run(["umount", mounted], check=True)


@pytest.mark.slow
def test_a_volume_that_is_written_to(new_machine, volumes, tmp_path):
    kind, root = volumes
    machine = new_machine(ALIGHT_VOLUMES=str(root))
    try:
        (tmp_path / "busy.py").write_text(SCRIPT)
        running = machine.start("run", f"{tmp_path / 'busy.py'}::write")
        until = time.monotonic() + 60
        while "begun" not in machine.run("volume", "ls", "busy-data", status=None).stdout.split():
            assert time.monotonic() < until
            time.sleep(0.1)
        said = machine.run("server", "backup", tmp_path / "saved", "--volume", "busy-data").stderr
        (tmp_path / "stop").touch()
        machine.run("volume", "put", "busy-data", tmp_path / "stop", "/stop")
        running.communicate(timeout=60)
        assert ("was written to meanwhile" in said) == (kind == "plain"), said
        [packed] = (tmp_path / "saved/volumes").iterdir()
        with tarfile.open(packed) as tar:
            assert tar.getmember("log").size >= 96 << 20
        whats = [row["what"] for row in machine.json("volume", "history", "busy-data")]
        assert not any(what.startswith("snapshot") and "automatic" not in what for what in whats), (
            "the backup's is gone"
        )
    finally:
        machine.close()
