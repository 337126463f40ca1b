"""A disk that is full, and output without end: one clear sentence, and everything lives."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system import base
from tests.system.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
import sys
import time

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("full-disk", image=image)

@app.function()
def talks(megabytes: int) -> int:
    line = "x" * 99 + "\\n"
    for _ in range(megabytes * 10):
        sys.stdout.write(line * 1000)
    return megabytes


@app.function()
def draws() -> int:
    for percent in range(0, 101):
        print(f"{percent:3}%", end="\\r", flush=True)
    print()
    return 0


@app.function()
def takes(data: bytes) -> int:
    return len(data)


@app.local_entrypoint()
def sends(megabytes: int):
    print("took", takes.remote(b"x" * (megabytes << 20)))


@app.local_entrypoint()
def talk(megabytes: int):
    print("said", talks.remote(megabytes))
"""

BUILDS = """
import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("full-disk-builds")


@app.function(image=image.run_commands("echo filling; head -c 400000000 /dev/urandom > /filler"))
def needs_room() -> int:
    return 1


@app.function(image=image.run_commands("echo small > /small"))
def needs_little() -> int:
    return 2
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("full") / "job.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture(scope="module")
def small_machine() -> Iterator[Machine]:
    """An instance on a file system with 120 MiB of room beside the base image."""
    base.base_image()
    mount = Path(tempfile.mkdtemp(prefix="alight-full-"))
    layers = base.cache() / "node"
    size = int(subprocess.run(["du", "-sm", layers], capture_output=True, text=True, check=True).stdout.split()[0])
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size + 120}m,mode=755", "none", mount], check=True)
    machine = Machine(mount / "h")
    try:
        (machine.home / "node").mkdir(parents=True)
        for part in ("layers", "images"):
            subprocess.run(["cp", "-a", layers / part, machine.home / "node" / part], check=True)
        machine.run("server", "start")
        yield machine
        machine.close()
    finally:
        subprocess.run(["umount", mount], check=True)
        mount.rmdir()


@contextlib.contextmanager
def full(machine: Machine, left: int) -> Iterator[None]:
    """A file takes all the room but so many KiB."""
    ballast = machine.home / "ballast"
    with ballast.open("wb") as file:
        room = shutil.disk_usage(machine.home).free - (left << 10)
        while True:
            try:
                os.posix_fallocate(file.fileno(), 0, room)
            except OSError as error:
                # What was free a moment ago: logs grow, and files have blocks of their own.
                if error.errno != errno.ENOSPC or room < 1 << 20:
                    raise
                room -= 64 << 10
            else:
                break
    try:
        yield
    finally:
        ballast.unlink()


def works(machine: Machine, script: Path) -> None:
    assert machine.run("server", "status")
    assert machine.run("run", f"{script}::talk", "--megabytes", "0").stdout == "said 0\n"


def one_sentence(errors: str) -> str:
    assert "Traceback" not in errors, errors
    assert "fault" not in errors, errors
    said = [line for line in errors.splitlines() if line.startswith("Error")]
    assert len(said) == 1, errors
    return said[0]


def test_a_build_on_a_full_disk_says_so_and_gives_the_room_back(small_machine, script):
    builds = script.with_name("builds.py")
    builds.write_text(BUILDS)
    before = shutil.disk_usage(small_machine.home).free
    done = small_machine.run("run", f"{builds}::needs_room", status=1)
    assert "no space left on the disk" in one_sentence(done.stderr), done.stderr
    works(small_machine, script)
    assert shutil.disk_usage(small_machine.home).free > before - (30 << 20)
    assert small_machine.run("run", f"{builds}::needs_little").returncode == 0


def test_a_start_without_any_room_says_so(small_machine, script):
    with full(small_machine, 0):
        done = small_machine.run("run", f"{script}::talk", "--megabytes", "0", status=1)
        said = one_sentence(done.stderr)
        assert "disk" in said or "No space left" in said, done.stderr
        small_machine.run("server", "status")
    works(small_machine, script)


@pytest.mark.slow
def test_output_on_a_full_disk_neither_blocks_nor_kills(small_machine, script):
    with full(small_machine, 8 << 10):
        process = small_machine.start("run", f"{script}::talk", "--megabytes", "40", stdout=subprocess.PIPE)
        out, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        assert process.returncode == 0, errors[-2000:]
        # What there was no room for is missing, and said. A result waits a second for late output, not longer.
        assert "said 40\n" in out
    works(small_machine, script)


def test_an_argument_larger_than_the_disk_says_so(small_machine, script):
    with full(small_machine, 8 << 10):
        done = small_machine.run("run", f"{script}::sends", "--megabytes", "40", status=1)
        said = one_sentence(done.stderr)
        assert "disk" in said or "No space left" in said, done.stderr
    works(small_machine, script)


@pytest.mark.slow
def test_two_hundred_megabytes_of_output_arrive_and_hold_up_nothing(machine, script, tmp_path):
    begun = time.monotonic()
    with (tmp_path / "out").open("wb") as out:
        process = machine.start("run", f"{script}::talk", "--megabytes", "200", stdout=out)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    taken = time.monotonic() - begun
    size = (tmp_path / "out").stat().st_size
    with (tmp_path / "out").open("rb") as file:
        file.seek(-9, os.SEEK_END)
        assert file.read() == b"said 200\n"
    assert size == 200 * 1_000_000 + 9, f"{size} bytes in {taken:.0f} s"
    assert machine.run("run", f"{script}::talk", "--megabytes", "0").stdout == "said 0\n"


def test_progress_bars_arrive_as_they_were_drawn(machine, script):
    done = subprocess.run(
        [*_alight(), "run", f"{script}::draws"], env=machine.environment(), capture_output=True, check=True
    )
    assert done.stdout == "".join(f"{percent:3}%\r" for percent in range(101)).encode() + b"\n"


def _alight() -> list[str]:
    import sys

    return [sys.executable, "-m", "alight"]
