"""The functions of living apps: published, changed, gone, found; and what everybody hears of it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from alight.scheduler import state as scheduled
from alight.scheduler.events import FunctionPublished, FunctionRetired, FunctionReverted, FunctionScaled
from alight.server.events import Inbox
from alight.server.services import variants
from alight.server.services.published import (
    SCALABLE,
    VARIANT,
    Change,
    Published,
    check_spec,
    gone_error,
    renewed,
    restored,
    scalable,
    scaled_spec,
    spoken_name,
    statements_of,
)
from alight.server.services.to_try import to_try
from alight.server.services.variants import Wish
from alight.store.base import Store
from alight.wire import errors, ids
from alight.wire.messages import FunctionInfo, FunctionScaling, PublishedFunction
from alight.wire.spec import FunctionSpec
from alight.wire.urls import WebUrl

log = logging.getLogger(__name__)
#: What will be heard of the first container of a new version: an error in its wire form or None, and a word for people.
Trial = asyncio.Future[tuple[dict[str, Any] | None, str]]


class Names(Protocol):
    """What gives web functions their URLs."""

    def of(self, function: Published) -> tuple[WebUrl, ...]:
        """Where it answers requests."""

    def check(self, app_id: str, specs: tuple[FunctionSpec, ...], *, deployed: bool) -> None:
        """Raise what keeps an app from having functions of these names."""


class Functions:
    """Functions of living apps, by id and by name."""

    def __init__(self, store: Store, inbox: Inbox, check: Callable[[str, scheduled.Need], str]) -> None:
        self._store = store
        self._inbox = inbox
        self._check = check  # the scheduler's word on what is impossible
        self.changing = asyncio.Lock()  # two that make the same variant at once must make one
        self._trials: dict[str, Trial] = {}
        self._serving: dict[str, int] = {}  # versions that serve while a newer one is tried
        self.used: Callable[[str], bool] = lambda function_id: False  # whether a function has containers
        self.by_id: dict[str, Published] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self.names: Names | None = None  # of web functions

    def restore(self, row: Any, environment: str, owner: str, *, deployed: bool = False) -> None:
        """Take up a function or variant that an earlier server process recorded."""
        one = restored(row, environment, owner, deployed=deployed)
        self._enter(one)
        if one.gone:
            self._inbox.put(FunctionRetired(one.function_id, gone_error(one)))

    async def publish(
        self, app_id: str, environment: str, owner: str, specs: tuple[FunctionSpec, ...], *, deployed: bool = False
    ) -> tuple[PublishedFunction, ...]:
        """Record functions, new or changed, and their variants with them. What was scaled by hand is as declared again.

        Raises InvalidError for a spec that cannot be.
        """
        async with self.changing:
            change = self.plan(app_id, environment, owner, specs, deployed=deployed)
            if change.changed:
                await self._store.write(change.statements)
            self.carry_out(change)
        return tuple(self.answer(one) for one in change.named)

    def plan(  # noqa: PLR0913  what it depends on
        self,
        app_id: str,
        environment: str,
        owner: str,
        specs: tuple[FunctionSpec, ...],
        *,
        gone: str = "",
        renew: bool = False,
        deployed: bool = False,
    ) -> Change:
        """What it takes for an app to have these functions. Raises InvalidError for a spec that cannot be.

        With ``gone`` it has no others afterwards: the sentence says why, with %s where a function's name goes.
        ``renew``: fresh containers for what is the same. Hold ``changing`` from here until it is carried out.
        """
        for spec in specs:
            check_spec(spec)
        if self.names is not None:
            self.names.check(app_id, specs, deployed=deployed)
        named: list[Published] = []
        changed: list[Published] = []
        for spec in specs:
            old = self._entered(app_id, spec.name)
            if old is None:
                fresh = Published(ids.new_id(ids.FUNCTION), app_id, environment, owner, spec, deployed=deployed)
                changed.append(fresh)
            else:
                again = old if old.deployed == deployed else dataclasses.replace(old, deployed=deployed)
                fresh = renewed(again, spec, renew=renew)
                now = (fresh, *self._derived_anew(fresh, renew=renew))
                changed += [one for one in now if one is not self.by_id[one.function_id]]
            named.append(fresh)
        stays = {one.function_id for one in named}
        leaving = [
            dataclasses.replace(one, gone=gone % spoken_name(one.key), version=one.version + 1)
            for one in self.by_id.values()
            if gone and one.app_id == app_id and not one.gone and not {one.function_id, one.base} & stays
        ]
        before = {one.function_id: self.by_id.get(one.function_id) for one in (*changed, *leaving)}
        return Change(tuple(named), tuple(changed), tuple(leaving), before)

    def carry_out(self, change: Change, *, trial: bool = False, recreate: bool = False) -> dict[str, Trial]:
        """Let everybody know of a change that is written down.

        With ``trial``: of each new version that may need a container, what will be heard of its first one.
        """
        waits: dict[str, Trial] = {}
        for one in change.changed:
            self._take(one)
        waited = self._to_wait_for(change) if trial else {}
        anyway = to_try(waited.values(), self.used)
        for one in change.changed:
            if _only_scaled(one, change):
                self._inbox.put(FunctionScaled(one.function_id, one.need))
                continue
            name = one.function_id
            if name in waited:
                waits[name] = self._wait(one, change.before[name])
            self._announce(one, trial=name in waited, recreate=recreate, anyway=name in anyway)
        for one in change.gone:
            self.by_id[one.function_id] = one
            self._inbox.put(FunctionRetired(one.function_id, gone_error(one)))
        return waits

    def resume(self, change: Change) -> dict[str, Trial]:
        """Go on with the trials of a change that an earlier server process has carried out; see ``carry_out``."""
        waited = self._to_wait_for(change)
        anyway = to_try(waited.values(), self.used)
        for name, one in waited.items():
            self._announce(one, trial=True, anyway=name in anyway, resumed=True)
        return {name: self._wait(one, change.before[name]) for name, one in waited.items()}

    def behind(self, function_id: str, version: int) -> int:
        """How old a container is that was started with this version (0: nobody knows), as ``events.Held`` has it."""
        function = self.by_id.get(function_id)
        if function is None or version in {0, function.version}:
            return 0
        return 1 if version == self._serving.get(function_id) else 2

    def _to_wait_for(self, change: Change) -> dict[str, Published]:
        """New versions of which a container could be started."""
        return {
            one.function_id: one
            for one in change.changed
            if one.startable and not _only_scaled(one, change) and self.answer(one).impossible is None
        }

    def _wait(self, one: Published, before: Published | None) -> Trial:
        if before is not None and not before.gone:
            self._serving[one.function_id] = before.version
        trial = self._trials[one.function_id] = asyncio.get_running_loop().create_future()
        return trial

    def back(self, change: Change, why: str) -> Change:
        """What takes a change back: new functions go, with this sentence, and all others are as they were before."""
        changed: list[Published] = []
        gone: list[Published] = []
        for function_id, old in change.before.items():
            now = self.by_id[function_id]
            if old is None:
                gone.append(dataclasses.replace(now, gone=why, version=now.version + 1))
            elif old.version != now.version:
                changed.append(dataclasses.replace(old, version=now.version + 1))
        before = {one.function_id: self.by_id[one.function_id] for one in (*changed, *gone)}
        return Change((), tuple(changed), tuple(gone), dict(before))

    def carry_back(self, change: Change) -> None:
        """As ``carry_out``, where containers from before the change that is taken back may be left."""
        for one in change.changed:
            self._take(one)
            name = one.spec.name
            self._inbox.put(FunctionReverted(one.function_id, one.app_id, name, one.need, kept=one.kept))
        self.carry_out(Change((), (), change.gone, change.before))

    def trial_ended(self, function_id: str, error: dict[str, Any] | None, said: str) -> None:
        """The scheduler has seen whether the first container of a new version comes up."""
        trial = self._trials.pop(function_id, None)
        self._serving.pop(function_id, None)
        if trial is not None and not trial.done():
            trial.set_result((error, said))

    async def bind(self, function_id: str, wish: Wish) -> PublishedFunction:
        """The variant of a function that somebody wishes for; the function itself when the wish is empty.

        Raises InvalidError for options or parameters that cannot be, NotFoundError when there is no such function.
        """
        found = self.get(function_id)
        if found.base:
            wish = variants.merged(found.wish, wish)
            found = self.get(found.base)
        if wish.is_empty:
            return self.answer(found)
        async with self.changing:
            found = self.get(found.function_id)
            key = f"{found.spec.name}{VARIANT}{wish.digest}"
            variant = self._named(found.app_id, key)
            if variant is None:
                spec = variants.derive(found.spec, wish)
                check_spec(spec)
                function_id = ids.new_id(ids.FUNCTION)
                whose = (found.app_id, found.environment, found.owner)
                variant = Published(
                    function_id, *whose, spec, base=found.function_id, wish=wish, deployed=found.deployed
                )
                await self._store.write(statements_of(variant))
                self._enter(variant)
        return self.answer(variant)

    async def scale(self, function_id: str, changes: dict[str, Any]) -> FunctionScaling:
        """How a function is scaled, after these changes; None as a value takes back an earlier one.

        Raises InvalidError for what cannot be.
        """
        async with self.changing:
            found = self.get(function_id)
            if changes:
                scaled = dict(found.scaled)
                for name, value in changes.items():
                    if name not in SCALABLE:
                        raise errors.InvalidError(
                            f"{name!r} is not a setting of the autoscaler", hint=f"it has: {', '.join(SCALABLE)}"
                        )
                    scaled.pop(name, None)
                    if value is not None:
                        scaled[name] = scalable(found.spec.name, name, value)
                check_spec(scaled_spec(found.spec, scaled))
                if scaled != found.scaled:
                    fresh = dataclasses.replace(found, scaled=scaled)
                    await self._store.write(statements_of(fresh))
                    self._take(fresh)
                    self._inbox.put(FunctionScaled(function_id, fresh.need))
                    found = fresh
        need, scaling = found.need, scaled_spec(found.spec, found.scaled).autoscaling
        return FunctionScaling(
            need.min_containers,
            need.max_containers,
            need.buffer_containers,
            need.scaledown_window,
            scaling.target_concurrent_inputs,
            scaling.scaleup_window,
        )

    def lookup(self, app_id: str, name: str) -> PublishedFunction:
        """A function by name. Raises NotFoundError naming those there are."""
        found = self._named(app_id, name)
        if found is None:
            raise self._unknown("the app", app_id, name)
        return self.answer(found)

    def find(self, apps: Iterable[str], app_name: str, name: str) -> FunctionInfo:
        """A function of the first of these apps that has it. Raises NotFoundError naming those of the first app."""
        known = list(apps)
        for app_id in known:
            found = self._named(app_id, name)
            if found is not None:
                spec = found.spec
                return FunctionInfo(
                    found.function_id,
                    spec.name,
                    app_id,
                    spec.is_generator,
                    is_web=spec.is_web,
                    class_name=spec.class_name,
                    methods=spec.methods,
                    parameters=spec.class_parameters,
                )
        raise self._unknown(f"the app {app_name!r}", known[0], name)

    def get(self, function_id: str) -> Published:
        """Raises NotFoundError when its app is stopped, or there is no such function."""
        found = self.by_id.get(function_id)
        if found is not None and found.gone:
            raise errors.NotFoundError(found.gone, hint="`alight app info` shows what it has; deploy it again with it")
        if found is None:
            raise errors.NotFoundError(
                f"there is no function {function_id} (any more)", hint="its app was stopped: run or deploy it again"
            )
        return found

    def owner_of(self, function_id: str) -> str | None:
        """Whose a function is; None where there is none."""
        found = self.by_id.get(function_id)
        return None if found is None or found.gone else found.owner

    def forget_app(self, app_id: str) -> None:
        """The app has ended."""
        for key in [key for key in self._by_name if key[0] == app_id]:
            function_id = self._by_name.pop(key)
            self.by_id.pop(function_id, None)
            self.trial_ended(function_id, {"code": "not_found", "message": "the app was stopped"}, "")

    def of_app(self, app_id: str) -> list[Published]:
        """The functions of an app that are not gone, variants left out."""
        return [one for one in self.by_id.values() if one.app_id == app_id and not one.base and not one.gone]

    def _named(self, app_id: str, key: str) -> Published | None:
        found = self._entered(app_id, key)
        return None if found is None or found.gone else found

    def _entered(self, app_id: str, key: str) -> Published | None:
        """As ``_named``, also when it is gone: whoever publishes the name again gets the same function."""
        return self.by_id.get(self._by_name.get((app_id, key), ""))

    def _derived_anew(self, base: Published, *, renew: bool) -> list[Published]:
        """Its variants, as they are now. One whose parameters the class has no more stays what it was."""
        found = []
        for one in self.by_id.values():
            if one.base != base.function_id:
                continue
            try:
                spec = variants.derive(base.spec, one.wish)
                check_spec(spec)
            except errors.InvalidError as error:
                log.warning("%s of app %s stays at its earlier version: %s", one.key, one.app_id, error)
                continue
            again = one if one.deployed == base.deployed else dataclasses.replace(one, deployed=base.deployed)
            found.append(renewed(again, spec, renew=renew))
        return found

    def _enter(self, function: Published) -> None:
        self._take(function)
        self._announce(function)

    def _announce(self, one: Published, **how: bool) -> None:
        event = FunctionPublished(one.function_id, one.app_id, one.spec.name, one.need, kept=one.kept, **how)
        self._inbox.put(event)

    def _take(self, function: Published) -> None:
        self.by_id[function.function_id] = function
        self._by_name[function.app_id, function.key] = function.function_id

    def urls(self, function: Published) -> tuple[WebUrl, ...]:
        """Where it answers requests."""
        return self.names.of(function) if self.names is not None else ()

    def answer(self, function: Published) -> PublishedFunction:
        """What its publisher hears of it."""
        name = function.spec.name
        urls = self.urls(function)
        try:
            warning = self._check(name, function.need)
        except errors.Error as error:
            return PublishedFunction(name, function.function_id, errors.to_wire(error), web=urls)
        return PublishedFunction(name, function.function_id, warning=warning, web=urls)

    def _unknown(self, app: str, app_id: str, name: str) -> errors.NotFoundError:
        names = sorted(one.key for one in self.of_app(app_id))
        if f"{name}.*" in names:
            hint = f"{name} is a class: look it up with Cls.from_name"
        elif name.endswith(".*") and name[:-2] in names:
            hint = f"{name[:-2]} is a function: look it up with Function.from_name"
        else:
            shown = ", ".join(known.removesuffix(".*") for known in names)
            hint = f"it has: {shown}" if shown else "it has no functions"
        what = f"class {name[:-2]!r}" if name.endswith(".*") else f"function {name!r}"
        return errors.NotFoundError(f"{app} has no {what}", hint=hint)


def _only_scaled(one: Published, change: Change) -> bool:
    old = change.before[one.function_id]
    return old is not None and old.version == one.version and old.kept == one.kept
