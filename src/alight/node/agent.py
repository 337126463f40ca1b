"""The agent of one machine: joins engine, images, volumes, GPUs and the session with the server.

It may be killed at any moment. Containers run on under the spawner, and the next agent takes them up from what lies on
disk: the engine's states, each container's ledger, outbox and output file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import platform
import shutil
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from alight.link.peer import Peer, Stream
from alight.node import machine, usage, volume_packs
from alight.node.blobs import Blobs
from alight.node.commands import Commands
from alight.node.container import Container
from alight.node.dials import Dials
from alight.node.engine import spawner_life
from alight.node.engine.base import ContainerState, Engine
from alight.node.entrance import Entrance
from alight.node.execs import Execs
from alight.node.gangs import Gangs
from alight.node.gpu_use import GpuMeter
from alight.node.gpus import GpuDesk, GpuLocks, GpuProvider, Mps, desk
from alight.node.images import Images
from alight.node.keeper import Keeper
from alight.node.logs import Inotify
from alight.node.naming import Dns
from alight.node.prepare import Workshop
from alight.node.runtime_files import RuntimeFiles
from alight.node.session import ServerAddress, Session
from alight.node.starts import remembered
from alight.node.steprunner import PREFIX as BUILD_PREFIX
from alight.node.steprunner import StepRunner
from alight.node.surroundings import Surroundings
from alight.node.templates import TemplateSettings
from alight.node.trees import Trees
from alight.node.volumes import Volumes
from alight.wire import chunk, errors, ids
from alight.wire.commands import Command, NodeHello, Report
from alight.wire.snapshots import VolumeVersion
from alight.wire.version import __version__

log = logging.getLogger(__name__)

#: How long an agent that starts again waits for the runtimes that its predecessor knew, before it speaks to the server.
_REUNION = 3.0
#: Seconds that files on their way to buckets have when the machine's Alight is to end.
_UPLOADS_AT_END = 20.0


@dataclass(frozen=True)
class NodeSettings:
    """What a node is told at its start. ``home`` is the state directory of the machine's Alight."""

    home: Path
    server: ServerAddress
    lock_folder: Path | None = None
    gpu_sharing: str = desk.MPS
    templates: TemplateSettings = field(default_factory=TemplateSettings)


