"""Volumes in a directory of the operator's choice: automatic snapshots where blocks are shared, limits that hold."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from alight.node import users

SCRIPT = """
import shutil
from pathlib import Path

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("roots", image=image)
data = alight.Volume.from_name("roots-data", create_if_missing=True)
small = alight.Volume.from_name("roots-small", create_if_missing=True)


@app.function(volumes={"/data": data})
def write():
    (Path("/data") / "models").mkdir(exist_ok=True)
    (Path("/data") / "models/weights").write_text("precious")


@app.function(volumes={"/data": data})
def remove_all():
    for path in Path("/data").iterdir():
        shutil.rmtree(path)


@app.function(volumes={"/small": small})
def fill():
    try:
        with open("/small/big", "wb") as file:
            for _ in range(300):
                file.write(b"x" * (1 << 20))
    except OSError as error:
        print("refused with", error.errno)
    Path("/small/big").unlink()
    Path("/small/kept").write_text("kept")


@app.function(volumes={"/small": small})
def read():
    print("it has", Path("/small/kept").read_text())
"""


@pytest.fixture(scope="module")
def xfs(tmp_path_factory):
    """A directory on a filesystem whose files can share blocks."""
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not there")
    folder = tmp_path_factory.mktemp("roots")
    image, mounted = folder / "image", folder / "mounted"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    if subprocess.run(["mount", "-o", "loop", image, mounted], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not mount xfs")
    yield mounted
    subprocess.run(["umount", mounted], check=True)


@pytest.fixture(scope="module")
def rooted(new_machine, xfs):
    machine = new_machine(ALIGHT_VOLUMES=str(xfs / "volumes"), ALIGHT_VOLUME_IMAGES="on")
    machine.run("volume", "create", "roots-small", "--size", "100MB")
    yield machine
    machine.close()
    mounted = Path("/proc/self/mountinfo").read_text()
    assert str(xfs / "volumes") not in mounted, "a stopped node leaves no mounts"


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("roots-script") / "roots.py"
    path.write_text(SCRIPT)
    return path


def test_what_a_container_removed_comes_back_with_one_command(rooted, xfs, script):
    rooted.run("run", f"{script}::write")
    until = time.monotonic() + 30
    while not any("snapshot" in row["what"] for row in rooted.json("volume", "history", "roots-data")):
        assert time.monotonic() < until, "no snapshot was made"
        time.sleep(0.2)
    rooted.run("run", f"{script}::remove_all")
    assert not rooted.run("volume", "ls", "roots-data").stdout.strip()
    rows = rooted.json("volume", "history", "roots-data")
    assert "automatic" in rows[-1]["what"] or "automatic" in rows[-2]["what"], rows
    rooted.run("volume", "restore", "roots-data", "s1", "-y")
    assert rooted.run("volume", "get", "roots-data", "models/weights", "-").stdout == "precious"
    assert (xfs / "volumes").is_dir()


def test_a_limit_holds_and_outlives_the_agent(rooted, script):
    listed = {row["name"]: row for row in rooted.json("volume", "list")}
    assert listed["roots-small"]["limit"] == 100_000_000
    assert "refused with 28" in rooted.run("run", f"{script}::fill").stdout
    agents = [pid for pid, words in rooted.processes().items() if "alight.node" in words and "spawner" not in words]
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGKILL)
    assert "it has kept" in rooted.run("run", f"{script}::read").stdout
    rooted.run("volume", "delete", "roots-small", "-y")
    gone = rooted.run("run", f"{script}::read", status=None)
    assert gone.returncode != 0, "what was deleted is not there"


def test_a_size_that_means_nothing(rooted):
    wrong = rooted.run("volume", "create", "roots-odd", "--size", "many", status=None)
    assert wrong.returncode == 2
    assert "'many' is no amount of bytes" in wrong.stderr
    small = rooted.run("volume", "create", "roots-odd", "--size", "1KB", status=None)
    assert "64 MiB is the smallest limit" in small.stderr
    assert all(row["name"] != "roots-odd" for row in rooted.json("volume", "list"))


@pytest.fixture
def unmapped(tmp_path):
    """A directory on a filesystem whose files cannot be shown with other owners."""
    lower, upper, mounted = folders = [tmp_path / name for name in ("lower", "upper", "mounted")]
    for folder in folders:
        folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", upper], check=True)  # the disk may be an overlay itself
    options = f"lowerdir={lower},upperdir={upper}/up,workdir={upper}/work"
    (upper / "up").mkdir()
    (upper / "work").mkdir()
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, mounted], check=True)
    mounted.chmod(0o755)
    if users.possible(str(mounted)):
        pytest.skip("this kernel shows files of overlays with other owners")
    yield mounted
    subprocess.run(["umount", mounted], check=True)
    subprocess.run(["umount", upper], check=True)


@pytest.mark.parametrize("given_up", [False, True])
def test_a_filesystem_that_cannot_show_other_owners_is_refused_unless_that_is_wanted(
    new_machine, unmapped, script, given_up
):
    machine = new_machine(
        ALIGHT_VOLUMES=str(unmapped / "volumes"), **({"ALIGHT_USER_NAMESPACES": "0"} if given_up else {})
    )
    try:
        done = machine.run("run", f"{script}::write", status=0 if given_up else 1)
        if not given_up:
            assert "cannot show files with other owners" in done.stderr
            assert "does not start without one" in done.stderr
            assert "ALIGHT_USER_NAMESPACES=0" in done.stderr
        assert machine.run("volume", "get", "roots-data", "models/weights", "-", status=None).stdout == (
            "precious" if given_up else ""
        )
    finally:
        machine.close()
