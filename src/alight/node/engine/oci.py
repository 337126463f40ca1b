"""Containers by an OCI runtime (runc, crun): the filling of the engine that isolates.

The agent's half. It writes bundles, sets up the firewall, asks the spawner, and cleans up after a spawner that was
killed. What must survive the agent is the spawner's; what must survive the spawner is on disk and in control groups.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from alight.node import cgroups, firewall, moving, traffic, users
from alight.node.engine import bundle, oci_config, spawner_life
from alight.node.engine.base import ContainerPlan, ContainerState, EngineError, Stats
from alight.node.engine.execs import Exec, ExecPlan
from alight.node.engine.oci_buckets import OciBuckets
from alight.node.engine.oci_client import SpawnerClient, SpawnerGone
from alight.node.engine.oci_exec import OciExecs
from alight.node.engine.oci_forks import OciForks
from alight.node.engine.starting import Starting
from alight.node.moving import Moving
from alight.node.network import Names
from alight.wire import errors

log = logging.getLogger("alight.node.engine")

_FIREWALL_SECONDS = 15.0


class OciEngine:
    """See ``base.Engine``."""

    name = "oci"
    isolates = True

    def __init__(self, home: Path, instance: str, *, runtime: str = "runc", user_namespaces: bool = True) -> None:
        """Without ``user_namespaces`` root in containers is root of the host, without its privileges."""
        self._home = Path(home).resolve()
        self._instance = instance
        self._names = Names.of(instance)
        self._runtime = runtime
        self._containers = self._home / "node" / "containers"
        self._socket_path = spawner_life.socket_path(self._home)
        self._client: SpawnerClient | None = None
        self._node = bundle.Node(_machine(), self._home / "node" / "mountpoints", self._home / "node" / "runtime")
        self._user_namespaces = user_namespaces
        self._maps = False
        self._states: dict[str, ContainerState] = {}
        self._waiters: dict[str, list[asyncio.Future[ContainerState]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening = asyncio.Lock()
        self._gangs: dict[str, list[str]] = {}  # their network devices
        self.starting = Starting()
        """What the OCI runtime starts is started within ``one`` of it."""
        self._moving: Moving | None = None
        self._groups: dict[str, str] = {}
        self._forks = OciForks(self)
        self._can_fork = False
        self._execs = OciExecs(self._spawner, self._node.machine)
        self.buckets = OciBuckets(self._spawner, self.directory)

    @property
    def forks(self) -> OciForks | None:
        """Forks of templates as containers; None where this machine cannot have them."""
        return self._forks if self._can_fork else None

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
            self._check()
            for path in (self._home / "run", self._home / "log", self._containers):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = spawner_life.Place(self._home, self._instance, self._names, self._runtime)
            client, hello = await spawner_life.join_or_spawn(place, self._on_event, self._on_lost)
            self._client = client
            self._maps = self._user_namespaces and bool(hello["users"])
            if not self._maps:
                why = "log/spawner.log says why" if self._user_namespaces else "ALIGHT_USER_NAMESPACES is 0"
                log.warning("root in containers is root of this machine without its privileges: %s", why)
            self._moving = self._moving or Moving(moving.path_of(self._home))
            if not cgroups.weigh(self._names.group, os.cpu_count() or 1):
                log.info("containers together weigh as one program beside the host's: its cpu groups cannot be set")
            self._gangs = {gang: list(devices) for gang, devices in hello.get("gangs", {}).items()}
            await asyncio.to_thread(firewall.install, self._names, hello["subnet"], list(self._gangs.values()))
            self._adopt(await client.ask("list"))
            await self._forks.open()
            await self.buckets.open()
            self._can_fork = self._maps and bool(hello["forks"])
            self.background(self._keep_firewall(client, hello["subnet"]))

    async def start(self, plan: ContainerPlan) -> ContainerState:
        directory = self.prepare(plan.id)
        try:
            request = self.bundle(plan, directory)
        except OSError as error:
            raise EngineError(f"The container {plan.id} could not be prepared: {error}") from error
        starting = asyncio.get_running_loop().create_task(self._start(plan, request))
        try:
            return await asyncio.shield(starting)
        except SpawnerGone as error:
            # No fault of the plan's: with another spawner the same start may well succeed.
            raise errors.InternalFailure(str(error)) from error
        except asyncio.CancelledError:
            # Nobody will ask for it, and half a start cannot be taken back: let it come, then let it go.
            self.discard(starting, plan.id)
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

    def is_drained(self, container_id: str) -> bool:
        return self._moving is not None and not self._moving.is_on

    async def remove(self, container_id: str) -> None:
        if container_id in self._states:
            await self.kill(container_id)
            with contextlib.suppress(SpawnerGone):
                await self._spawner().ask("forget", id=container_id)
            self._states.pop(container_id, None)
            self._groups.pop(container_id, None)
        self._waiters.pop(container_id, None)
        await asyncio.to_thread(shutil.rmtree, self.directory(container_id), ignore_errors=True)

    async def list(self) -> Sequence[ContainerState]:
        return [*self._states.values()]

    async def stats(self, container_id: str) -> Stats:
        state = self._state(container_id)
        if state.status == "running":
            return traffic.add(cgroups.stats(self._group(container_id)), traffic.of_process(state.pid))
        try:
            return Stats(**await self._spawner().ask("stats", id=container_id))
        except EngineError:
            # It ended under a spawner that is gone: its last reading went with it.
            return Stats()

    async def inside(self, container_id: str) -> set[int]:
        self._state(container_id)
        return cgroups.processes(self._group(container_id))

    async def exec(self, container_id: str, plan: ExecPlan) -> Exec:
        self._state(container_id)
        return await self._execs.exec(container_id, plan)

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

    async def connect(self, gang: str, container_ids: Sequence[str]) -> tuple[str, ...]:
        found = await self._spawner().ask("gang", gang=gang, ids=list(container_ids))
        addresses = tuple(str(address) for address, _ in found)
        self._gangs[gang] = [str(device) for _, device in found]
        await asyncio.to_thread(firewall.connect, self._names, self._gangs[gang])
        for container_id in container_ids:
            try:
                await asyncio.to_thread(bundle.write_hosts, self.directory(container_id), addresses)
            except OSError as error:
                raise EngineError(f"The container {container_id} could not be told of its cluster: {error}") from error
        return addresses

    async def disconnect(self, gang: str) -> None:
        devices = self._gangs.pop(gang, None)
        if devices:
            await asyncio.to_thread(firewall.disconnect, self._names, devices)

    async def close(self) -> None:
        await self.buckets.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._moving is not None:
            self._moving.close()  # a mapping would keep the disk busy
            self._moving = None

    async def shutdown(self) -> None:
        await self.close()
        self._forks.all_end()
        try:
            client, hello = await spawner_life.join(self._home, self._on_event, self._on_lost)
            try:
                with contextlib.suppress(ProcessLookupError):
                    await spawner_life.end(client, int(hello["pid"]))
            finally:
                client.close()
        except SpawnerGone:
            log.info("the spawner was gone before it was told to end")
        except EngineError as error:
            log.warning("the spawner is killed: %s", error)
        # One that starts just now does not answer yet, one of another version not to us.
        await asyncio.to_thread(spawner_life.kill, self._home)
        await asyncio.to_thread(spawner_life.reclaim, self._home, self._names)
        await asyncio.to_thread(firewall.remove, self._names)
        self._socket_path.unlink(missing_ok=True)

    # Starting

    async def _start(self, plan: ContainerPlan, request: dict[str, Any]) -> ContainerState:
        try:
            with self.starting.one():
                return self.started(await self._start_with_buckets(plan, request))
        except EngineError as error:
            await asyncio.to_thread(shutil.rmtree, self.directory(plan.id), ignore_errors=True)
            raise _explained(error, plan) from error

    async def _discard(self, starting: asyncio.Task[ContainerState], container_id: str) -> None:
        with contextlib.suppress(EngineError):
            await starting
            await self.remove(container_id)

    async def _start_with_buckets(self, plan: ContainerPlan, request: dict[str, Any]) -> Any:
        if not plan.buckets:
            return await self._spawner().ask("start", **request)
        await self.buckets.mount(plan, int(request["base"]))
        try:
            return await self._spawner().ask("start", **request)
        except EngineError:
            await self.buckets.drop(plan.id)
            raise

    # For `forks`

    async def ask(self, op: str, given: Sequence[int] = (), **arguments: Any) -> Any:
        """A question to the spawner, with descriptors for it."""
        return await self._spawner().ask(op, given, **arguments)

    def cannot_fork(self, reason: EngineError) -> None:
        """Offer no forks any more."""
        if self._can_fork:
            log.warning("containers start plainly, not as forks of templates: %s", reason)
            self._can_fork = False

    def started(self, plain: dict[str, Any]) -> ContainerState:
        """The spawner started a container."""
        state = ContainerState.from_plain(plain)
        self._groups[state.id] = plain["group"]
        # Its end may have been told before this came to run.
        return self._states.setdefault(state.id, state)

    def discard(self, starting: asyncio.Task[ContainerState], container_id: str) -> None:
        """Remove what is being started, once it is."""
        self.background(self._discard(starting, container_id))

    def forget(self, which: Callable[[str], bool]) -> None:
        """Those containers are no more, and nobody asks for them later."""
        for container_id in [one for one in self._states if which(one)]:
            state = self._states[container_id]
            if state.status == "running":
                self._ended(replace(state, status="exited", signal=signal.SIGKILL, ended_at=time.time()))
            self._states.pop(container_id)
            self._groups.pop(container_id, None)
        for path in self._containers.iterdir():
            if which(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def bundle(self, plan: ContainerPlan, directory: Path) -> dict[str, Any]:
        """Write a plan's bundle; what the spawner is asked."""
        mapped = self._maps and plan.users == "mapped"
        base = users.range_for(self._instance, plan.owner) if mapped else 0
        return bundle.write(plan, directory, self._group(plan.id), base, self._node)

    def _group(self, container_id: str) -> str:
        return self._groups.get(container_id) or f"{self._names.group}/{container_id}"

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

    def _check(self) -> None:
        if os.geteuid() != 0:
            raise EngineError(
                "The OCI engine needs root",
                hint="Run the node as root, or ask for the process engine, which isolates nothing",
            )
        if shutil.which(self._runtime) is None:
            raise EngineError(f"{self._runtime} is not installed", hint=f"Install the package {self._runtime}")

    def _adopt(self, plain: Sequence[dict[str, Any]]) -> None:
        running = {str(one["id"]): ContainerState.from_plain(one) for one in plain}
        self._groups = {str(one["id"]): str(one["group"]) for one in plain}
        for path in self._containers.iterdir():
            if path.name not in running:
                state = spawner_life.state_on_disk(path)
                if state is not None:
                    running[path.name] = state
        self._states = running
        for state in running.values():
            if state.status == "exited":
                self._ended(state)

    def _on_event(self, message: dict[str, Any]) -> None:
        if message.get("event") == "exited":
            self._ended(ContainerState.from_plain(message["state"]))
        elif message.get("event") == "gone":
            self._forks.gone(str(message["id"]))
        elif message.get("event") == "exec":
            self._execs.on_event(message)

    def _ended(self, state: ContainerState) -> None:
        self._states[state.id] = state
        for future in self._waiters.get(state.id, []):
            if not future.done():
                future.set_result(state)

    def _on_lost(self, client: SpawnerClient) -> None:
        if client is self._client:
            self._execs.on_lost()
            log.error("the spawner ended; its containers are ended, too, and a new one is started")
            self.background(self._recover())

    async def _keep_firewall(self, client: SpawnerClient, subnet: str) -> None:
        while client.is_open:
            await asyncio.sleep(_FIREWALL_SECONDS)
            try:
                if not await asyncio.to_thread(firewall.holds, self._names):
                    log.warning("our firewall rules were gone and are put back: containers were not kept apart")
                    await asyncio.to_thread(firewall.install, self._names, subnet, list(self._gangs.values()))
            except EngineError as error:
                log.error("the firewall cannot be kept: %s", error)

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside everything else."""
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


def _explained(error: EngineError, plan: ContainerPlan) -> EngineError:
    if isinstance(error, users.CannotMap):
        return EngineError(
            f"{error.message}. So a container with it cannot have a user namespace, and does not start without one",
            hint="keep volumes on ext4, XFS or Btrfs; or give up the user namespaces of all containers of this "
            "machine: ALIGHT_USER_NAMESPACES=0 for the node",
        )
    if error.hint is None and "executable file" in error.message and "not found" in error.message:
        return EngineError(error.message, hint=f"The image has no {plan.argv[0]!r} on its PATH")
    return error
