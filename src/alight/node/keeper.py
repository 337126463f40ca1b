"""Who keeps this machine's templates: starts containers through them, makes and ends them, and parks forks.

What to do is decided by ``templates.Book``; this does it. Nothing here may fail a start: whatever goes wrong with a
template is written down, and the container starts plainly. Templates are made and forks are parked when nothing starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

from alight.node.engine.base import ContainerPlan, ContainerState, Engine, EngineError
from alight.node.engine.forks import SHELL, TEMPLATE, Forks, shape
from alight.node.naming import Dns
from alight.node.prepare import Prepared, Workshop, make_folders, prepare
from alight.node.snapshots import Snapshots
from alight.node.stages import Stages
from alight.node.template import Recipe, Refused, TemplateProcess, Tools, moved
from alight.node.template_report import Told
from alight.node.templates import MODULE, Book, Facts, Template, TemplateSettings, keys
from alight.wire import errors, ids
from alight.wire.commands import StartContainer
from alight.wire.record import replace as changed

log = logging.getLogger(__name__)

#: Seconds between two looks at memory and idleness.
EVERY = 10.0
#: Seconds that making a template, and parking a fork, waits for a moment in which no container comes up.
_MAKE_PATIENCE, _PARK_PATIENCE = 3.0, 1.0
#: Seconds without a start before that moment: the first input of the last one goes first.
_LULL = 0.02


#: From the level of a template to the end of a link that a fork of it is woken with; None: it dials.
LinkFor = Callable[[int], Awaitable[socket.socket | None]]


@dataclass(frozen=True)
class Started:
    """A container that runs, and what its start owes to templates."""

    state: ContainerState
    level: int = 0
    """Of the template that it was forked from; 0: of none."""
    refused: tuple[str, ...] = ()
    """Why there was no better template, as sentences."""


class Keeper:
    """See the module. ``home`` is the state directory. Runs in the agent's loop."""

    def __init__(self, shop: Workshop, dns: Dns, told: TemplateSettings, home: Path) -> None:
        self._shop = shop
        self._engine: Engine = shop.engine
        self._snapshots = Snapshots(home / "node" / "snapshots")
        self._tools = Tools(shop.engine, dns, shop.volumes, self._snapshots)
        self._told = told
        self._told_people = Told(home / "run" / "templates.json", told)
        self._book = Book(told)
        self._salt = os.urandom(16)
        self._wanted: dict[str, Recipe] = {}
        self._making: asyncio.Task[None] | None = None
        self._processes: dict[str, TemplateProcess] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._plans: dict[tuple[str, str], ContainerPlan] = {}
        self._coming: set[str] = set()  # containers between their start and their first word
        self._starting = 0
        self._last_start = 0.0
        self._work = asyncio.Event()

    # starts

    async def start(self, start: StartContainer, prepared: Prepared, link: LinkFor) -> Started:
        """Start a container: by a fork of the best template there is, or plainly. ``link`` makes what a fork of a level
        is woken with."""
        self._coming.add(start.container_id)
        self._starting += 1
        try:
            return await self._start(start, prepared, link)
        finally:
            self._starting -= 1
            self._last_start = time.monotonic()
            self._work.set()

    def foresee(self, start: StartContainer) -> None:
        """Containers like this one, which has no id, may come: have a template of it, and a fork that waits."""
        task = asyncio.get_running_loop().create_task(self._foresee(start))
        self._watches.add(task)
        task.add_done_callback(self._watches.discard)

    def through(self, container_id: str) -> None:
        """The container is up: it needs the processor no more than others."""
        self._coming.discard(container_id)
        self._last_start = time.monotonic()

    def adopt(self, container_id: str) -> None:
        """An earlier agent started it."""
        self._snapshots.adopt(container_id, self._engine.directory(container_id))

    def gone(self, container_id: str) -> None:
        """The container has ended, or never began."""
        self.through(container_id)
        self._snapshots.release(container_id)

    async def _start(self, start: StartContainer, prepared: Prepared, link: LinkFor) -> Started:
        forks = self._forks
        refused: list[str] = []
        if start.function.buckets:
            refused.append(
                "it mounts a bucket, which is mounted for each container anew: a fork has its mounts already"
            )
        for level, key in self._keys(start, prepared) if forks is not None else ():
            assert forks is not None
            template = self._book.ready(key)
            if template is None:
                refused += self._book.refused(key)
                self._want(level, key, start, prepared)
                continue
            plan = self._fork_plan(template, prepared)
            try:
                for layer in plan.own_layers:
                    self._snapshots.use(layer, plan.id, self._engine.directory(plan.id))
                theirs = await link(level)
                with theirs or contextlib.nullcontext():
                    state = await forks.start_fork(template.id, plan, theirs)
            except (EngineError, OSError) as error:
                self._snapshots.release(plan.id)
                log.warning("no fork of template %s for %s: %s", template.id, start.container_id, error)
                refused.append(f"a fork of the template failed: {error}")
                await self._fork_failed(template)
                continue
            # The container waits for no book-keeping.
            asyncio.get_running_loop().call_soon(self._served, template, plan)
            return Started(state, level, tuple(refused))
        return Started(await self._engine.start(prepared.plan), 0, tuple(refused))

    @property
    def _forks(self) -> Forks | None:
        found: Forks | None = getattr(self._engine, "forks", None)
        return found

    def _keys(self, start: StartContainer, prepared: Prepared) -> tuple[tuple[int, str], ...]:
        if prepared.ground is None or start.function.buckets:
            return ()
        secrets = ""
        if start.secrets:
            text = json.dumps(sorted(start.secrets.items())).encode()
            secrets = hashlib.blake2b(text, key=self._salt).hexdigest()
        return keys(
            prepared.ground,
            Facts(
                function=prepared.function,
                env=prepared.plan.env,
                secrets=secrets,
                environment=start.environment,
                app_name=start.app_name,
                function_id=start.function_id,
            ),
            self._told.level,
        )

    def _want(self, level: int, key: str, start: StartContainer, prepared: Prepared) -> None:
        """First use: the template is made after this start is through."""
        if prepared.ground is not None and self._book.may_begin(key, time.monotonic()):
            self._wanted.setdefault(key, Recipe(level, key, start, prepared, prepared.ground))

    def _fork_plan(self, template: Template, prepared: Prepared) -> ContainerPlan:
        upper = self._processes[template.id].upper
        return replace(prepared.plan, own_layers=(upper,)) if upper else prepared.plan

    def _served(self, template: Template, plan: ContainerPlan) -> None:
        form = shape(plan, str(self._engine.directory(plan.id)))
        self._plans[template.id, form] = plan
        self._book.served(template, form, time.monotonic(), parkable=not plan.devices)

    async def _foresee(self, start: StartContainer) -> None:
        if self._forks is None or start.function.buckets:
            return
        start = changed(start, container_id=ids.new_id(ids.CONTAINER))
        folder = self._engine.directory(start.container_id)
        try:
            prepared = await prepare(start, self._shop, Stages())
            for level, key in self._keys(start, prepared):
                template = self._book.ready(key)
                if template is not None:
                    plan = self._fork_plan(template, prepared)
                    form = shape(plan, str(folder))
                    self._plans[template.id, form] = plan
                    self._book.expect(template, form, time.monotonic(), parkable=not plan.devices)
                    break
                self._want(level, key, start, prepared)
        except (errors.Error, OSError) as error:
            log.info("no template of %s ahead of its calls: %s", start.function.name, error)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._work.set()

    async def _fork_failed(self, template: Template) -> None:
        if self._book.fork_failed(template):
            await self._close(template, "its forks fail", badly=True)

    # upkeep

    async def run(self) -> None:
        """Keep templates and parked forks as they are wanted, until cancelled."""
        await asyncio.to_thread(self._snapshots.sweep)
        measured = 0.0
        loop = asyncio.get_running_loop()
        try:
            while True:
                # Not wait_for, which may take a cancellation for the event when both come at once.
                alarm = loop.call_later(EVERY, self._work.set)
                try:
                    await self._work.wait()
                finally:
                    alarm.cancel()
                self._work.clear()
                # A start that is under way goes before the book-keeping of it.
                await self._lull(_PARK_PATIENCE, lambda: bool(self._coming or self._starting))
                try:
                    await self._told_people.say(self._book, self._parked(), possible=self._forks is not None)
                    if time.monotonic() - measured >= EVERY:
                        measured = time.monotonic()
                        await self._measure()
                    await self._tidy()
                    self._make_next()
                    await self._park()
                    await self._told_people.say(self._book, self._parked(), possible=self._forks is not None)
                except (errors.Error, OSError) as error:
                    log.warning("templates could not be kept in order: %s", error)
        finally:
            tasks = [*self._watches, *([self._making] if self._making is not None else [])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._told_people.forget()

    def clear(self) -> None:
        """The engine has ended everything: remove what templates and forks that waited leave on the disk."""
        self._snapshots.clear()
        for prefix in (TEMPLATE, SHELL):
            for path in self._engine.directory(prefix).parent.glob(f"{prefix}-*"):
                shutil.rmtree(path, ignore_errors=True)

    async def _measure(self) -> None:
        """What they use."""
        for template in self._book:
            if template.ready:
                await self._measure_one(template)

    async def _measure_one(self, template: Template) -> None:
        with contextlib.suppress(EngineError):
            used = (await self._engine.stats(template.id)).memory_bytes
            too_much = self._book.measured(template, used)
            if too_much:
                self._book.refuse(template, (too_much,))
                await self._close(template, too_much)

    async def _tidy(self) -> None:
        now = time.monotonic()
        for template, reason in self._book.to_close(now, await asyncio.to_thread(self._lost)):
            await self._close(template, reason)
        forks = self._forks
        if forks is not None:
            for template_id, form, keep in self._book.surplus(self._parked(), now):
                await forks.unpark(template_id, form, keep)

    def _lost(self) -> list[str]:
        """Templates whose image was removed."""
        return [
            template_id
            for template_id, process in list(self._processes.items())
            if not all(Path(layer).is_dir() for layer in process.recipe.ground.layers)
        ]

    def _make_next(self) -> None:
        """One at a time, the cheap ones first."""
        if self._wanted and (self._making is None or self._making.done()):
            recipe = min(self._wanted.values(), key=lambda one: one.level)
            del self._wanted[recipe.key]
            self._making = asyncio.get_running_loop().create_task(self._make(recipe))

    async def _make(self, recipe: Recipe) -> None:
        forks = self._forks
        try:
            await self._lull(_MAKE_PATIENCE, lambda: bool(self._coming))
            if forks is None or not self._book.may_begin(recipe.key, time.monotonic()):
                return
            process = TemplateProcess(recipe, self._tools, forks)
            begun = time.monotonic()
            template = self._book.begin(recipe.key, recipe.level, process.id, begun, recipe.name)
            self._processes[process.id] = process
            try:
                await process.make()
            except Refused as refused:
                log.info("no template for %s: %s", recipe.name, refused)
                self._book.refuse(template, refused.sentences)
                self._processes.pop(process.id, None)
            except errors.Error as error:
                log.warning("the template for %s did not come up: %s", recipe.name, error)
                self._book.ended(template, time.monotonic(), badly=True)
                self._processes.pop(process.id, None)
            except BaseException:
                self._processes.pop(process.id, None)
                raise
            else:
                self._made(template, process, time.monotonic() - begun)
                await self._measure_one(template)
        except Exception:
            # One of our own faults must not end the upkeep of all others.
            log.exception("the template for %s failed", recipe.name)
        finally:
            self._work.set()

    def _made(self, template: Template, process: TemplateProcess, seconds: float) -> None:
        recipe, now = process.recipe, time.monotonic()
        level, name = template.level, template.name
        log.info("template %s (level %d) for %s is ready after %.2f s", template.id, level, name, seconds)
        if template.level == MODULE:
            for line in process.printed():
                log.info("template %s: %s", template.id, line)
        self._book.made(template, now)
        plan = self._fork_plan(template, recipe.prepared)
        form = shape(plan, str(self._engine.directory(plan.id)))
        self._plans[template.id, form] = plan
        self._book.expect(template, form, now, parkable=not plan.devices)
        # Nobody needs the secrets any more.
        process.forget_secrets()
        watch = asyncio.get_running_loop().create_task(self._watch(template, process))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, template: Template, process: TemplateProcess) -> None:
        """Notice when it ends by itself."""
        try:
            state = await process.wait()
            why = state.error or f"signal {state.signal}, exit code {state.exit_code}"
        except errors.Error as error:
            why = str(error)
        if template.id in self._processes:
            await self._close(template, why, badly=True)
            self._work.set()

    async def _close(self, template: Template, reason: str, *, badly: bool = False) -> None:
        process = self._processes.pop(template.id, None)
        if process is None:
            return
        (log.warning if badly else log.info)("template %s for %s ends: %s", template.id, template.name, reason)
        self._book.ended(template, time.monotonic(), badly=badly)
        for name in [name for name in self._plans if name[0] == template.id]:
            del self._plans[name]
        await process.close()

    # forks that wait

    def _parked(self) -> dict[str, dict[str, int]]:
        forks = self._forks
        if forks is None:
            return {}
        return {one.id: dict(forks.parked(one.id)) for one in self._book if one.ready}

    async def _park(self) -> None:
        """One fork, and more the next time: starts that go on and on must not keep from the rest."""
        forks = self._forks
        found = self._book.next_park(self._parked(), time.monotonic()) if forks is not None else None
        if forks is None or found is None:
            return
        self._work.set()
        template_id, form = found
        template = next(one for one in self._book if one.id == template_id)
        try:
            await self._park_one(forks, template_id, self._plans[found])
        except EngineError as error:
            log.warning("no fork of template %s could be parked: %s", template_id, error)
            self._book.park_failed(template, form, time.monotonic())
        else:
            self._book.park_succeeded(template, form)

    async def _park_one(self, forks: Forks, template_id: str, like: ContainerPlan) -> None:
        shell = ids.new_id(SHELL)
        folder = self._engine.prepare(shell)
        try:
            make_folders(folder)
            await forks.park(template_id, moved(like, shell, str(self._engine.directory(like.id)), str(folder)))
        except OSError as error:
            raise EngineError(f"a directory for it could not be made: {error}") from error
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            raise

    async def _lull(self, patience: float, busy: Callable[[], bool]) -> None:
        """Return when nothing starts, or when that does not come about."""
        until = time.monotonic() + patience
        while (now := time.monotonic()) < until:
            quiet = _LULL - (now - self._last_start)
            if not busy() and quiet <= 0:
                return
            await asyncio.sleep(max(0.01, min(quiet, _LULL)))
