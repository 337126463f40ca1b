"""What ``app.run()`` does, in order, and what it undoes.

create → resolve and upload → publish → (a needed function that no machine can run ends it here, before any build) →
watch → build the needed images → the user's block → stop → last output. Every way out, Ctrl-C at any step included,
stops the app on the server, unless it is detached.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Deque, Dict, Mapping, Optional, Set, Tuple

from alight.sdk import image_build, progress
from alight.sdk.client import Client
from alight.sdk.function import Function
from alight.sdk.resolve import Resolver
from alight.sdk.running import RunningApp
from alight.sdk.sync import call_blocking
from alight.wire import errors, messages
from alight.wire.record import dataclass, field, replace
from alight.wire.spec import FunctionSpec, ImageSpec
from alight.wire.states import AppState

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream
    from alight.sdk.terminal import Terminal
    from alight.wire.billing import BudgetSet


@dataclass(frozen=True)
class Plan:
    """How an app is run. ``needed`` None: any function may be called; ``gpu`` replaces what functions ask for."""

    client: Client
    name: str = ""
    description: str = ""
    environment: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    detach: bool = False
    interactive: bool = False
    needed: Optional[Set[str]] = None
    gpu: Optional[str] = None
    budget: Optional[BudgetSet] = None  # of this run; its name is filled in


class Run:
    """One run of one app, from its creation to its end."""

    def __init__(self, plan: Plan, functions: Mapping[str, Function]) -> None:
        self._plan = plan
        self._functions = functions
        self._running: Optional[RunningApp] = None
        self._terminal: Optional[Terminal] = None
        self._impossible: Set[str] = set()
        self._said: Set[str] = set()

    async def begin(self) -> RunningApp:
        """Create the app on the server."""
        plan = self._plan
        progress.current().phase("Starting the app")
        message = messages.AppCreate(
            name=plan.name,
            description=plan.description,
            environment=plan.environment,
            kind=AppState.DETACHED if plan.detach else AppState.RUNNING,
            tags=dict(plan.tags),
        )
        created = await plan.client.call("app.create", message, messages.AppCreated)
        self._running = RunningApp(plan.client, created, detach=plan.detach)
        self._running.own_gpus = plan.gpu is None
        # From here on the server would stop the app if this process were to vanish.
        await self._running.watch()
        if plan.budget is not None:
            from alight.wire.billing import Budgets  # noqa: PLC0415  only runs that have one

            budget = replace(plan.budget, kind="run", name=created.app_id)
            await plan.client.call("budget.set", budget, Budgets)
        if plan.interactive:
            from alight.sdk.terminal import Terminal  # noqa: PLC0415  only runs that lend one

            self._terminal = Terminal(self._running)
            await self._terminal.lend()
        return self._running

    async def prepare(self) -> None:
        """Everything that can be done before the first call."""
        running = self._require()
        specs = await self._resolve(running)
        published = await self._plan.client.call(
            "app.publish", messages.AppPublish(running.app_id, tuple(specs.values())), messages.AppPublished
        )
        self._learn(running, published)
        await self._build(running, specs)

    async def end(self, error: Optional[BaseException]) -> None:
        """Stop the app, or let it go on when it is detached."""
        running = self._running
        if running is None:
            return
        if self._terminal is not None:
            self._terminal.close()
        if self._plan.detach:
            running.leave()
            return
        if running.stopped is not None:
            running.leave()
            return
        reason = "" if error is None else f"{type(error).__name__}"
        try:
            if isinstance(error, (KeyboardInterrupt, GeneratorExit)) or error is None or isinstance(error, Exception):
                await running.stop(reason)
            else:
                # The caller's event loop is cancelling us: it is not there for another wait.
                call_blocking(running.stop(reason))
        except errors.ConnectionError:
            if error is None:
                raise

    async def _resolve(self, running: RunningApp) -> Dict[str, FunctionSpec]:
        """The spec of every function that can have one. What a needed one lacks is raised, what others lack is kept."""
        progress.current().phase("Looking at files, volumes and secrets")
        resolver = Resolver(self._plan.client, running.app_id, gpu=self._plan.gpu)
        specs: Dict[str, FunctionSpec] = {}
        for name, function in self._functions.items():
            try:
                specs[name] = await resolver.function(name, function._raw, function.options, function.traits)  # noqa: SLF001
            except errors.ConnectionError:
                raise
            except errors.Error as error:
                if self._is_needed(name):
                    raise
                running.problems[name] = error
        started = time.monotonic()
        sent = await resolver.upload()
        if sent:
            progress.current().done(f"Uploaded {_size(sent)} in {time.monotonic() - started:.1f} s")
        return specs

    def _learn(self, running: RunningApp, published: messages.AppPublished) -> None:
        """Ids, warnings, and what can never run here."""
        for one in published.functions:
            running.function_ids[one.name] = one.function_id
            if one.web:
                self._show_urls(one)
            if one.impossible is not None:
                self._impossible.add(one.name)
                error = errors.from_wire(one.impossible)
                if self._plan.needed is not None and self._is_needed(one.name):
                    raise error
                if self._plan.needed is None:  # any of them may be called; else only those that are, and they say it
                    progress.current().warn(f"{one.name} cannot run here: {error}")
            elif one.warning and self._is_needed(one.name):
                progress.current().note(f"{one.name}: {one.warning}")

    def _show_urls(self, one: messages.PublishedFunction) -> None:
        from alight.sdk import web_urls  # noqa: PLC0415  few apps have web functions

        for line in web_urls.lines(one.name, one.web):
            progress.current().note(line)

    async def _build(self, running: RunningApp, specs: Mapping[str, FunctionSpec]) -> None:
        """Have the needed images made, all at the same time."""
        wanted: Dict[str, Tuple[ImageSpec, FunctionSpec]] = {}
        for name, spec in specs.items():
            if self._is_wanted(name):
                wanted.setdefault(spec.image.digest, (spec.image, spec))
        under_way: Deque[Tuple[messages.ImageEnsure, Stream]] = deque()
        if wanted:
            progress.current().phase("Preparing the image" if len(wanted) == 1 else f"Preparing {len(wanted)} images")
        for image, spec in wanted.values():
            message = image_build.ensure(running.app_id, image, spec.python_version)
            under_way.append((message, await self._plan.client.open("image.ensure", message)))
        try:
            while under_way:
                message, stream = under_way[0]
                await image_build.follow(self._plan.client, message, stream, self._said)
                under_way.popleft()
        finally:
            for _, stream in under_way:
                stream.leave()

    def _is_needed(self, name: str) -> bool:
        return self._plan.needed is None or name in self._plan.needed

    def _is_wanted(self, name: str) -> bool:
        return self._is_needed(name) and name not in self._impossible

    def _require(self) -> RunningApp:
        if self._running is None:
            raise errors.InternalError("an app was prepared before it was created")
        return self._running


def _size(count: int) -> str:
    if count < 1 << 20:
        return f"{max(1, count >> 10)} KiB"
    return f"{count / (1 << 20):.1f} MiB"
