"""Buckets as directories for containers, as commands of the spawner: mounts of its own, each served by an rclone.

``bucket`` mounts one and is answered when rclone serves it; ``unbucket`` ends those of a container. They outlive the
agent and the container's processes, so that what was written gets to the bucket; never the spawner. Decision 0016.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import socket
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import bucket_process, kernel, mounts
from alight.node.bucket_process import NOBODY, Rclone
from alight.node.engine.base import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.network import Network, Space
    from alight.node.spawner import Spawner
    from alight.node.spawner_client import Client
    from alight.node.spawner_container import Runtime

log = logging.getLogger("alight.spawner")

#: Seconds until rclone serves.
_START_SECONDS = 20.0
#: So many lines of one rclone go into its container's output, in so many seconds.
_LINES, _LINES_SECONDS = 20, 60.0
_CHUNK, _LINE_MOST, _SAID_KEPT = 1 << 14, 500, 6
_MS_RDONLY = 0x1


@dataclass
class Bucket:
    """One that is mounted, or about to be."""

    container: str
    number: int
    words: str
    place: str
    hidden: tuple[str, ...]
    pid: int = 0
    """0: rclone has ended."""
    output: int = -1
    notices: socket.socket | None = None
    waiting: tuple[Client, int] | None = None
    """Who is answered when it serves."""
    began: float = field(default_factory=time.monotonic)
    said: deque[str] = field(default_factory=lambda: deque(maxlen=_SAID_KEPT))
    """The last that rclone said."""
    rest: bytes = b""
    lines: int = 0
    lines_since: float = 0.0


class Buckets:
    """What the spawner has of them. ``spawner`` is the loop that this is a part of."""

    def __init__(self, spawner: Spawner, runtime: Runtime, network: Network) -> None:
        self._spawner = spawner
        self._runtime = runtime
        self._network = network
        self._space: Space | None = None
        self._by_place: dict[str, Bucket] = {}
        self.commands: dict[str, Callable[[Client, int, dict[str, Any]], bool]] = {
            "bucket": self._do_bucket,
            "buckets": self._do_buckets,
            "unbucket": self._do_unbucket,
            "bucket_dns": self._do_dns,
            "bucket_sweep": self._do_sweep,
        }

    # Commands

    def _do_bucket(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        binary = shutil.which("rclone")
        if binary is None:
            raise EngineError("rclone is not installed", hint="Install the package rclone")
        container, index, base = str(message["id"]), int(message["number"]), int(message["base"])
        place = mounts.bucket_place(container, index)
        hidden = tuple(str(one) for one in message["hidden"])
        bucket = Bucket(container, index, str(message["words"]), place, hidden, waiting=(client, number))
        self._by_place[place] = bucket
        try:
            self._begin(bucket, binary, base, message)
        except OSError as error:
            self._end(bucket)
            raise EngineError(f"{bucket.words} cannot be mounted: {error}") from error
        return True

    def _do_buckets(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        found = [one.number for one in self._of(str(message["id"])) if one.pid]
        return client.send({"n": number, "ok": found})

    def _do_unbucket(self, client: Client, number: int, message: dict[str, Any]) -> bool:
        self.drop(str(message["id"]))
        return client.send({"n": number, "ok": None})

    def _do_dns(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        if self._space is None or self._space.dns is None:
            return client.send({"n": number, "ok": 0})
        return client.send({"n": number, "ok": 2}, [one.fileno() for one in self._space.dns])

    def _do_sweep(self, client: Client, number: int, _: dict[str, Any]) -> bool:
        # An agent was killed between a bucket and its container: nobody will ask for either.
        for bucket in list(self._by_place.values()):
            if bucket.container not in self._spawner.containers:
                log.warning("container %s never came: %s, is unmounted", bucket.container, bucket.words)
                self._end(bucket)
        return client.send({"n": number, "ok": None})

    # What the loop tells

    def drop(self, container: str) -> None:
        """End those of a container: mounts and processes. What lies in its directory goes with that."""
        for bucket in self._of(container):
            self._end(bucket)

    def stop(self) -> None:
        """End all."""
        for bucket in list(self._by_place.values()):
            self._end(bucket)

    def end_slow_starts(self) -> None:
        """Give up on what does not come to serve."""
        for bucket in list(self._by_place.values()):
            if bucket.waiting is not None and time.monotonic() - bucket.began > _START_SECONDS:
                self._fails(bucket, f"rclone did not serve it within {_START_SECONDS:.0f} s")

    def reaped(self, pid: int, status: int) -> bool:
        """Whether this was one of ours; its files answer with an error from now on."""
        bucket = next((one for one in self._by_place.values() if one.pid == pid), None)
        if bucket is None:
            return False
        bucket.pid = 0
        self._read(bucket)
        code = os.waitstatus_to_exitcode(status)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        if bucket.waiting is not None:
            self._fails(bucket, f"rclone {how}")
            return True
        self._say(bucket, f"{bucket.words}, is gone: rclone, which serves it, {how}{_quoted(bucket)}")
        self._say(bucket, "its files answer 'Transport endpoint is not connected' until this container ends")
        return True

    # Inside

    def _begin(self, bucket: Bucket, binary: str, base: int, message: dict[str, Any]) -> None:
        space = None if message["host_network"] else self._own_space()
        cache = Path(str(message["directory"]), "buckets", str(bucket.number))
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        user = base + NOBODY
        os.chown(cache, user, user)
        Path(bucket.place).mkdir(mode=0o700)
        name = f"@alight-bucket-{os.urandom(8).hex()}"
        bucket.notices = self._notices(space, name)
        fuse = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)
        bucket.output = reader
        try:
            flags = kernel.MS_NOSUID | kernel.MS_NODEV | (_MS_RDONLY if message["read_only"] else 0)
            options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
            remote = str(message["remote"])
            kernel.mount(remote.partition(":")[2], bucket.place, "fuse.rclone", flags, options)
            bucket.pid = bucket_process.start(
                Rclone(
                    binary=binary,
                    remote=remote,
                    arguments=[str(one) for one in message["arguments"]],
                    env={**message["env"], "NOTIFY_SOCKET": name},
                    cache=str(cache),
                    user=user,
                    owner=base,
                    fuse=fuse,
                    output=writer,
                    host_mounts=self._runtime.host_mounts,
                    network=-1 if space is None else space.namespace,
                )
            )
        finally:
            # Held by rclone alone, so that its end is the end of the mount.
            os.close(fuse)
            os.close(writer)
        notices = bucket.notices
        self._spawner.watch(reader, lambda: self._read(bucket))
        self._spawner.watch(notices.fileno(), lambda: self._noticed(bucket))

    def _own_space(self) -> Space:
        # One for all buckets: the firewall treats it as a container's, so it leads to no port of this machine.
        if self._space is None:
            self._space = self._network.create(full=True)
        return self._space

    def _notices(self, space: Space | None, name: str) -> socket.socket:
        # An abstract name belongs to a network: it must be that of rclone.
        if space is None:
            ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        else:
            ours = self._network.socket_in(space, socket.AF_UNIX, socket.SOCK_DGRAM)
        ours.setblocking(False)
        ours.bind(f"\0{name[1:]}")
        return ours

    def _noticed(self, bucket: Bucket) -> None:
        assert bucket.notices is not None
        with contextlib.suppress(BlockingIOError):
            said = bucket.notices.recv(4096)
            if b"READY=1" in said.splitlines() and bucket.waiting is not None:
                client, number = bucket.waiting
                bucket.waiting = None
                self._spawner.answer(client, {"n": number, "ok": None})

    def _read(self, bucket: Bucket) -> None:
        if bucket.output < 0:
            return
        try:
            data = os.read(bucket.output, _CHUNK)
        except BlockingIOError:
            return
        if not data:
            self._close_output(bucket)
        *whole, bucket.rest = (bucket.rest + data).split(b"\n")
        if len(bucket.rest) > _LINE_MOST or not data:
            whole, bucket.rest = [*whole, bucket.rest], b""
        for line in whole:
            text = _clean(line, bucket.hidden)
            if text:
                bucket.said.append(text)
                if bucket.waiting is None:
                    self._say_some(bucket, text)

    def _say_some(self, bucket: Bucket, text: str) -> None:
        now = time.monotonic()
        if now - bucket.lines_since > _LINES_SECONDS:
            if bucket.lines > _LINES:
                self._say(bucket, f"{bucket.words}: and {bucket.lines - _LINES} lines more")
            bucket.lines, bucket.lines_since = 0, now
        bucket.lines += 1
        if bucket.lines <= _LINES:
            self._say(bucket, f"{bucket.words}: {text}")

    def _say(self, bucket: Bucket, text: str) -> None:
        container = self._spawner.containers.get(bucket.container)
        if container is None or not container.say(text):
            log.warning("container %s: %s", bucket.container, text)

    def _fails(self, bucket: Bucket, why: str) -> None:
        assert bucket.waiting is not None
        client, number = bucket.waiting
        bucket.waiting = None
        error = EngineError(f"{bucket.words}, could not be mounted: {why}{_quoted(bucket)}")
        self._end(bucket)
        self._spawner.refuse(client, number, error)

    def _end(self, bucket: Bucket) -> None:
        if self._by_place.get(bucket.place) is bucket:
            del self._by_place[bucket.place]
        if bucket.pid:
            # Reaped like any child; nobody is interested in how it ended.
            os.kill(bucket.pid, signal.SIGKILL)
            bucket.pid = 0
        if bucket.notices is not None:
            self._spawner.unwatch(bucket.notices.fileno())
            bucket.notices.close()
            bucket.notices = None
        self._close_output(bucket)
        mounts.detach(bucket.place)
        with contextlib.suppress(OSError):
            Path(bucket.place).rmdir()

    def _close_output(self, bucket: Bucket) -> None:
        if bucket.output >= 0:
            self._spawner.unwatch(bucket.output)
            os.close(bucket.output)
            bucket.output = -1

    def _of(self, container: str) -> list[Bucket]:
        return [one for one in self._by_place.values() if one.container == container]


def _clean(line: bytes, hidden: tuple[str, ...]) -> str:
    text = line.decode(errors="replace")
    for one in hidden:
        text = text.replace(one, "***")
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:_LINE_MOST]


def _quoted(bucket: Bucket) -> str:
    return f" (it said: {' / '.join(bucket.said)})" if bucket.said else ""
