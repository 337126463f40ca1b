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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import cgroups, kernel, mounts, output, traffic, users
from alight.node.engine.base import ContainerState, EngineError, Stats
from alight.node.moving import Moving
from alight.node.output import STDERR, STDOUT, OutputFile

if TYPE_CHECKING:
    from collections.abc import Callable

    from alight.node.network import Network, Space
    from alight.node.users import Users

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
    base: int = 0
    """The first id of its user namespace on the host. 0: it has none of its own."""
    own_layers: list[str] = field(default_factory=list)
    """On top of the layers, with owners as they are to be on the host."""
    shared: list[str] = field(default_factory=list)
    """Sources of binds that many containers have, to be shown with its ids by ``mounts.Shared``."""
    devices: list[str] = field(default_factory=list)
    """Device nodes of the host that it may use, likewise."""
    shown: list[tuple[str, str]] = field(default_factory=list)
    """Other sources of binds, and the names in ``place`` under which they are shown with its ids."""

    @property
    def place(self) -> str:
        """Where its mounts are put together: its directory, or that as its own root sees it."""
        return mounts.place(self.id) if self.base else self.directory


@dataclass(frozen=True)
class Runtime:
    """The OCI runtime of this instance."""

    binary: str
    root: str
    """Where it keeps its own state."""
    moving: Moving
    shared: mounts.Shared
    users: bool
    """Whether containers can have user namespaces here."""
    host_mounts: int
    """The mount namespace of the machine, for what is to see none of ours."""
    busy_groups: set[str] = field(default_factory=set)
    """Control groups of what is gone that could not be removed yet: somebody in them is still ending."""

    def remove_group(self, group: str) -> None:
        """Now, or as soon as it can be (``remove_busy_groups``)."""
        if not cgroups.remove(group):
            self.busy_groups.add(group)

    def remove_busy_groups(self) -> None:
        """Try again, from time to time."""
        for group in [*self.busy_groups]:
            if cgroups.remove(group):
                self.busy_groups.discard(group)
            else:
                log.warning("the control group %s is still in use", group)


