"""Containers by an OCI runtime (runc, crun): the filling of the engine that isolates.

The agent's half. It writes bundles, sets up the firewall, asks the spawner, and cleans up after a spawner that was
killed. What must survive the agent is the spawner's; what must survive the spawner is on disk and in control groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import alight
from alight.node import cgroups, firewall
from alight.node.engine import mountpoints, oci_config
from alight.node.engine.base import ContainerPlan, ContainerState, EngineError, Stats
from alight.node.engine.oci_client import SpawnerClient, SpawnerGone, connect, short_path
from alight.node.network import DNS_ADDRESS, Names

log = logging.getLogger("alight.node.engine")

_HELLO_SECONDS = 10.0
_SHUTDOWN_SECONDS = 20.0
_SPAWNER_DIED = "its parent process on the node was killed"


class OciEngine:
    """See ``base.Engine``."""

    name = "oci"
    isolates = True

    def __init__(self, home: Path, instance: str, *, runtime: str = "runc") -> None:
        self._home = Path(home).resolve()
        self._instance = instance
        self._names = Names.of(instance)
        self._runtime = runtime
        self._containers = self._home / "node" / "containers"
        self._socket_path = self._home / "run" / "spawner.sock"
        self._client: SpawnerClient | None = None
        self._machine = _machine()
        self._states: dict[str, ContainerState] = {}
        self._waiters: dict[str, list[asyncio.Future[ContainerState]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()

    def directory(self, container_id: str) -> Path:
        return self._containers / container_id

    def prepare(self, container_id: str) -> Path:
        """Make a container's directory before ``start``, for what the plan binds from it."""
        directory = self.directory(container_id)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return directory

    async def open(self) -> None:
        async with self._opening:
            if self._client is not None and self._client.is_open:
                return
            for path in (self._home / "run", self._home / "log", self._containers):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                client, hello = await self._join(connect(self._socket_path))
            except SpawnerGone:
                await asyncio.to_thread(self._reclaim)
                client, hello = await self._join(await asyncio.to_thread(self._spawn))
            self._client = client
            await asyncio.to_thread(firewall.install, self._names, hello["subnet"])
            self._adopt(await client.ask("list"))

    async def start(self, plan: ContainerPlan) -> ContainerState:
        directory = self.prepare(plan.id)
        try:
            request = self._bundle(plan, directory)
        except OSError as error:
            raise EngineError(f"The container {plan.id} could not be prepared: {error}") from error
        starting = asyncio.get_running_loop().create_task(self._start(plan, request))
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            # Nobody will ask for it, and half a start cannot be taken back: let it come, then let it go.
            self._background(self._discard(starting, plan.id))
            raise

    async def signal(self, container_id: str, signum: int, *, everyone: bool = False) -> None:
        if self._state(container_id).status == "running":
            # A spawner that is gone takes its containers with it.
            with contextlib.suppress(SpawnerGone):
                await self._spawner().ask("signal", id=container_id, signal=int(signum), everyone=everyone)

    async def kill(self, container_id: str) -> None:
        await self.signal(container_id, signal.SIGKILL)
        await self.wait(container_id)

    async def wait(self, container_id: str) -> ContainerState:
        state = self._state(container_id)
        if state.status == "exited":
            return state
        future: asyncio.Future[ContainerState] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(container_id, [])
        waiters.append(future)
        try:
            return await future
        finally:
            waiters.remove(future)

    async def drain(self, container_id: str) -> int:
        if self._state(container_id).status == "running":
            try:
                return int(await self._spawner().ask("drain", id=container_id))
            except SpawnerGone:
                await self.wait(container_id)
        path = self.directory(container_id) / "output.log"
        return path.stat().st_size if path.exists() else 0

    async def remove(self, container_id: str) -> None:
        if container_id in self._states:
            await self.kill(container_id)
            with contextlib.suppress(SpawnerGone):
                await self._spawner().ask("forget", id=container_id)
            self._states.pop(container_id, None)
        self._waiters.pop(container_id, None)
        await asyncio.to_thread(shutil.rmtree, self.directory(container_id), ignore_errors=True)

    async def list(self) -> Sequence[ContainerState]:
        return [*self._states.values()]

    async def stats(self, container_id: str) -> Stats:
        if self._state(container_id).status == "running":
            return cgroups.stats(self._group(container_id))
        try:
            return Stats(**await self._spawner().ask("stats", id=container_id))
        except EngineError:
            # It ended under a spawner that is gone: its last reading went with it.
            return Stats()

    async def inside(self, container_id: str) -> set[int]:
        self._state(container_id)
        return cgroups.processes(self._group(container_id))

    async def dns_sockets(self, container_id: str) -> tuple[socket.socket, socket.socket] | None:
        self._state(container_id)
        found = await self._spawner().ask_descriptors("dns", id=container_id)
        if not found:
            return None
        udp, tcp = (socket.socket(fileno=one) for one in found)
        return udp, tcp

    async def netns_socket(self, container_id: str, family: int, kind: int) -> socket.socket:
        self._state(container_id)
        found = await self._spawner().ask_descriptors("socket", id=container_id, family=int(family), kind=int(kind))
        return socket.socket(fileno=found[0])

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._client.close()
            self._client = None

    async def shutdown(self) -> None:
        await self.close()
        try:
            client, hello = await self._join(connect(self._socket_path))
            try:
                with contextlib.suppress(ProcessLookupError):
                    await self._end_spawner(client, int(hello["pid"]))
            finally:
                client.close()
        except SpawnerGone:
            log.info("the spawner was gone before it was told to end")
        await asyncio.to_thread(self._reclaim)
        await asyncio.to_thread(firewall.remove, self._names)
        self._socket_path.unlink(missing_ok=True)

    # Starting

    async def _start(self, plan: ContainerPlan, request: dict[str, Any]) -> ContainerState:
        try:
            state = ContainerState.from_plain(await self._spawner().ask("start", **request))
        except EngineError as error:
            await asyncio.to_thread(shutil.rmtree, self.directory(plan.id), ignore_errors=True)
            raise _explained(error, plan) from error
        # Its end may have been told before this task came to run.
        return self._states.setdefault(plan.id, state)

    async def _discard(self, starting: asyncio.Task[ContainerState], container_id: str) -> None:
        with contextlib.suppress(EngineError):
            await starting
            await self.remove(container_id)

    def _bundle(self, plan: ContainerPlan, directory: Path) -> dict[str, Any]:
        etc = directory / "etc"
        etc.mkdir(exist_ok=True)
        for name, text in _etc(plan).items():
            (etc / name).write_text(text, encoding="utf-8")
            # Whatever the agent's umask: users other than root read these, and enter the root directory.
            (etc / name).chmod(0o644)
        upper = Path(plan.upper) if plan.upper is not None else directory / "upper"
        upper.mkdir(exist_ok=True)
        upper.chmod(0o755)
        devices = tuple(_device_numbers(path) for path in plan.devices)
        place = oci_config.Place(str(directory), self._group(plan.id), devices)
        config = json.dumps(oci_config.config(plan, place, self._machine))
        descriptor = os.open(directory / "config.json", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(config)
        targets = [(one.target, Path(one.source).is_dir()) for one in plan.binds]
        targets += [(path, False) for path in plan.devices]
        bottom = mountpoints.layer(self._home / "node" / "mountpoints", targets)
        return {
            "id": plan.id,
            "directory": str(directory),
            "layers": [*plan.layers, bottom],
            "upper": str(upper),
            # Beside it, because both have to be on one file system.
            "work": f"{upper}.work",
            "group": self._group(plan.id),
            "full_network": plan.network == "full",
        }

    def _group(self, container_id: str) -> str:
        return f"{self._names.group}/{container_id}"

    def _spawner(self) -> SpawnerClient:
        if self._client is None:
            raise EngineError("The engine is not open")
        return self._client

    def _state(self, container_id: str) -> ContainerState:
        state = self._states.get(container_id)
        if state is None:
            raise EngineError(f"There is no container {container_id}")
        return state

    # The spawner's life

    async def _join(self, connection: socket.socket) -> tuple[SpawnerClient, dict[str, Any]]:
        client = SpawnerClient(connection, self._on_event, self._on_lost)
        try:
            return client, await asyncio.wait_for(client.ask("hello"), _HELLO_SECONDS)
        except TimeoutError as error:
            client.close()
            raise EngineError(
                f"The spawner of this node does not answer: {_last_line(self._home / 'log' / 'spawner.log')}",
                hint=f"Read {self._home}/log/spawner.log",
            ) from error

    async def _end_spawner(self, client: SpawnerClient, pid: int) -> None:
        # Its mounts go with its process and not with its last word, so the process is what is waited for.
        loop = asyncio.get_running_loop()
        gone = asyncio.Event()
        descriptor = os.pidfd_open(pid)
        loop.add_reader(descriptor, gone.set)
        try:
            async with asyncio.timeout(_SHUTDOWN_SECONDS):
                with contextlib.suppress(SpawnerGone):
                    await client.ask("shutdown")
                await gone.wait()
        except TimeoutError:
            log.warning("the spawner did not end in %d s and is killed", _SHUTDOWN_SECONDS)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            await gone.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    def _spawn(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        self._socket_path.unlink(missing_ok=True)
        listener.bind(short_path(self._socket_path))
        listener.listen(16)
        command = [sys.executable, "-m", "alight.node.spawner", str(self._home), self._instance, self._runtime]
        environment = {"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"}
        environment["PYTHONPATH"] = str(Path(alight.__file__).parents[1])
        with (self._home / "log" / "spawner.log").open("ab") as log_file, listener:
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", _DETACHED, str(listener.fileno()), *command],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                pass_fds=[listener.fileno()],
                start_new_session=True,
                check=True,
                timeout=_HELLO_SECONDS,
            )
        return connect(self._socket_path)

    def _adopt(self, plain: Sequence[dict[str, Any]]) -> None:
        running = {str(one["id"]): ContainerState.from_plain(one) for one in plain}
        for path in self._containers.iterdir():
            if path.name not in running:
                state = self._from_disk(path)
                if state is not None:
                    running[path.name] = state
        self._states = running
        for state in running.values():
            if state.status == "exited":
                self._ended(state)

    def _from_disk(self, path: Path) -> ContainerState | None:
        try:
            return ContainerState.from_plain(json.loads((path / "state.json").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _reclaim(self) -> None:
        """End what a spawner left that is no more. Its mounts and networks ended with it and its containers."""
        for name in cgroups.children(self._names.group):
            if not cgroups.kill_all(f"{self._names.group}/{name}"):
                raise EngineError(
                    f"Processes of the container {name} cannot be killed",
                    hint="They wait for a device or file system that does not answer: see `dmesg`",
                )
        cgroups.remove(self._names.group)
        shutil.rmtree(self._home / "run" / "runtime", ignore_errors=True)
        if not self._containers.exists():
            return
        for path in self._containers.iterdir():
            state = self._from_disk(path)
            if state is None:
                # The spawner died before it started, so nobody was told of it.
                shutil.rmtree(path, ignore_errors=True)
            elif state.status == "running":
                ended = replace(
                    state, status="exited", signal=signal.SIGKILL, ended_at=time.time(), error=_SPAWNER_DIED
                )
                (path / "state.json").write_text(json.dumps(ended.to_plain()), encoding="utf-8")

    def _on_event(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exited":
            self._ended(ContainerState.from_plain(message["state"]))

    def _ended(self, state: ContainerState) -> None:
        self._states[state.id] = state
        for future in self._waiters.get(state.id, []):
            if not future.done():
                future.set_result(state)

    def _on_lost(self, client: SpawnerClient) -> None:
        if client is self._client:
            log.error("the spawner ended; its containers are ended, too, and a new one is started")
            self._background(self._recover())

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _recover(self) -> None:
        while True:
            try:
                await self.open()
            except (EngineError, OSError) as error:
                log.error("no spawner yet: %s", error)
                await asyncio.sleep(1.0)
            else:
                return


# Hands the socket on as descriptor 3, and makes the spawner nobody's child, so that it is not ours to reap.
_DETACHED = """
import os, sys
descriptor = int(sys.argv[1])
if descriptor != 3:
    os.dup2(descriptor, 3)
os.set_inheritable(3, True)
if os.fork():
    os._exit(0)
os.execv(sys.argv[2], sys.argv[2:])
"""


def _etc(plan: ContainerPlan) -> dict[str, str]:
    return {
        "resolv.conf": f"nameserver {DNS_ADDRESS[0]}\n" if plan.network == "full" else "",
        "hostname": f"{plan.hostname}\n",
        "hosts": f"127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {plan.hostname}\n",
    }


def _machine() -> oci_config.Machine:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    _, nofile = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, memlock = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return oci_config.Machine(
        memory_bytes=memory,
        reserve_bytes=min(max(memory // 20, 512 << 20), 4 << 30),
        nofile=nofile if nofile != resource.RLIM_INFINITY else 1 << 20,
        memlock=memlock if memlock != resource.RLIM_INFINITY else (1 << 64) - 1,
        caps_swap=cgroups.caps_swap(),
        mounts_cgroup=cgroups.is_unified(),
    )


def _device_numbers(path: str) -> tuple[str, int, int]:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise EngineError(f"The device {path} is not there: {error.strerror}") from error
    if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
        raise EngineError(f"{path} is not a device")
    kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
    return kind, os.major(found.st_rdev), os.minor(found.st_rdev)


def _explained(error: EngineError, plan: ContainerPlan) -> EngineError:
    if error.hint is None and "executable file not found" in error.message:
        return EngineError(error.message, hint=f"The image has no {plan.argv[0]!r} on its PATH")
    return error


def _last_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
    except OSError:
        return "it wrote no log"
