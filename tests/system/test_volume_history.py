"""Volumes with real containers: what counts as a version, who made it, and going back to a snapshot while it runs."""

from __future__ import annotations

import json
import time

import pytest

SCRIPT = '''
import mmap
import os
import subprocess
import time
from pathlib import Path

import alight

image = alight.Image.debian_slim(python_version="3.11")
app = alight.App("history", image=image)
data = alight.Volume.from_name("history-data", create_if_missing=True)
HERE = Path("/data")


@app.function(volumes={"/data": data})
def write(names: str):
    for name in names.split(","):
        (HERE / name).parent.mkdir(parents=True, exist_ok=True)
        (HERE / name).write_text(name)


@app.function(volumes={"/data": data})
def commits():
    """The version's number after each step."""
    found = []
    from alight.sdk.sync import run
    from alight.sdk.client import default_client
    from alight.wire.stored import VolumeInfo, VolumePath

    def commit():
        return run(default_client().call("volume.commit", VolumePath(data.hydrate().object_id), VolumeInfo)).version

    (HERE / "file").write_text("1")
    found.append(commit())
    found.append(commit())
    file = open(HERE / "mapped", "w+b")
    file.truncate(4096)
    mapped = mmap.mmap(file.fileno(), 4096)
    file.close()
    mapped.flush()
    found.append(commit())
    found.append(commit())
    mapped[0] = 1
    found.append(commit())
    found.append(commit())
    os.unlink(HERE / "file")
    found.append(commit())
    print("versions", found)


@app.function(volumes={"/data": data})
def hold_open():
    with open(HERE / "open", "w") as file:
        file.write("old")
    data.commit()
    with open(HERE / "open") as file:
        (HERE / "ready").write_text("")
        until = time.monotonic() + 60
        while (HERE / "go").exists() is False and time.monotonic() < until:
            time.sleep(0.05)
        return file.read() + " " + (HERE / "open").read_text()


@app.function(volumes={"/data": data.read_only()})
def sleep():
    time.sleep(120)
'''


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("history") / "history.py"
    path.write_text(SCRIPT)
    return path


def history(machine):
    return machine.json("volume", "history", "history-data")


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come"
        time.sleep(0.1)


def test_an_exit_is_a_version_and_says_whose(machine, script):
    machine.run("run", f"{script}::write", "--names", "a/one,two")
    wait_until(lambda: history(machine))
    row = history(machine)[0]
    assert row["files"] == 2
    assert row["by"].startswith("history.write "), row


def test_each_change_is_a_version_and_nothing_is_none(machine, script):
    done = machine.run("run", f"{script}::commits")
    said = next(line for line in done.stdout.splitlines() if line.startswith("versions "))
    numbers = json.loads(said.removeprefix("versions "))
    steps = [after - before for before, after in zip(numbers, numbers[1:])]
    assert steps == [0, 1, 0, 1, 0, 1]


def test_going_back_while_a_container_has_the_files_open(machine, script):
    running = machine.start("run", f"{script}::hold_open")
    try:
        wait_until(lambda: "ready" in machine.run("volume", "ls", "history-data").stdout.split())
        taken = machine.run("volume", "snapshot", "history-data", "--label", "old")
        assert taken.stdout.split() == ["s1"]
        machine.run("volume", "rm", "history-data", "two")
        machine.run("volume", "rm", "history-data", "-r", "a")
        changed = machine.run("volume", "diff", "history-data", "old").stdout.splitlines()
        assert changed == ["- a", "- a/one", "- two"]
        machine.run("volume", "restore", "history-data", "old", "-y")
        assert machine.run("volume", "diff", "history-data", "s1").stdout == ""
        assert machine.run("volume", "get", "history-data", "a/one", "-").stdout == "a/one"
        assert any("restore" in row["what"] for row in history(machine))
        machine.run("volume", "rm", "history-data", "ready")
    finally:
        machine.run("volume", "cp", "history-data", "two", "go")
        said, _ = running.communicate(timeout=120)
        assert running.returncode == 0
        assert said is not None


def test_a_snapshot_into_a_directory_here(machine, tmp_path):
    machine.run("volume", "restore", "history-data", "old", "a", "--to", str(tmp_path / "here"))
    assert (tmp_path / "here/a/one").read_text() == "a/one"
    again = machine.run("volume", "restore", "history-data", "old", "a", "--to", str(tmp_path / "here"), status=None)
    assert again.returncode == 1
    assert "exists already" in again.stderr
    unknown = machine.run("volume", "restore", "history-data", "nope", "-y", status=None)
    assert "no snapshot 'nope'" in unknown.stderr
    assert "it has s1 (old)" in unknown.stderr


def test_a_volume_that_somebody_has_is_not_deleted(machine, script):
    running = machine.start("run", f"{script}::sleep")
    try:
        wait_until(lambda: machine.json("container", "list"))
        refused = []

        def held():
            done = machine.run("volume", "delete", "history-data", "-y", status=None)
            refused.append(done.stderr)
            assert done.returncode != 0, "it was deleted while a container had it"
            return "mounted" in done.stderr

        wait_until(held)
        assert "sleep" in refused[-1] or "co-" in refused[-1] or "ta-" in refused[-1], refused[-1]
    finally:
        running.terminate()
        running.communicate(timeout=60)


def test_an_upload_is_a_version_when_it_brought_something(machine, tmp_path):
    (tmp_path / "file").write_text("five!")
    machine.run("volume", "create", "history-uploads")

    def rows():
        return machine.json("volume", "history", "history-uploads")

    machine.run("volume", "put", "history-uploads", str(tmp_path / "file"), "/a")
    wait_until(rows)
    assert [(row["what"].split(",")[0], row["files"], row["bytes"], row["by"]) for row in rows()] == [
        ("v1 upload", 1, 5, "owner")
    ]
    machine.run("volume", "put", "history-uploads", str(tmp_path / "file"), "/a", "-f")  # it is there already
    machine.run("volume", "put", "history-uploads", str(tmp_path / "file"), "/b")
    wait_until(lambda: len(rows()) > 1)
    assert [row["what"].split(",")[0] for row in rows()] == ["v2 upload", "v1 upload"]
    machine.run("volume", "cp", "history-uploads", "/a", "/c")
    wait_until(lambda: len(rows()) > 2)
    machine.run("volume", "rm", "history-uploads", "/b")
    wait_until(lambda: len(rows()) > 3)
    assert [row["what"].split(",")[0] for row in rows()][:2] == ["v4 remove", "v3 copy"]
    machine.run("volume", "delete", "history-uploads", "-y")
