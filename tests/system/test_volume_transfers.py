"""Files to and from volumes past real containers: killed nodes, Ctrl-C, full disks, links that lead out, who has it."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import pytest

SCRIPT = """
import os
import alight

app = alight.App("holder")
volume = alight.Volume.from_name("VOLUME", create_if_missing=True)


@app.function(volumes={"/data": volume}, timeout=120)
def lay(what):
    import socket
    os.makedirs("/data/d", exist_ok=True)
    if what == "links":
        os.symlink("/etc/passwd", "/data/d/passwd")
        os.symlink("..", "/data/d/up")
        os.symlink("good", "/data/d/inside")
        os.mkfifo("/data/d/pipe")
        open("/data/d/good", "w").write("good")
        os.mkdir("/data/d/empty")
        open(b"/data/d/odd\\n\\xff", "w").write("odd")
    return sorted(os.listdir("/data/d"))


@app.function(volumes={"/data": volume}, timeout=120)
def hold():
    import time
    print("held", flush=True)
    time.sleep(60)


@app.function(timeout=120)
def read(path):
    return open(path).read()
"""


def write(folder: Path, name: str) -> Path:
    script = folder / "holder.py"
    script.write_text(SCRIPT.replace("VOLUME", name))
    return script


def wait_for(condition, what):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited a minute for {what}"
        time.sleep(0.02)


def staged(volumes: Path) -> int:
    """Bytes of uploads that are under way."""
    found = 0
    for path in volumes.glob("*/staging/*/[0-9]*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:
            continue  # it has its name, or was given up
    return found


def test_what_a_container_lays_does_not_lead_out(machine, tmp_path):
    script = write(tmp_path, "laid")
    machine.run("run", f"{script}::lay", "--what", "links")
    listed = {row["filename"]: row["type"] for row in machine.json("volume", "ls", "laid", "d")}
    assert listed["d/passwd"] == "symlink"
    assert listed["d/pipe"] == "other"
    here = tmp_path / "here"
    done = machine.run("volume", "get", "laid", "d", str(here))
    got = here / "d" if (here / "d").is_dir() else here
    assert sorted(os.listdir(os.fsencode(got))) == [b"empty", b"good", b"odd\n\xff"]
    assert "left out: d/passwd, which is a link" in done.stderr
    done = machine.run("volume", "get", "laid", "d/passwd", "-", status=1)
    assert "leads out of the volume" in done.stderr
    assert "root:" not in done.stdout
    (tmp_path / "mine").write_text("mine")
    done = machine.run("volume", "put", "laid", str(tmp_path / "mine"), "d/up/../../x", status=1)
    assert "leads upwards" in done.stderr
    machine.run("volume", "put", "laid", str(tmp_path / "mine"), "d/passwd", "-f")
    assert "mine" not in Path("/etc/passwd").read_text()
    machine.run("volume", "rm", "-r", "laid", "d")
    assert machine.json("volume", "ls", "laid") == []
    machine.run("volume", "delete", "-y", "laid")


def test_a_mounted_volume_is_not_deleted_and_it_is_said_who_has_it(machine, tmp_path):
    script = write(tmp_path, "held")
    running = machine.start("run", f"{script}::hold")
    try:
        wait_for(lambda: "held" in (running.stdout.readline() or ""), "the container")
        (row,) = [row for row in machine.json("volume", "list") if row["name"] == "held"]
        assert row["mounted_by"] == ["holder.hold"]
        done = machine.run("volume", "delete", "-y", "held", status=1)
        assert "is mounted by holder.hold (container ta-" in done.stderr
        assert machine.json("volume", "ls", "held") == []
    finally:
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    wait_for(
        lambda: machine.run("volume", "delete", "-y", "held", status=None).returncode == 0, "the container to let go"
    )


def test_a_block_with_a_volume_of_its_own(machine, tmp_path):
    script = tmp_path / "own.py"
    script.write_text(
        textwrap.dedent(
            """
            import io
            import alight

            app = alight.App()

            @app.function(serialized=True)
            def nothing(): ...

            with alight.Volume.ephemeral() as volume:
                with volume.batch_upload() as batch:
                    batch.put_file(io.BytesIO(b"outside"), "f")
                print(volume.name, b"".join(volume.read_file("f")).decode(), volume.info().created_by)
                again = alight.Volume.from_id(volume.object_id)
                print([entry.path for entry in again.listdir("/")])
            try:
                again.listdir("/")
            except (alight.exception.NotFoundError, FileNotFoundError) as error:
                print("gone")
            """
        )
    )
    said = machine.python(script).stdout.splitlines()
    assert said[0].startswith("None outside ")
    assert said[1:] == ["['f']", "gone"]
    assert not [row for row in machine.json("volume", "list") if not row["name"]]


def test_ctrl_c_in_the_middle_and_the_same_command_again(fresh_machine, tmp_path):
    machine = fresh_machine
    machine.run("volume", "create", "broken")
    source = tmp_path / "d"
    source.mkdir()
    for number in range(20):
        (source / f"f{number}").write_bytes(os.urandom(8 << 20))
    running = machine.start("volume", "put", "broken", str(source), "/d")
    staging = machine.home / "node/volumes"
    wait_for(lambda: staged(staging) > 20 << 20, "some files to be staged")
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert f"alight volume put broken {source} /d" in said
    assert machine.json("volume", "ls", "broken") == []
    wait_for(lambda: any(staging.glob("*/staging/parts/*")), "what came to be kept")
    machine.run("volume", "put", "broken", str(source), "/d")
    assert len(machine.json("volume", "ls", "broken", "d")) == 20
    here = tmp_path / "here"
    machine.run("volume", "get", "broken", "d", str(here))
    got = here / "d" if (here / "d").is_dir() else here
    for path in source.iterdir():
        assert (got / path.name).read_bytes() == path.read_bytes()
    assert not list(staging.glob("*/staging/parts/*"))


@pytest.mark.slow
def test_a_node_that_is_killed_in_the_middle_of_an_upload(fresh_machine, tmp_path):
    machine = fresh_machine
    machine.run("volume", "create", "killed")
    (tmp_path / "old").write_text("old")
    machine.run("volume", "put", "killed", str(tmp_path / "old"), "f0")
    source = tmp_path / "d"
    source.mkdir()
    for number in range(40):
        (source / f"f{number}").write_bytes(os.urandom(8 << 20))
    running = machine.start("volume", "put", "-f", "killed", str(source), "/")
    staging = machine.home / "node/volumes"
    wait_for(lambda: staged(staging) > 20 << 20, "some files to be staged")
    (node,) = [pid for pid, words in machine.processes().items() if "alight.node" in words and "spawner" not in words]
    os.kill(node, signal.SIGKILL)
    _, said = running.communicate(timeout=120)
    if running.returncode:  # else it went on by itself with the node that came back
        assert "Traceback" not in said
        wait_for(
            lambda: machine.run("volume", "get", "killed", "f0", "-", status=None).stdout == "old", "the node to return"
        )
        machine.run("volume", "put", "-f", "killed", str(source), "/")
    assert len(machine.json("volume", "ls", "killed")) == 40
    done = subprocess.run(["diff", "-r", str(source), str(next(staging.glob("vo-*/data")))], check=False)
    assert done.returncode == 0


def test_a_disk_that_is_full_in_the_middle(new_machine, tmp_path):
    mounted = tmp_path / "small"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(mounted)], check=True)
    try:
        machine = new_machine(ALIGHT_VOLUMES=str(mounted))
        try:
            machine.run("volume", "create", "small")
            source = tmp_path / "d"
            source.mkdir()
            for number in range(100):
                (source / f"f{number:02}").write_bytes(os.urandom(900_000))
            done = machine.run("volume", "put", "small", str(source), "/d", status=1)
            assert "full" in done.stderr
            assert machine.json("volume", "ls", "small") == []
            free = os.statvfs(mounted)
            assert free.f_bavail * free.f_frsize > 40 << 20, "what had come was given back"
            (tmp_path / "big").write_bytes(os.urandom(60 << 20))
            assert "full" in machine.run("volume", "put", "small", str(tmp_path / "big"), status=1).stderr
            (tmp_path / "ok").write_bytes(b"fits")
            machine.run("volume", "put", "small", str(tmp_path / "ok"))
            assert machine.run("volume", "get", "small", "ok", "-").stdout == "fits"
        finally:
            machine.close()
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_a_volume_that_is_deleted_while_files_are_put(fresh_machine, tmp_path):
    machine = fresh_machine
    machine.run("volume", "create", "going")
    (tmp_path / "big").write_bytes(os.urandom(64 << 20))
    read, write_end = os.pipe()
    with os.fdopen(read, "rb") as stdin:
        running = machine.start("volume", "put", "going", "-", "f", stdin=stdin)
    os.write(write_end, b"begun")
    wait_for(lambda: list((machine.home / "node/volumes").glob("*/staging/loose-*")), "the upload to begin")
    machine.run("volume", "delete", "-y", "going")
    os.close(write_end)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert "Traceback" not in said
    assert machine.json("volume", "list") == []
    assert not list((machine.home / "node/volumes").glob("vo-*/data/*"))


@pytest.mark.slow
def test_a_hundred_thousand_entries_in_one_directory(fresh_machine):
    machine = fresh_machine
    machine.run("volume", "create", "wide")
    machine.run("volume", "ls", "wide")
    (data,) = (machine.home / "node/volumes").glob("vo-*/data")
    for number in range(100_000):
        (data / f"f{number}").touch()
    assert len(machine.run("volume", "ls", "wide").stdout.splitlines()) == 100_000
