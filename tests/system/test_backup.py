"""A server that serves is saved and comes back elsewhere: a deployed function, its secret, files, a dict."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess

import pytest

SCRIPT = """
import os
import alight

app = alight.App("kept")
volume = alight.Volume.from_name("kept-files", create_if_missing=True)
numbers = alight.Dict.from_name("kept-numbers", create_if_missing=True)


@app.function(
    image=alight.Image.debian_slim("3.11").add_local_file(__file__.replace("kept.py", "data.txt"), "/data.txt"),
    secrets=[alight.Secret.from_name("kept"), alight.Secret.from_dict({"ANONYMOUS": "of the app"})],
    volumes={"/files": volume},
)
def look(write=""):
    if write:
        os.makedirs("/files/deep", exist_ok=True)
        with open("/files/deep/note", "w") as file:
            file.write(write)
        os.chmod("/files/deep/note", 0o640)
        os.symlink("deep/note", "/files/link")
        volume.commit()
        numbers["large"] = b"x" * 5_000_000
        numbers["answer"] = 42
    return {
        "note": open("/files/link").read(),
        "mode": oct(os.stat("/files/deep/note").st_mode & 0o777),
        "data": open("/data.txt").read(),
        "secrets": (os.environ["NAMED"], os.environ["ANONYMOUS"]),
        "numbers": (numbers["answer"], len(numbers["large"])),
    }
"""
LOOK = "import alight; print(alight.Function.from_name('kept', 'look').remote({}))\n"


@pytest.fixture
def kept(fresh_machine, tmp_path):
    """A machine with the app deployed and used once; and what it said."""
    (tmp_path / "kept.py").write_text(SCRIPT)
    (tmp_path / "data.txt").write_text("of a file")
    fresh_machine.run("secret", "create", "kept", 'NAMED=it\'s\n"quoted"')
    fresh_machine.run("deploy", tmp_path / "kept.py")
    (tmp_path / "write.py").write_text(LOOK.format("'written'"))
    (tmp_path / "look.py").write_text(LOOK.format(""))
    return fresh_machine, fresh_machine.python(tmp_path / "write.py").stdout


def test_everything_comes_back_on_another_machine(kept, tmp_path, new_machine):
    old, said = kept
    assert "('it\\'s\\n\"quoted\"', 'of the app')" in said
    assert "'numbers': (42, 5000000)" in said
    made = old.run("server", "backup", tmp_path / "saved", "--volumes")
    assert "volumes kept-files" in made.stderr
    assert "2 secrets are in it and their key is not" in made.stderr
    key = tmp_path / "key"
    key.write_bytes((old.home / "server/key").read_bytes())
    assert "exists already" in old.run("server", "backup", tmp_path / "saved", status=1).stderr
    (tmp_path / "write.py").write_text(LOOK.format("'written after the backup'"))
    old.run("server", "stop")

    new = new_machine()
    shutil.rmtree(new.home / "server")  # only an empty one takes a backup
    try:
        refused = new.run("server", "restore", tmp_path / "saved", status=1).stderr
        assert "2 secrets of this backup cannot be read, since there is no key in it" in refused
        assert "--key FILE" in refused
        back = new.run("server", "restore", tmp_path / "saved", "--key", key).stderr
        assert "Restored the server of" in back
        assert "has state already" in new.run("server", "restore", tmp_path / "saved", status=1).stderr
        assert new.python(tmp_path / "look.py").stdout == said
        listed = new.json("secret", "list")
        assert [row["name"] for row in listed] == ["kept"]
        assert [row["name"] for row in new.json("volume", "list")] == ["kept-files"]
        assert "a server is running" in new.run("server", "restore", tmp_path / "saved", status=1).stderr
        rotated = new.run("server", "rotate-key", "--yes").stderr
        assert "Sealed 2 secrets with a new key" in rotated
        assert (new.home / "server/key").read_bytes() != key.read_bytes()
        new.run("app", "rollover", "kept")
        assert new.python(tmp_path / "look.py").stdout == said, "a fresh container has other values"
    finally:
        new.close()


@pytest.mark.slow
def test_a_backup_that_is_killed_leaves_no_half_of_one(kept, tmp_path):
    machine, said = kept
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(3 << 30)
    machine.run("volume", "put", "kept-files", big)
    backup = machine.start("server", "backup", tmp_path / "saved", "--volumes")
    server = next(pid for pid, line in machine.processes().items() if "-m alight.server --home" in line)
    partial = tmp_path / ".saved.partial"
    while not list(partial.glob("volumes/*.tar")):
        assert backup.poll() is None, backup.stderr.read()
    os.kill(server, signal.SIGKILL)
    _, err = backup.communicate(timeout=60)
    assert backup.returncode == 1
    assert "lost" in err
    assert not (tmp_path / "saved").exists()
    assert machine.python(tmp_path / "look.py").stdout == said, "the machine is there again"
    machine.run("volume", "rm", "kept-files", "big")
    machine.run("server", "backup", tmp_path / "saved", "--volumes", "--with-key")
    assert not partial.exists()


def test_a_disk_that_is_too_small_is_said_and_left_as_it_was(kept, tmp_path):
    machine, _ = kept
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100m", "none", disk], check=True)
    try:
        big = tmp_path / "big"
        big.write_bytes(os.urandom(1 << 20) * 150)
        machine.run("volume", "put", "kept-files", big)
        said = machine.run("server", "backup", disk / "saved", "--volume", "kept-files", status=1).stderr
        assert "is full" in said
        assert list(disk.iterdir()) == []
        machine.run("server", "backup", disk / "saved")
        for name, digest in _digests(disk / "saved").items():
            assert hashlib.sha256((disk / "saved" / name).read_bytes()).hexdigest() == digest
    finally:
        subprocess.run(["umount", disk], check=True)


def _digests(folder):
    return {one["path"]: one["sha256"] for one in json.loads((folder / "manifest.json").read_text())["files"]}