class Agent:
    """See the module. ``run`` is all of its life."""

    def __init__(self, settings: NodeSettings, engine: Engine, gpus: GpuProvider) -> None:
        self._settings = settings
        self._engine = engine
        self._home = settings.home / "node"
        self._home.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._node_id = _node_id(self._home)
        self._shutdown = asyncio.Event()
        self._leave = asyncio.Event()
        notices = Inotify()
        dns = Dns(engine)
        volumes = Volumes(self._home, lambda: spawner_life.running(settings.home.resolve()))
        volumes.tell = self._tell_version
        runner = StepRunner(engine, notices, dns, volumes, gpus)
        self._session = Session(settings.server, self, self._on_stream)
        dns.entrance = Entrance(engine, self._session, settings.server.path)
        blobs = Blobs(self._session)
        trees = Trees(self._home, blobs)
        runtime = RuntimeFiles(self._home, runner if engine.isolates else None)
        shop = Workshop(
            engine=engine,
            images=Images(self._home, runner, trees, runtime, isolates=engine.isolates),
            trees=trees,
            runtime=runtime,
            volumes=volumes,
            gpus=gpus,
            blobs=blobs,
        )
        locks = GpuLocks(settings.lock_folder) if settings.lock_folder is not None else GpuLocks()
        run = settings.home / "run"
        mps = Mps(run / "mps") if settings.gpu_sharing == desk.MPS else None
        self._desk = GpuDesk(gpus, locks, mps, run, self._session.report_soon)
        keeper = Keeper(shop, dns, settings.templates, settings.home)
        gangs, meter = Gangs(engine), GpuMeter(gpus.gpus)
        self._around = Surroundings(
            shop, self._session, notices, dns, self._desk, gangs, keeper, set(), self._forget, meter
        )
        self._commands = Commands(self._around, self.shut_down)
        self._execs = Execs(engine, self._commands.containers)
        self._dials = Dials(engine, self._commands.containers, settings.home / "run" / "dial.sock")

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until told to leave (containers run on) or to shut down (nothing is left)."""
        await self._engine.open()
        self._sweep()
        await self._adopt()
        self._dials.open()
        loop = asyncio.get_running_loop()
        containers = self._commands.containers
        # Slow, and nothing waits for them: the sweep reads the machine's package settings, too, and the runtime's files
        # are looked through before the first container asks for them.
        sweeping = loop.create_task(asyncio.to_thread(self._around.shop.images.sweep))
        background = [
            loop.create_task(self._session.run(on_ready)),
            loop.create_task(self._around.shop.volumes.sync_forever()),
            loop.create_task(self._prepare_runtime()),
            loop.create_task(self._around.keeper.run()),
            loop.create_task(self._desk.run()),
            loop.create_task(usage.Sampler(self._engine, self._session, containers, self._around).run()),
        ]
        ends = [loop.create_task(self._leave.wait()), loop.create_task(self._shutdown.wait())]
        try:
            await asyncio.wait([*ends, background[0]], return_when=asyncio.FIRST_COMPLETED)
            if background[0].done():
                background[0].result()  # a fault of ours, or a server that refuses us: let it be seen
        finally:
            for task in (*background, *ends):
                task.cancel()
            await asyncio.gather(sweeping, *background, *ends, return_exceptions=True)
            self._dials.close()
            if self._shutdown.is_set():
                await self._end_uploads()
            for container in self._commands.containers.values():
                container.let_go()
            refused = background[0].done() and not background[0].cancelled()
            if self._shutdown.is_set() or (refused and not self._commands.containers):
                await self._engine.shutdown()
                await asyncio.to_thread(self._around.keeper.clear)
                await asyncio.to_thread(self._desk.end)
                await asyncio.to_thread(self._around.shop.volumes.close)
            await self._engine.close()
            self._around.notices.close()

    def leave(self) -> None:
        """Disconnect; containers run on."""
        self._leave.set()

    def shut_down(self) -> None:
        """End all containers and the spawner."""
        log.info("shutting down: all containers end")
        self._shutdown.set()

    def _tell_version(self, version: VolumeVersion) -> bool:
        connected = self._session.connected
        self._session.report_soon(Report("committed", version.container, volume=version))
        return connected

    async def _end_uploads(self) -> None:
        """What containers wrote to buckets is on its way there, by processes that end with all else."""
        ending = [one.end_with_uploads(_UPLOADS_AT_END) for one in self._commands.containers.values()]
        for result in await asyncio.gather(*ending, return_exceptions=True):
            if isinstance(result, BaseException):
                log.error("files on the way to a bucket may be lost: %s", result)

    # what the session asks

    def hello(self) -> NodeHello:
        """See ``session.Agent``."""
        facts = machine.facts()
        return NodeHello(
            node_id=self._node_id,
            hostname=socket.gethostname(),
            version=__version__,
            engine=self._engine.name,
            cpus=facts.cpus,
            memory=facts.memory_mib,
            gpus=self._desk.described(),
            containers=tuple(one.held() for one in self._commands.containers.values()),
            architecture=platform.machine(),
            gateway=self._engine.isolates,
        )

    def on_connected(self) -> None:
        for container in list(self._commands.containers.values()):
            container.on_connected()

    def on_disconnected(self) -> None:
        # Who watches is the server's to say again.
        self._around.watched.clear()
        for container in list(self._commands.containers.values()):
            container.on_disconnected()

    def on_command(self, command: Command, body: bytes) -> None:
        self._commands.carry_out(command, body)

    def on_inputs(self, inputs: chunk.Inputs, head: bytes, body: bytes) -> None:
        self._commands.give(inputs, head, body)

    async def _on_stream(self, _peer: Peer, stream: Stream) -> None:
        if stream.method == "node.build":
            await self._around.shop.images.serve_build(stream)
        elif stream.method == "node.images":
            started = [remembered(path.read_bytes()) for path in self._home.glob("containers/*/start.json")]
            running = [(one.function.image, one.function.python_version) for one in started if one is not None]
            await self._around.shop.images.serve_work(stream, running)
        elif stream.method == "node.exec":
            await self._execs.serve(stream)
        elif stream.method == "node.dial":
            await self._dials.serve(stream)
        elif stream.method == "node.volume":
            await self._around.shop.volumes.serve(stream)
        elif stream.method == "node.pack":
            await volume_packs.send(stream, self._around.shop.volumes)
        else:
            raise errors.UnimplementedError(f"this node does not know {stream.method}")

    # start

    async def _prepare_runtime(self) -> None:
        try:
            await self._around.shop.runtime.own()
        except (errors.Error, OSError) as error:
            log.warning("the runtime's files are not ready: %s", error)  # a container's start says it again

    def _sweep(self) -> None:
        """What killed agents left half done."""
        self._around.shop.trees.sweep()
        self._around.shop.volumes.sweep()

    async def _adopt(self) -> None:
        """Take up the containers that run, and report those that ended meanwhile."""
        known: set[str] = set()
        for state in await self._engine.list():
            known.add(state.id)
            await self._adopt_one(state)
        await asyncio.to_thread(_remove_strays, self._home / "containers", known)
        until = time.monotonic() + _REUNION
        containers = self._commands.containers.values()
        while not all(one.linked for one in containers) and time.monotonic() < until:  # noqa: ASYNC110  of many
            await asyncio.sleep(0.02)

    async def _adopt_one(self, state: ContainerState) -> None:
        raw = b""
        with contextlib.suppress(OSError):
            raw = (self._engine.directory(state.id) / "start.json").read_bytes()
        start = remembered(raw) if raw else None
        if start is None or state.id.startswith(f"{BUILD_PREFIX}-"):
            # A build's step, or a container whose start was never finished: nobody waits for it.
            with contextlib.suppress(errors.Error):
                await self._engine.remove(state.id)
            return
        container = self._commands.containers[state.id] = Container(start, self._around)
        container.adopt(state)

    def _forget(self, container: Container) -> None:
        self._commands.containers.pop(container.id, None)


def _remove_strays(folder: Path, known: set[str]) -> None:
    """Directories of containers that the engine never started."""
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in known and not any((path / "outputs").glob("*.frames")):
            shutil.rmtree(path, ignore_errors=True)


def _node_id(home: Path) -> str:
    path = home / "id"
    with contextlib.suppress(FileNotFoundError):
        found = path.read_text().strip()
        if ids.is_id(found, ids.NODE):
            return found
    made = ids.new_id(ids.NODE)
    path.write_text(made + "\n")
    return made
