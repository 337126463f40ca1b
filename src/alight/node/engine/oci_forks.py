"""Forks of templates as containers, by the OCI engine: the agent's half. See ``forks.Forks`` for what is promised.

The spawner keeps the processes (``node/spawner_forks.py``); this writes the bundles, knows which forks wait in which
shapes, and hands a waiting one to the container that takes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alight.node import cgroups, pause
from alight.node.engine import oci_config
from alight.node.engine.base import ContainerState, EngineError
from alight.node.engine.forks import SHELL, TEMPLATE, shape
from alight.node.engine.oci_client import SpawnerGone
from alight.node.filters import NoForks
from alight.wire import errors

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Mapping

    from alight.node.engine.base import ContainerPlan
    from alight.node.engine.oci import OciEngine

log = logging.getLogger("alight.node.engine")

# By number, as the kernel counts them: what a fork keeps is what ``oci_config`` gives.
_NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
}
CAPABILITIES = sum(1 << _NUMBERS[one] for one in oci_config.CAPABILITIES)


@dataclass
class _Template:
    upper: str
    parked: deque[tuple[str, str]] = field(default_factory=deque)
    """Shape and shell of each fork that waits, oldest first."""


class OciForks:
    """See ``forks.Forks``."""

    def __init__(self, engine: OciEngine) -> None:
        self._engine = engine
        self._templates: dict[str, _Template] = {}

    async def open_template(self, plan: ContainerPlan, image: str) -> ContainerState:
        request = self._bundle(plan, as_template)
        family = hashlib.sha256(f"{plan.owner}\0{image}".encode()).hexdigest()[:32]
        state = await self._whole(plan.id, self._open(plan, {**request, "family": family}))
        self._templates[plan.id] = _Template(request["upper"])
        return state

    async def arm(self, template_id: str) -> str:
        await self._engine.ask("freeze", id=template_id)
        return self._template(template_id).upper

    async def park(self, template_id: str, plan: ContainerPlan) -> None:
        template = self._template(template_id)
        form = shape(plan, str(self._engine.directory(plan.id)))
        request = self._bundle(plan, as_shell)

        async def make() -> None:
            moving = await self._shell(template_id, request)
            try:
                await moving
            except EngineError:
                await self._discard_shell(plan.id)
                raise
            if self._templates.get(template_id) is not template:
                await self._discard_shell(plan.id)
                raise EngineError(f"The template {template_id} ended meanwhile")
            template.parked.append((form, plan.id))

        await self._finished(make())

    async def start_fork(
        self, template_id: str, plan: ContainerPlan, link: socket.socket | None = None
    ) -> ContainerState:
        self._template(template_id)
        # Kept open for as long as that takes, whatever becomes of the caller.
        held = () if link is None else (os.dup(link.fileno()),)
        return await self._whole(plan.id, self._start_fork(template_id, plan, held))

    def parked(self, template_id: str) -> Mapping[str, int]:
        template = self._templates.get(template_id)
        return Counter(form for form, _ in template.parked) if template is not None else {}

    async def unpark(self, template_id: str, shape: str, keep: int = 0) -> None:
        template = self._templates.get(template_id)
        if template is None:
            return
        shells = [shell for form, shell in template.parked if form == shape]
        for shell in shells[: max(0, len(shells) - keep)]:
            template.parked.remove((shape, shell))
            await self._discard_shell(shell)

    async def close_template(self, template_id: str) -> None:
        template = self._templates.pop(template_id, None)
        while template is not None and template.parked:
            await self._discard_shell(template.parked.popleft()[1])
        await self._engine.remove(template_id)

    # For the engine

    async def open(self) -> None:
        """Nothing of an earlier agent's is kept but containers: which templates there were, nobody knows any more."""
        await self._engine.ask("drop")
        self._templates.clear()
        self._engine.forget(lambda container_id: container_id.startswith((f"{TEMPLATE}-", f"{SHELL}-")))

    def all_end(self) -> None:
        """The spawner is about to be told to end, and with it all forks that wait: that is nothing to warn of."""
        self._templates.clear()

    def gone(self, shell: str) -> None:
        """A fork that waited has died."""
        for template in self._templates.values():
            for one in [one for one in template.parked if one[1] == shell]:
                log.warning("a fork that waited has died: %s", shell)
                template.parked.remove(one)
        shutil.rmtree(self._engine.directory(shell), ignore_errors=True)

    # Inside

    async def _open(self, plan: ContainerPlan, request: dict[str, Any]) -> ContainerState:
        try:
            return self._engine.started(await self._engine.ask("template", **request))
        except EngineError:
            await asyncio.to_thread(shutil.rmtree, self._engine.directory(plan.id), ignore_errors=True)
            raise

    async def _start_fork(self, template_id: str, plan: ContainerPlan, held: tuple[int, ...]) -> ContainerState:
        try:
            return await self._forked(template_id, plan, held)
        finally:
            for one in held:
                os.close(one)

    async def _forked(self, template_id: str, plan: ContainerPlan, link: tuple[int, ...]) -> ContainerState:
        directory = self._engine.prepare(plan.id)
        form = shape(plan, str(directory))
        parked = self._template(template_id).parked
        while (found := next((one for one in parked if one[0] == form), None)) is not None:
            parked.remove(found)
            try:
                return await self._take(found[1], plan, directory, link)
            except SpawnerGone:
                raise
            except EngineError as error:
                log.warning("the fork that waited in %s is not taken: %s", found[1], error)
                await self._discard_shell(found[1])
        there = set(os.listdir(directory))
        try:
            moving = await self._shell(template_id, self._bundle(plan, as_shell))
            if cgroups.is_unified():
                await moving
            else:
                # The groups that limit and count are of version 1: nobody has to wait for the other.
                self._engine.background(moving)
            return await self._wake(plan.id, plan, directory, link)
        except EngineError:
            with contextlib.suppress(EngineError):
                await self._engine.ask("discard", id=plan.id)
            # What the agent laid there stays, for another start with the same plan.
            await asyncio.to_thread(_remove_but, directory, there)
            raise

    async def _take(self, shell: str, plan: ContainerPlan, directory: Path, link: tuple[int, ...]) -> ContainerState:
        old = self._engine.directory(shell)
        try:
            _link_into(directory, old)  # a handful of sockets: a thread would take longer
        except OSError as error:
            raise EngineError(f"Files for {plan.id} could not be laid into it: {error}") from error
        state = await self._wake(shell, plan, directory, link)
        # They have changed places.
        self._engine.background(asyncio.to_thread(shutil.rmtree, old, ignore_errors=True))
        return state

    async def _wake(self, shell: str, plan: ContainerPlan, directory: Path, link: tuple[int, ...]) -> ContainerState:
        told = {"name": plan.id, "directory": str(directory), "env": dict(plan.env), "cwd": plan.cwd}
        answer = await self._engine.ask("wake", link, id=shell, **told)
        return self._engine.started(answer)

    async def _shell(self, template_id: str, request: dict[str, Any]) -> Coroutine[Any, Any, None]:
        """Make one. In its groups of version 1 the fork is already; what is returned moves it in version 2, which waits
        for the kernel."""
        try:
            with self._engine.starting.one():
                answer = await self._engine.ask("shell", template=template_id, capabilities=CAPABILITIES, **request)
        except NoForks as error:
            self._engine.cannot_fork(error)
            raise
        return asyncio.to_thread(_move, request["group"], int(answer["pid"]))

    async def _discard_shell(self, shell: str) -> None:
        with contextlib.suppress(SpawnerGone):
            await self._engine.ask("discard", id=shell)
        await asyncio.to_thread(shutil.rmtree, self._engine.directory(shell), ignore_errors=True)

    def _bundle(self, plan: ContainerPlan, change: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        if plan.users != "mapped":
            raise EngineError(f"The container {plan.id} has the host's users, and forks have not")
        directory = self._engine.prepare(plan.id)
        try:
            request = self._engine.bundle(plan, directory)
            path = directory / "config.json"
            config = json.loads(path.read_text(encoding="utf-8"))
            change(config)
            path.write_text(json.dumps(config), encoding="utf-8")
        except OSError as error:
            raise EngineError(f"The container {plan.id} could not be prepared: {error}") from error
        return request

    async def _whole(self, container_id: str, work: Coroutine[Any, Any, ContainerState]) -> ContainerState:
        # Half a start cannot be taken back: when nobody waits for it any more, it comes and goes.
        starting = asyncio.get_running_loop().create_task(work)
        try:
            return await asyncio.shield(starting)
        except SpawnerGone as error:
            raise errors.InternalFailure(str(error)) from error
        except asyncio.CancelledError:
            self._engine.discard(starting, container_id)
            raise

    async def _finished(self, work: Coroutine[Any, Any, None]) -> None:
        # Like it, for what is no container yet.
        await asyncio.shield(asyncio.get_running_loop().create_task(work))

    def _template(self, template_id: str) -> _Template:
        found = self._templates.get(template_id)
        if found is None:
            raise EngineError(f"There is no template {template_id}")
        return found


def as_template(config: dict[str, Any]) -> None:
    """Make the bundle of a plain container one of a template: no privileges, and the one call that entering takes."""
    config["process"]["capabilities"] = {kind: [] for kind in ("bounding", "effective", "permitted")}
    linux = config["linux"]
    # In its family's pid namespace, where the runtime itself runs.
    linux["namespaces"] = [one for one in linux["namespaces"] if one["type"] != "pid"]
    if "seccomp" in linux:
        rules = [
            {**one, "names": [name for name in one["names"] if name != "setns"]} for one in linux["seccomp"]["syscalls"]
        ]
        rules.append({"names": ["setns"], "action": "SCMP_ACT_ALLOW"})
        linux["seccomp"]["syscalls"] = [one for one in rules if one["names"]]


def as_shell(config: dict[str, Any]) -> None:
    """Make it one of a shell: a first process that only reaps, and knows nothing that the container is told."""
    config["process"]["args"] = [pause.PATH]
    config["process"]["env"] = []


def _move(group: str, pid: int) -> None:
    try:
        cgroups.move(group, pid)
    except ProcessLookupError:
        return  # it ended; whoever waits for it is told
    except OSError as error:
        raise EngineError(f"A fork cannot be moved into its control group: {error.strerror}") from error


def _link_into(source: Path, target: Path) -> None:
    # The same files (sockets that listen, too) under both names. What is mounted in the shell are the target's
    # directories and files, so those stay; a file that both have gets the source's content.
    for one in os.scandir(source):
        there = target / one.name
        if one.is_dir(follow_symlinks=False):
            if not there.exists():
                there.mkdir()
                shutil.copystat(one.path, there)
            _link_into(Path(one.path), there)
        elif not os.path.lexists(there):
            os.link(one.path, there, follow_symlinks=False)
        elif one.is_file(follow_symlinks=False):
            data = Path(one.path).read_bytes()
            if there.read_bytes() != data:
                there.write_bytes(data)


def _remove_but(directory: Path, kept: set[str]) -> None:
    for one in os.scandir(directory):
        if one.name in kept:
            continue
        if one.is_dir(follow_symlinks=False):
            shutil.rmtree(one.path, ignore_errors=True)
        else:
            os.unlink(one.path)
