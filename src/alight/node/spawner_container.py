"""One container as the spawner knows it: what it holds open, how it starts, how it ends.

Runs in the spawner only, single-threaded. Nothing here waits for anything but local system calls.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import shutil
import signal
import sys
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import cgroups, kernel, mounts, output
from alight.node.engine.base import ContainerState, EngineError, Stats
from alight.node.moving import Moving
from alight.node.output import STDERR, STDOUT, OutputFile

if TYPE_CHECKING:
    from alight.node.network import Network, Space

log = logging.getLogger("alight.spawner")

_CHUNK = 1 << 16
_KEPT_OUTPUT = 1 << 12
_ABANDON_SECONDS = 1.0


@dataclass(frozen=True)
class Request:
    """What the engine asks to start. The rest of the plan is in the bundle's ``config.json``."""

    id: str
    directory: str
    layers: list[str]
    upper: str
    work: str
    group: str
    full_network: bool


@dataclass(frozen=True)
class Runtime:
    """The OCI runtime of this instance."""

    binary: str
    root: str
    """Where it keeps its own state."""
    moving: Moving


class Container:
    """Starting until ``launched``, running until ``ended``."""

    def __init__(self, request: Request, runtime: Runtime, network: Network) -> None:
        self.request = request
        self._runtime = runtime
        self._network = network
        self.space: Space | None = None
        self.pipes: dict[int, int] = {}
        self._output: OutputFile | None = None
        self.launcher: int | None = None
        self.pid: int | None = None
        self.state = ContainerState(request.id, "running", None, time.time())
        self.last_stats = Stats()
        self._unsaved = False

    def launch(self) -> None:
        """Make everything ready and start the runtime, whose end ``launched`` has to be told."""
        directory = self.request.directory
        root = f"{directory}/root"
        for path in (root, self.request.work):
            Path(path).mkdir(mode=0o700)
        mounts.overlay(root, self.request.layers, self.request.upper, self.request.work)
        self.space = self._network.create(full=self.request.full_network)
        Path(directory, "netns").symlink_to(f"/proc/{os.getpid()}/fd/{self.space.namespace}")
        self._output = OutputFile(f"{directory}/output.log")
        out, out_writer = os.pipe2(os.O_CLOEXEC)
        err, err_writer = os.pipe2(os.O_CLOEXEC)
        self.pipes = {out: STDOUT, err: STDERR}
        for pipe in self.pipes:
            os.set_blocking(pipe, False)
        try:
            self.launcher = _fork(self._command(), out_writer, err_writer)
        finally:
            os.close(out_writer)
            os.close(err_writer)

    def launched(self, status: int) -> None:
        """The runtime ended. Raises when the container did not come to be."""
        self.launcher = None
        if status != 0:
            raise EngineError(f"The container {self.request.id} did not start: {self._reason(status)}")
        self.pid = int(Path(self.request.directory, "pid").read_text(encoding="ascii"))
        self.state = ContainerState(self.request.id, "running", self.pid, self.state.started_at)
        # It holds the environment, and nobody needs it any more.
        Path(self.request.directory, "config.json").unlink()
        self.save()

    def ended(self, status: int) -> None:
        """The first process is dead and reaped, and with it all others. Never raises: other containers live on."""
        try:
            self.pump()
        except OSError:
            log.exception("output of %s is lost", self.request.id)
        code = os.waitstatus_to_exitcode(status)
        bad = code != 0
        self.state = ContainerState(
            id=self.request.id,
            status="exited",
            pid=self.pid,
            started_at=self.state.started_at,
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            oom_killed=bad and cgroups.oom_kills(self.request.group) > 0,
            ended_at=time.time(),
        )
        self.last_stats = cgroups.stats(self.request.group)
        self.pid = None
        try:
            self.release()
        except OSError:
            log.exception("not everything of %s was given back", self.request.id)
        self.save()

    def abandon(self) -> None:
        """It did not come to be; what the runtime began is ended."""
        cgroups.kill_all(self.request.group, _ABANDON_SECONDS)
        self.release()

    def release(self) -> None:
        """Give back everything but the directory. May be called at any stage, and again."""
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes = {}
        if self._output is not None:
            self._output.close()
        if self.space is not None:
            self._network.release(self.space)
            self.space = None
        mounts.detach(f"{self.request.directory}/root")
        shutil.rmtree(self.request.work, ignore_errors=True)
        shutil.rmtree(f"{self._runtime.root}/{self.request.id}", ignore_errors=True)
        if not cgroups.remove(self.request.group):
            log.warning("a control group of %s is still in use", self.request.id)

    def pump(self) -> int:
        """Move what is in the pipes now to the file; its size after that. Not more, or a busy writer would hold us."""
        for pipe, stream in self.pipes.items():
            waiting = int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)
            while waiting > 0:
                moved = self._pump_once(pipe, stream)
                if not moved:
                    break
                waiting -= moved
        return self.output_size

    def pump_some(self, pipe: int) -> bool:
        """Move one piece. False at the end of the pipe, which is closed then."""
        if self._pump_once(pipe, self.pipes[pipe]) is not None:
            return True
        del self.pipes[pipe]
        os.close(pipe)
        return False

    @property
    def output_size(self) -> int:
        return self._output.size if self._output is not None else 0

    def signal(self, signum: int, *, everyone: bool) -> None:
        if self.pid is None:
            return
        if everyone:
            cgroups.signal_all(self.request.group, signum)
        else:
            # Safe from reused numbers: it is our child, and only we reap it.
            os.kill(self.pid, signum)

    def stats(self) -> Stats:
        return self.last_stats if self.pid is None else cgroups.stats(self.request.group)

    def save(self) -> None:
        """Write ``state.json``. Tried again by ``save_if_needed`` when the disk is full."""
        plain: dict[str, Any] = self.state.to_plain()
        plain["group"] = self.request.group
        path = Path(self.request.directory, "state.json")
        new = Path(f"{path}.new")
        try:
            new.write_text(json.dumps(plain), encoding="utf-8")
            new.replace(path)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                log.error("cannot write %s: %s", path, error)
            self._unsaved = True

    def save_if_needed(self) -> None:
        if self._unsaved:
            self.save()

    def _command(self) -> list[str]:
        directory = self.request.directory
        return [
            self._runtime.binary,
            *("--root", self._runtime.root, "--log", f"{directory}/runtime.log", "--log-format", "json"),
            # A keyring per container would use up the quota of root after 200.
            *("run", "--detach", "--no-new-keyring"),
            *("--pid-file", f"{directory}/pid", "--bundle", directory, self.request.id),
        ]

    def _reason(self, status: int) -> str:
        said = ""
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            lines = Path(self.request.directory, "runtime.log").read_text(encoding="utf-8").splitlines()
            said = str(json.loads(lines[-1])["msg"])
        if not said:
            self.pump()
            with contextlib.suppress(OSError):
                records = output.read(Path(self.request.directory, "output.log"))
                said = b"".join(one.data for one in records).decode(errors="replace")[-_KEPT_OUTPUT:]
        said = said.strip() or f"status {os.waitstatus_to_exitcode(status)}"
        return said.removeprefix("runc run failed: ").removeprefix("unable to start container process: ")

    def _pump_once(self, pipe: int, stream: int) -> int | None:
        # The number of bytes moved, 0 when there is nothing now, None at the end.
        moving = self._runtime.moving
        moving.begin()
        try:
            data = os.read(pipe, _CHUNK)
            if not data:
                return None
            assert self._output is not None
            self._output.write(stream, data)
        except BlockingIOError:
            return 0
        finally:
            moving.end()
        return len(data)


def _fork(command: list[str], out: int, err: int) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        # A runtime that outlived us would make a container that nobody waits for.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        null = os.open("/dev/null", os.O_RDONLY)
        for descriptor, target in ((null, 0), (out, 1), (err, 2)):
            os.dup2(descriptor, target)
        os.execvp(command[0], command)  # noqa: S606 no shell is what we want
    except OSError as error:
        os.write(2, f"{command[0]}: {error.strerror}".encode())
    finally:
        os._exit(127)
