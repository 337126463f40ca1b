"""Containers as bare processes: no isolation, no root. For tests, and for machines where nothing else is possible.

It refuses what it cannot honour (``lenient`` turns a refusal into a warning). What a plan binds is not there under its
target: the process finds ``ALIGHT_BINDS``, a JSON object from target to the host's path, and whoever made the plan has
to pass host paths in ``argv`` and ``env`` wherever ``Engine.isolates`` is false. A working directory that the host does
not have is replaced by ``cwd/`` in the container's directory.

Processes live as long as the agent's process: output passes through its threads. What a killed agent left running is
ended by the next ``open``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import logging
import os
import selectors
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from alight.node.engine.base import DEFAULT_PIDS, ContainerPlan, ContainerState, EngineError, Stats
from alight.node.engine.execs import Exec, ExecPlan
from alight.node.engine.process_exec import ProcessExec
from alight.node.output import STDERR, STDOUT, OutputFile

log = logging.getLogger("alight.node.engine")

_CHUNK: Final = 1 << 16
_TICK: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_AGENT_DIED = "the node's agent, on which an unisolated process depends, was killed"


class ProcessEngine:
    """See ``base.Engine``."""

    name = "process"
    isolates = False

    def __init__(self, home: Path, *, lenient: bool = False) -> None:
        self._containers = Path(home).resolve() / "node" / "containers"
        self._lenient = lenient
        self._states: dict[str, ContainerState] = {}
        self._opened = time.time()

    def directory(self, container_id: str) -> Path:
        return self._containers / container_id

    def prepare(self, container_id: str) -> Path:
        """Make a container's directory before ``start``, for what the plan binds from it."""
        directory = self.directory(container_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    async def open(self) -> None:
        self._containers.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in self._containers.iterdir():
            if str(path) not in _PROCESSES:
                self._adopt_dead(path)

    async def end_left(self) -> int:
        """End what a killed agent left running; how many those were."""
        if not self._containers.is_dir():
            return 0
        await self.open()
        return sum(one.error == _AGENT_DIED and (one.ended_at or 0.0) >= self._opened for one in self._states.values())

    async def start(self, plan: ContainerPlan) -> ContainerState:
        self._refuse(plan)
        directory = self.prepare(plan.id)
        if str(directory) in _PROCESSES or plan.id in self._states:
            raise EngineError(f"The container {plan.id} exists already")
        try:
            process = await asyncio.to_thread(_Process, plan, directory)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
            raise EngineError(
                f"The container {plan.id} did not start: {plan.argv[0]}: {error.strerror}",
                hint="The process engine runs programs of this machine, not of an image",
            ) from error
        _PROCESSES[str(directory)] = process
        return process.state

    async def signal(self, container_id: str, signum: int, *, everyone: bool = False) -> None:
        process = self._find(container_id)
        if process is not None:
            process.signal(signum, everyone=everyone)

    async def kill(self, container_id: str) -> None:
        await self.signal(container_id, signal.SIGKILL, everyone=True)
        await self.wait(container_id)

    async def wait(self, container_id: str) -> ContainerState:
        process = self._find(container_id)
        if process is None:
            return self._states[container_id]
        return await asyncio.wrap_future(process.end)

    async def drain(self, container_id: str) -> int:
        process = self._find(container_id)
        if process is not None:
            return await asyncio.to_thread(process.drain)
        path = self.directory(container_id) / "output.log"
        return path.stat().st_size if path.exists() else 0

    def is_drained(self, container_id: str) -> bool:
        return False

    async def remove(self, container_id: str) -> None:
        directory = self.directory(container_id)
        if str(directory) in _PROCESSES:
            await self.kill(container_id)
            del _PROCESSES[str(directory)]
        self._states.pop(container_id, None)
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def list(self) -> Sequence[ContainerState]:
        return [*self._states.values(), *(one.state for one in self._mine())]

    async def stats(self, container_id: str) -> Stats:
        process = self._find(container_id)
        return process.stats() if process is not None else Stats()

    async def inside(self, container_id: str) -> set[int]:
        process = self._find(container_id)
        return _session(process.pid) if process is not None else set()

    async def exec(self, container_id: str, plan: ExecPlan) -> Exec:
        """Run another program beside a running container: see ``execs.Execs``."""
        process = self._find(container_id)
        if process is None or process.state.status != "running":
            raise EngineError(f"The container {container_id} does not run")
        cwd = plan.cwd if os.access(plan.cwd, os.X_OK) else str(process.directory)
        return ProcessExec(plan, cwd, lambda: self.wait(container_id))

    async def dns_sockets(self, container_id: str) -> tuple[socket.socket, socket.socket] | None:
        self._find(container_id)
        return None

    async def netns_socket(self, container_id: str, family: int, kind: int) -> socket.socket:
        self._find(container_id)
        return socket.socket(family, kind)

    async def connect(self, gang: str, container_ids: Sequence[str]) -> tuple[str, ...]:
        """Processes of one machine reach each other anyway: each gets a loopback address of its own."""
        number = zlib.crc32(gang.encode()) % (64 * 256)
        return tuple(f"127.{64 + number // 256}.{number % 256}.{rank + 1}" for rank in range(len(container_ids)))

    async def disconnect(self, gang: str) -> None:
        """There is nothing to take back."""

    async def close(self) -> None:
        """Nothing to let go: processes belong to the agent's process, not to this object."""

    async def shutdown(self) -> None:
        for process in self._mine():
            process.signal(signal.SIGKILL, everyone=True)
            await asyncio.wrap_future(process.end)
            self._states[process.state.id] = process.state
            del _PROCESSES[str(process.directory)]

    def _mine(self) -> Sequence[_Process]:
        return [one for one in _PROCESSES.values() if one.directory.parent == self._containers]

    def _find(self, container_id: str) -> _Process | None:
        # None for one that ended under an earlier agent.
        process = _PROCESSES.get(str(self.directory(container_id)))
        if process is None and container_id not in self._states:
            raise EngineError(f"There is no container {container_id}")
        return process

    def _refuse(self, plan: ContainerPlan) -> None:
        limits = plan.limits
        asked = {
            "an image": bool(plan.layers),
            "a read-only root": plan.readonly,
            "a writable layer": plan.upper is not None,
            "a network of its own": plan.network != "full",
            "devices": bool(plan.devices),
            "a memory limit": limits.memory_bytes is not None,
            "a CPU limit": limits.cpu_quota is not None,
            "a limit of processes": limits.pids != DEFAULT_PIDS,
            "a size of /dev/shm": limits.shm_bytes is not None,
        }
        refused = [what for what, is_asked in asked.items() if is_asked]
        if not refused:
            return
        sentence = f"The process engine isolates nothing and cannot give {', '.join(refused)} to {plan.id}"
        if not self._lenient:
            raise EngineError(sentence, hint="Use the OCI engine; `alight doctor` says what it needs on this machine")
        log.warning(sentence)

    def _adopt_dead(self, path: Path) -> None:
        try:
            plain = json.loads((path / "state.json").read_text(encoding="utf-8"))
            state = ContainerState.from_plain(plain)
            born = int(plain["born"])
        except (OSError, ValueError, TypeError, KeyError):
            return
        if state.status == "running":
            if state.pid is not None and _born(state.pid) == born:
                for pid in _session(state.pid):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            state = replace(state, status="exited", signal=signal.SIGKILL, ended_at=time.time(), error=_AGENT_DIED)
            _write_state(path, state, born)
        self._states[state.id] = state


class _Process:
    """One process, and the thread that reads what it prints and sees its end."""

    def __init__(self, plan: ContainerPlan, directory: Path) -> None:
        self.directory = directory
        self.end: concurrent.futures.Future[ContainerState] = concurrent.futures.Future()
        # Many wait for it; none of them may cancel it for the others.
        self.end.set_running_or_notify_cancel()
        cwd = Path(plan.cwd)
        if not (cwd.is_dir() and os.access(cwd, os.X_OK)):
            cwd = directory / "cwd"
            cwd.mkdir(exist_ok=True)
        environment = {**plan.env, "ALIGHT_BINDS": json.dumps({one.target: one.source for one in plan.binds})}
        self._output = OutputFile(str(directory / "output.log"))
        self._lock = threading.Lock()
        try:
            self._popen = subprocess.Popen(
                plan.argv,
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError:
            self._output.close()
            raise
        self.pid = self._popen.pid
        assert self._popen.stdout is not None
        assert self._popen.stderr is not None
        self._pipes = {self._popen.stdout.fileno(): STDOUT, self._popen.stderr.fileno(): STDERR}
        for pipe in self._pipes:
            os.set_blocking(pipe, False)
        self._last = Stats()
        self._born = _born(self.pid) or 0
        self.state = ContainerState(plan.id, "running", self.pid, time.time())
        _write_state(directory, self.state, self._born)
        threading.Thread(target=self._run, name=f"container {plan.id}", daemon=True).start()

    def signal(self, signum: int, *, everyone: bool) -> None:
        # Popen knows whether the number is still ours.
        if self.state.status == "exited":
            return
        others = _session(self.pid) - {self.pid} if everyone else set()
        # The first one first: it must not see a child die of a kill and end by itself.
        self._popen.send_signal(signum)
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signum)

    def drain(self) -> int:
        with self._lock:
            if self.state.status == "running":
                self._pump()
            return self._output.size

    def stats(self) -> Stats:
        return _usage(_session(self.pid)) if self.state.status == "running" else self._last

    def _run(self) -> None:
        descriptor = os.pidfd_open(self.pid)
        with selectors.DefaultSelector() as selector:
            for one in (*self._pipes, descriptor):
                selector.register(one, selectors.EVENT_READ)
            running = True
            while running:
                ready = [key.fd for key, _ in selector.select()]
                running = descriptor not in ready
                with self._lock:
                    self._last = _usage(_session(self.pid)) if not running else self._last
                    for pipe in ready:
                        if pipe in self._pipes and self._pump_one(pipe) is None:
                            selector.unregister(pipe)
                            del self._pipes[pipe]
        os.close(descriptor)
        self._finish()

    def _finish(self) -> None:
        # What it started goes with it, as it would in a process namespace; it is not reaped yet, so its number holds.
        for pid in _session(self.pid) - {self.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = self._popen.wait()
        with self._lock:
            self._pump()
            self._output.close()
            self.state = replace(
                self.state,
                status="exited",
                exit_code=code if code >= 0 else None,
                signal=-code if code < 0 else None,
                ended_at=time.time(),
            )
            for stream in (self._popen.stdout, self._popen.stderr):
                if stream is not None:
                    stream.close()
        # The directory is gone when the agent was told to remove it.
        with contextlib.suppress(FileNotFoundError):
            _write_state(self.directory, self.state, self._born)
        self.end.set_result(self.state)

    def _pump(self) -> None:
        for pipe in self._pipes:
            while self._pump_one(pipe):
                pass

    def _pump_one(self, pipe: int) -> int | None:
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return 0
        if not data:
            return None
        self._output.write(self._pipes[pipe], data)
        return len(data)


# By directory: an engine that is closed and made again in one process finds its processes here.
_PROCESSES: dict[str, _Process] = {}


def _write_state(directory: Path, state: ContainerState, born: int) -> None:
    new = directory / "state.json.new"
    new.write_text(json.dumps({**state.to_plain(), "born": born}), encoding="utf-8")
    new.replace(directory / "state.json")


def _session(leader: int) -> set[int]:
    """The processes of a session. One that made a session of its own is not found: this engine isolates nothing."""
    found = set()
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            fields = _stat(int(path.name))
            if fields and fields[0] != "Z" and int(fields[3]) == leader:
                found.add(int(path.name))
    return found


def _usage(pids: set[int]) -> Stats:
    every = [fields for fields in map(_stat, pids) if fields]
    seconds = sum(int(one[11]) + int(one[12]) for one in every) / _TICK
    memory = sum(int(one[21]) for one in every) * _PAGE
    return Stats(seconds, memory, memory, len(every))


def _born(pid: int) -> int | None:
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def _stat(pid: int) -> list[str]:
    # Fields from the third on; the second is a name that may hold anything.
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
