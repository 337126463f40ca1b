"""One template, from what it is to be made of to its end: told what to bring up, waited for, and armed for forks.

To the engine it is a container, to the runtime a link with one message; the server never hears of it. It has no way to
the SDK's socket, and secrets only when it serves one function alone (level 2).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from alight.node import channel, output, starts
from alight.node.engine.base import Bind, ContainerPlan, ContainerState, Engine, EngineError, Limits
from alight.node.engine.forks import TEMPLATE, Forks
from alight.node.naming import Dns
from alight.node.prepare import MAIN, SOCKETS, Prepared, make_folders
from alight.node.runtime_files import TARGET
from alight.node.snapshots import Snapshots
from alight.node.templates import MODULE, Ground
from alight.node.volumes import Volumes, same_directory
from alight.wire import chunk, errors, ids
from alight.wire.codec import Kind
from alight.wire.commands import LinkHello, LinkReady, LinkStart, Output, Run, StartContainer
from alight.wire.record import replace as changed
from alight.wire.spec import FunctionSpec

log = logging.getLogger(__name__)

#: What a template gets when others want the processor, too: as much as the smallest container.
_CPU_SHARES = 0.125
#: More than the interpreter and the runtime ever need.
_RUNTIME_MEMORY = 1 << 30
_RUNTIME_SECONDS = 60.0
_TAIL_LINES = 40


class Refused(errors.Error):
    """The template found something in itself that must not be forked. ``sentences`` name it."""

    code = "engine"

    def __init__(self, sentences: tuple[str, ...]) -> None:
        super().__init__("; ".join(sentences) or "it did not say why")
        self.sentences = sentences


@dataclass(frozen=True)
class Recipe:
    """What a template is made of: the start that could have used it."""

    level: int
    key: str
    start: StartContainer
    prepared: Prepared
    ground: Ground

    @property
    def name(self) -> str:
        """For people."""
        if self.level == MODULE:
            return f"{self.start.app_name}.{self.start.function.name}"
        return f"image {self.ground.image[:12]}"


@dataclass(frozen=True)
class Tools:
    """What making templates needs of the node."""

    engine: Engine
    dns: Dns
    volumes: Volumes
    snapshots: Snapshots


class TemplateProcess:
    """See the module. Everything runs in the agent's loop."""

    def __init__(self, recipe: Recipe, tools: Tools, forks: Forks) -> None:
        self.id = ids.new_id(TEMPLATE)
        self.recipe = recipe
        self.upper = ""
        """What it wrote, for the layers of its forks; "" for nothing."""
        self._engine = tools.engine
        self._dns = tools.dns
        self._volumes = tools.volumes
        self._snapshots = tools.snapshots
        self._forks = forks
        self._folder = tools.engine.directory(self.id)
        self._link: channel.RuntimeLink | None = None
        self._opened = asyncio.Event()
        self._said: LinkReady | None = None
        self._heard = asyncio.Event()  # it said something, or ended

    async def make(self) -> None:
        """Return when it can be forked. Raises Refused, EngineError; nothing is left then."""
        try:
            make_folders(self._engine.prepare(self.id))
            server = await channel.serve_link(self._folder / "sock", self, self._inside)
            held = self._hold()
            try:
                await self._bring_up()
            finally:
                server.close()
                if self._link is not None:
                    self._link.close()
                await self._dns.stop(self.id)
                await self._release(held)
            upper = await self._forks.arm(self.id)
            if self.recipe.level == MODULE:
                self.upper = self._snapshots.keep(self.id, upper)
        except OSError as error:
            await self.close()
            raise EngineError(f"a template could not be prepared: {error}") from error
        except BaseException:
            await self.close()
            raise

    async def wait(self) -> ContainerState:
        """How it ended, when it did."""
        return await self._engine.wait(self.id)

    async def close(self) -> None:
        """End it, and the forks that wait. Containers made from it live on."""
        try:
            await self._forks.close_template(self.id)
        except errors.Error as error:
            log.warning("template %s could not be ended: %s", self.id, error)
        if self.upper:
            await asyncio.to_thread(self._snapshots.drop, self.upper)

    def forget_secrets(self) -> None:
        """Nobody needs them any more, nor the code that was sent: it has them."""
        start = changed(self.recipe.start, secrets={})
        self.recipe = replace(self.recipe, start=start, prepared=replace(self.recipe.prepared, serialized=b""))

    def printed(self) -> list[str]:
        """The last lines that it printed."""
        with contextlib.suppress(OSError):
            data = b"".join(one.data for one in output.read(self._folder / "output.log"))
            return data.decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return []

    def plan(self) -> ContainerPlan:
        """What the engine is to start."""
        prepared, ground = self.recipe.prepared, self.recipe.ground
        sockets = Bind(str(self._folder / "sock"), SOCKETS)
        if self.recipe.level != MODULE:
            return ContainerPlan(
                id=self.id,
                layers=ground.layers,
                argv=(prepared.plan.argv[0], MAIN, "template"),
                env={**ground.env, "ALIGHT_LINK": f"{SOCKETS}/{channel.LINK}"},
                cwd=ground.workdir,
                hostname="template",
                binds=(Bind(ground.library, TARGET), sockets),
                limits=Limits(cpu_shares=_CPU_SHARES, memory_bytes=_RUNTIME_MEMORY),
                network="none",
                owner=ground.owner,
            )
        plan = moved(prepared.plan, self.id, str(self._engine.directory(prepared.plan.id)), str(self._folder))
        return replace(
            plan,
            argv=(*plan.argv, "template"),
            env=self._own(plan.env),
            limits=replace(plan.limits, cpu_shares=_CPU_SHARES, cpu_quota=None),
            devices=(),
        )

    def start(self) -> LinkStart:
        """What the runtime in it is told."""
        recipe = self.recipe
        if recipe.level == MODULE:
            start = changed(recipe.start, container_id=self.id)
            return starts.for_runtime(start, replace(recipe.prepared, env=self._own(recipe.prepared.env)), MODULE)
        function = FunctionSpec("template", python_version=recipe.start.function.python_version)
        return LinkStart(self.id, "", "", "", "", recipe.start.image_id, function, template=recipe.level)

    def _own(self, env: Mapping[str, str]) -> dict[str, str]:
        """The environment of a container, for the template: under its own id, and without a way to the server."""
        own = {**env, "ALIGHT_TASK_ID": self.id, "MODAL_TASK_ID": self.id}
        own.pop("ALIGHT_SDK", None)
        return own

    async def _bring_up(self) -> None:
        recipe = self.recipe
        plan = self.plan()
        state = await self._forks.open_template(plan, recipe.ground.image)
        self._opened.set()
        if recipe.level == MODULE:
            for target, source in recipe.prepared.mounts:
                if state.pid is None or not await asyncio.to_thread(same_directory, state.pid, target, source):
                    raise EngineError(f"a directory of the volume at {target} was exchanged while it was mounted")
        if plan.network == "full":
            await self._dns.serve(self.id)
        self._tell()
        function = recipe.start.function
        limit = (function.startup_timeout or function.timeout) if recipe.level == MODULE else _RUNTIME_SECONDS
        ready = await self._until_said(limit)
        if ready.refused:
            raise Refused(ready.refused)
        if ready.failure is not None:
            raise EngineError(f"importing its code raised {ready.failure.type}: {ready.failure.message}")
        if ready.error is not None:
            raise EngineError(f"it failed: {errors.from_wire(ready.error)}")

    async def _until_said(self, limit: float) -> LinkReady:
        ended = asyncio.get_running_loop().create_task(self.wait())
        ended.add_done_callback(lambda _: self._heard.set())
        alarm = asyncio.get_running_loop().call_later(limit, self._heard.set) if limit else None
        try:
            await self._heard.wait()
            if self._said is not None:
                return self._said
            if not ended.done():
                raise EngineError(f"it was not ready within {limit:g} s")
            state = ended.result()
            how = f"signal {state.signal}" if state.signal is not None else f"exit code {state.exit_code}"
            why = state.error or ("it was killed for memory" if state.oom_killed else f"it ended with {how}")
            raise EngineError(" | ".join([why, *self.printed()[-3:]]))
        finally:
            ended.cancel()
            if alarm is not None:
                alarm.cancel()

    def _hold(self) -> list[str]:
        """Volumes that it may write to while it comes up; afterwards it does nothing."""
        if self.recipe.level != MODULE:
            return []
        held = [one.volume_id for one in self.recipe.start.function.volumes if not one.read_only]
        for volume in held:
            self._volumes.hold(volume, self.id)
        return held

    async def _release(self, held: list[str]) -> None:
        for volume in held:
            try:
                await self._volumes.commit_by(volume, "background", self.id)
            except (errors.Error, OSError) as error:
                log.warning("the volume %s was not synced after template %s: %s", volume, self.id, error)
            self._volumes.release(volume, self.id)

    def _tell(self) -> None:
        if self._link is not None and self._opened.is_set():
            body = self.recipe.prepared.serialized if self.recipe.level == MODULE else b""
            self._link.send(Kind.LINK_START, self.start(), body)

    async def _inside(self) -> set[int]:
        await self._opened.wait()  # it may be here before the engine has said that it runs
        return await self._engine.inside(self.id)

    # what the runtime says: see ``channel.LinkOwner``

    def may_link(self, pid: int) -> bool:
        del pid
        return self._link is None

    def on_link(self, link: channel.RuntimeLink, hello: LinkHello) -> None:
        del hello
        self._link = link
        self._tell()

    def on_link_ready(self, ready: LinkReady, body: bytes) -> None:
        del body
        self._said = self._said or ready
        self._heard.set()

    def on_link_values(self, values: chunk.Outputs, head: bytes, body: bytes) -> None:
        """Templates get no inputs."""

    def on_link_output(self, output: Output, body: bytes) -> None:
        """Templates get no inputs."""

    def on_link_waiting(self, count: int) -> None:
        """Templates get no inputs."""

    def on_link_returned(self, runs: tuple[Run, ...]) -> None:
        """Templates get no inputs."""

    def on_link_lost(self, link: channel.RuntimeLink) -> None:
        """Its last word was said, or its end will be noticed."""


def moved(plan: ContainerPlan, new_id: str, old: str, new: str) -> ContainerPlan:
    """The plan for another container: what it binds from its own directory lies in the other's."""

    def place(bind: Bind) -> Bind:
        own = bind.source == old or bind.source.startswith(old + "/")
        return replace(bind, source=new + bind.source[len(old) :]) if own else bind

    return replace(plan, id=new_id, binds=tuple(place(one) for one in plan.binds))