class Container:
    """Starting until ``launched``, running until ``ended``."""

    def __init__(self, request: Request, runtime: Runtime, network: Network) -> None:
        self.request = request
        self._runtime = runtime
        self._network = network
        self.space: Space | None = None
        self.gang = ""  # which containers may reach it
        self.pipes: dict[int, int] = {}
        self._output: OutputFile | None = None
        self.launcher: int | None = None
        self.pid: int | None = None
        self.state = ContainerState(request.id, "running", None, time.time())
        self.last_stats = Stats()
        self._unsaved = False
        self._users: Users | None = None
        self._stages: dict[str, float] = {}
        self._exec_began = 0.0

    def launch(self) -> None:
        """Make everything ready and start the runtime, whose end ``launched`` has to be told.

        After an error call ``release``.
        """
        directory = self.request.directory
        began = time.monotonic()
        namespace = self._enter_users()
        joined = time.monotonic()
        try:
            self._mount()
        except (OSError, EngineError):
            if namespace is not None:
                os.close(namespace)
            raise
        mounted = time.monotonic()
        self.space = self._network.create(full=self.request.full_network, namespace=namespace)
        self._link("netns", self.space.namespace)
        self._exec_began = time.monotonic()
        self._stages = {"mounts": mounted - joined, "network": self._exec_began - mounted + joined - began}
        self._output = OutputFile(f"{directory}/output.log")
        out, out_writer = os.pipe2(os.O_CLOEXEC)
        err, err_writer = os.pipe2(os.O_CLOEXEC)
        self.pipes = {out: STDOUT, err: STDERR}
        for pipe in self.pipes:
            os.set_blocking(pipe, False)
            # Whoever opens /dev/stdout opens the pipe anew, and must own it.
            os.fchown(pipe, self.request.base, self.request.base)
        try:
            self.launcher = self._run(out_writer, err_writer)
        finally:
            os.close(out_writer)
            os.close(err_writer)

    def launched(self, status: int) -> None:
        """The runtime ended. Raises when the container did not come to be."""
        self.launcher = None
        if status != 0:
            raise EngineError(f"The container {self.request.id} did not start: {self._reason(status)}")
        self.pid = self._first_process()
        stages = {**self._stages, "exec": time.monotonic() - self._exec_began}
        self.state = replace(self.state, pid=self.pid, stages=stages)
        self._leave_users()
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
        self.state = replace(
            self.state,
            status="exited",
            exit_code=code if code >= 0 else None,
            signal=-code if code < 0 else None,
            oom_killed=bad and cgroups.oom_kills(self.request.group) > 0,
            ended_at=time.time(),
        )
        device = self.space.device if self.space is not None else None
        self.last_stats = traffic.add(cgroups.stats(self.request.group), traffic.of_device(device))
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
        self._leave_users()
        self._unmount()
        shutil.rmtree(self.request.work, ignore_errors=True)
        shutil.rmtree(f"{self._runtime.root}/{self.request.id}", ignore_errors=True)
        self._runtime.remove_group(self.request.group)

    def say(self, text: str) -> bool:
        """Add a line of ours to its output. False when that is complete already."""
        if self._output is None or self.pid is None:
            return False
        self._output.write(STDERR, f"[alight] {text}\n".encode())
        return True

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
    def is_known(self) -> bool:
        """Whether it is a container for those who ask which there are."""
        return self.launcher is None

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

    def plain(self) -> dict[str, Any]:
        """The state, and its control group, which may have another name than the container."""
        return {**self.state.to_plain(), "group": self.request.group}

    def save(self) -> None:
        """Write ``state.json``. Tried again by ``save_if_needed`` when the disk is full."""
        path = Path(self.request.directory, "state.json")
        new = Path(f"{path}.new")
        try:
            new.write_text(json.dumps(self.plain()), encoding="utf-8")
            new.replace(path)
            self._unsaved = False
        except OSError as error:
            if not self._unsaved:
                log.error("cannot write %s: %s", path, error)
            self._unsaved = True

    def save_if_needed(self) -> None:
        if self._unsaved:
            self.save()

    def _enter_users(self) -> int | None:
        # The network namespace that belongs to the new user namespace; None where neither is made.
        if not self.request.base:
            return None
        self._users, namespace = self._make_users()
        self._link("userns", self._users.fd)
        return namespace

    def _make_users(self) -> tuple[Users, int]:
        return users.child_of_host(self.request.base)

    def _leave_users(self) -> None:
        # Its processes hold it from now on.
        if self._users is not None:
            self._users.close()
            self._users = None

    def _mount(self) -> None:
        request, owned, layers = self.request, self._users, self.request.layers
        for path in (f"{request.directory}/root", request.work):
            Path(path).mkdir(mode=0o700, exist_ok=True)
        if owned is not None:
            Path(request.place).mkdir(mode=0o700)
            # One mount for all that is its own, below which the others are: they go together.
            mounts.idmapped(request.directory, request.place, owned)
            layers = [self._runtime.shared.show(one, owned) for one in layers]
            for source in request.shared:
                self._runtime.shared.show(source, owned)
            for path in request.devices:
                self._runtime.shared.device(path, owned.base)
            for source, name in request.shown:
                mounts.idmapped(source, f"{request.place}/{name}", owned)
        mounts.overlay(f"{request.place}/root", [*request.own_layers, *layers], request.upper, request.work)

    def _unmount(self) -> None:
        if not self.request.base:
            mounts.detach(f"{self.request.place}/root")
            return
        mounts.detach(self.request.place)
        with contextlib.suppress(FileNotFoundError):
            Path(self.request.place).rmdir()

    def _link(self, name: str, descriptor: int) -> None:
        path = Path(self.request.directory, name)
        path.unlink(missing_ok=True)
        path.symlink_to(f"/proc/{os.getpid()}/fd/{descriptor}")

    def _run(self, out: int, err: int) -> int:
        return execute(self._command(), out, err)

    def _first_process(self) -> int:
        return int(Path(self.request.directory, "pid").read_text(encoding="ascii"))

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


def execute(
    command: list[str],
    out: int,
    err: int,
    *,
    fork: Callable[[], int] = os.fork,
    enter: Callable[[], None] | None = None,
    third: int | None = None,
) -> int:
    """Start an OCI runtime; its pid. ``enter`` is called in the child; ``third`` becomes its descriptor 3."""
    parent = os.getpid()
    pid = fork()
    if pid:
        return pid
    try:
        # A runtime that outlived us would make a container that nobody waits for.
        kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() not in {parent, 0}:  # 0: we are in another pid namespace, which ends with our parent anyway
            os._exit(1)
        if enter is not None:
            enter()
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        # Held above: one of ours may lie where another goes.
        above = fcntl.F_DUPFD_CLOEXEC
        null = os.open("/dev/null", os.O_RDONLY)
        given = [null, out, err] if third is None else [null, out, err, third]
        for target, descriptor in enumerate([fcntl.fcntl(one, above, len(given)) for one in given]):
            os.dup2(descriptor, target)
        os.execvp(command[0], command)  # noqa: S606 no shell is what we want
    except OSError as error:
        os.write(err, f"{command[0]}: {error.strerror}".encode())
    finally:
        os._exit(127)
