"""What whoever starts the server relies on: one per directory, READY, its facts in server.json, a clean end."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alight.link.dial import Answers, dial_unix
from alight.wire.messages import BlobPut, Hello

SOURCE = Path(__file__).resolve().parents[2] / "src"


class Started:
    """A server process; ended with the test."""

    def __init__(self, home, *arguments, wait=True):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "alight.server", "--home", str(home), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.first = self.process.stdout.readline() if wait else b""

    def end(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        out = self.process.communicate(timeout=10)
        return self.process.returncode, out[1].decode()


@pytest.fixture
def start(tmp_path):
    """``start(*arguments)`` starts a server for one home."""
    started = []

    def begin(*arguments, **options):
        started.append(Started(tmp_path / "home", *arguments, **options))
        return started[-1]

    yield begin
    for one in started:
        if one.process.poll() is None:
            one.process.kill()
            one.process.communicate(timeout=10)


def test_it_says_ready_and_where_it_is_and_ends_cleanly(start, tmp_path):
    server = start("--listen", "127.0.0.1:0")
    assert server.first == b"READY\n"
    run = tmp_path / "home/run"
    facts = json.loads((run / "server.json").read_text())
    assert facts["pid"] == server.process.pid
    assert facts["address"].startswith("127.0.0.1:")
    assert len(facts["fingerprint"]) == 64
    assert run.stat().st_mode & 0o007 == 0
    assert (run / "server.sock").stat().st_mode & 0o007 == 0
    code, said = server.end()
    assert code == 0
    assert [json.loads(line)["msg"] for line in said.splitlines()][-1] == "stopped"
    assert not (run / "server.json").exists()
    assert not (run / "server.sock").exists()


def test_a_second_start_says_who_runs_and_leaves_the_first_alone(start):
    first = start("--listen", "none")
    second = start("--listen", "none", wait=False)
    _, said = second.process.communicate(timeout=10)
    assert second.process.returncode == 3
    assert f"is running for {first.process.args[4]} already (process {first.process.pid})" in said.decode()
    assert first.process.poll() is None


def test_a_killed_one_leaves_nothing_in_the_way(start):
    start("--listen", "none").end(signal.SIGKILL)
    again = start("--listen", "none")
    assert again.first == b"READY\n"
    assert again.end()[0] == 0


def test_an_address_that_cannot_be_is_one_sentence(start):
    for arguments in (("--listen", "nowhere"), ("--listen", "203.0.113.7:9")):
        server = start(*arguments, wait=False)
        _, said = server.process.communicate(timeout=10)
        assert server.process.returncode == 1
        assert "hint: " in said.decode()
        assert "Traceback" not in said.decode()


def test_an_upload_that_a_kill_cut_leaves_nothing_and_what_was_whole_stays(start, tmp_path):
    server = start("--listen", "none")
    whole = hashlib.sha256(b"whole").hexdigest()

    async def upload():
        peer = await dial_unix(str(tmp_path / "home/run/server.sock"), Hello(1, "0", "client"), Answers())
        done = await peer.open("blob.put", BlobPut(whole), b"whole", end=True)
        await done.expect(BlobPut)
        for digest in ("", hashlib.sha256(b"x" * (9 << 20)).hexdigest()):
            half = await peer.open("blob.put", BlobPut(digest))
            for _ in range(8):
                await half.send(None, b"x" * (1 << 20))
        incoming = tmp_path / "home/server/blobs/incoming"
        while sum(one.stat().st_size for one in incoming.iterdir()) < 8 << 20:  # noqa: ASYNC110  another process writes them
            await asyncio.sleep(0.01)
        server.end(signal.SIGKILL)
        assert len(list(incoming.iterdir())) == 2
        peer.close()

    asyncio.run(asyncio.wait_for(upload(), 30))
    start("--listen", "none")
    blobs = tmp_path / "home/server/blobs"
    assert [path.name for path in blobs.rglob("*") if path.is_file()] == [whole]
    assert (blobs / whole[:2] / whole).read_bytes() == b"whole"
