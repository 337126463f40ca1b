"""Published functions and their variants: their specs, and what the scheduler has to know of each."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from alight.scheduler import schedules
from alight.scheduler import state as scheduled
from alight.scheduler.events import FunctionPublished, FunctionRetired, FunctionReverted, FunctionScaled
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.events import Inbox
from alight.server.services import variants
from alight.server.services.variants import Wish
from alight.store.base import Statement, Store
from alight.wire import errors, ids
from alight.wire.codec import to_plain
from alight.wire.messages import FunctionInfo, FunctionScaling, PublishedFunction
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec
from alight.wire.urls import WebUrl

log = logging.getLogger(__name__)
#: What will be heard of the first container of a new version: an error in its wire form or None, and a word for people.
Trial = asyncio.Future[tuple[dict[str, Any] | None, str]]
_SCALABLE = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")
_VARIANT = "#"  # between a function's name and what makes it a variant; no function's own name has it


@dataclass
class Published:
    """A function of a living app, or a variant of one.

    ``spec`` is what was declared, ``scaled`` the fields of its scaling that were set by hand since. ``gone`` says why
    nobody finds it any more, as a sentence: what runs of it may finish.
    """

    function_id: str
    app_id: str
    environment: str
    owner: str
    spec: FunctionSpec
    version: int = 1
    base: str = ""  # of a variant: the function that it is one of
    wish: Wish = field(default_factory=Wish)
    scaled: dict[str, Any] = field(default_factory=dict)
    deployed: bool = False
    gone: str = ""

    @property
    def kept(self) -> bool:
        """Whether its containers are there without any input: of deployed apps, where nothing is left to be given."""
        ready = self.base or not any(one.required for one in self.spec.class_parameters)
        return self.deployed and not self.gone and bool(ready)

    @property
    def key(self) -> str:
        """Its name among the functions and variants of its app."""
        return f"{self.spec.name}{_VARIANT}{self.wish.digest}" if self.base else self.spec.name

    @property
    def need(self) -> scheduled.Need:
        """What the scheduler has to know of it, as it is scaled now."""
        return need_of(_scaled(self.spec, self.scaled))


class Names(Protocol):
    """What gives web functions their URLs."""

    def of(self, function: Published) -> tuple[WebUrl, ...]:
        """Where it answers requests."""

    def check(self, app_id: str, specs: tuple[FunctionSpec, ...], *, deployed: bool) -> None:
        """Raise what keeps an app from having functions of these names."""


@dataclass(frozen=True)
class Change:
    """What publishing an app's functions comes to: pure, until ``Functions.carry_out`` does it.

    ``named`` are the functions that were asked for, as they will be; ``changed`` what is new or different, variants
    included; ``gone`` what is there no more. ``before``: each of the two as it was, None for what was not there.
    """

    named: tuple[Published, ...]
    changed: tuple[Published, ...] = ()
    gone: tuple[Published, ...] = ()
    before: dict[str, Published | None] = field(default_factory=dict)

    @property
    def is_new(self) -> bool:
        """Whether there is more to it than scaling that is as declared again."""
        return bool(self.gone) or any(one.version != _version(self.before[one.function_id]) for one in self.changed)

    @property
    def statements(self) -> list[Statement]:
        """How the store keeps it."""
        return [statement for one in (*self.changed, *self.gone) for statement in _statements(one)]


class _Kept(msgspec.Struct):
    """What a row keeps beside the spec, in the same JSON."""

    base: str = ""
    changes: dict[str, Any] = {}
    given: dict[str, str] | None = None
    scaled: dict[str, Any] = {}


class _Row(msgspec.Struct):
    kept: _Kept = msgspec.field(default_factory=_Kept)


_decode = msgspec.json.Decoder(FunctionSpec).decode
_decode_kept = msgspec.json.Decoder(_Row).decode


class Functions:
    """Functions of living apps, by id and by name."""

    def __init__(self, store: Store, inbox: Inbox, check: Callable[[str, scheduled.Need], str]) -> None:
        self._store = store
        self._inbox = inbox
        self._check = check  # the scheduler's word on what is impossible
        self.changing = asyncio.Lock()  # two that make the same variant at once must make one
        self._trials: dict[str, Trial] = {}
        self.by_id: dict[str, Published] = {}
        self._by_name: dict[tuple[str, str], str] = {}
        self.names: Names | None = None  # of web functions

    def restore(self, row: Any, environment: str, owner: str, *, deployed: bool = False) -> None:
        """Take up a function or variant that an earlier server process recorded."""
        spec, kept = _decode(row["spec"]), _decode_kept(row["spec"]).kept
        wish = Wish(kept.changes, spec.parameters, kept.given) if kept.base else Wish()
        one = Published(
            row["function_id"],
            row["app_id"],
            environment,
            owner,
            spec,
            row["version"],
            kept.base,
            wish,
            kept.scaled,
            deployed,
            row["gone"],
        )
        self._enter(one)
        if one.gone:
            self._inbox.put(FunctionRetired(one.function_id, _gone_error(one)))

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
            _check_spec(spec)
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
                fresh = _renewed(again, spec, renew=renew)
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
        trials: dict[str, Trial] = {}
        for one in change.changed:
            old = change.before[one.function_id]
            self._take(one)
            if old is not None and old.version == one.version and old.kept == one.kept:
                self._inbox.put(FunctionScaled(one.function_id, one.need))
                continue
            waited = trial and one.kept and self.answer(one).impossible is None
            if waited:
                trials[one.function_id] = self._trials[one.function_id] = asyncio.get_running_loop().create_future()
            self._announce(one, trial=waited, recreate=recreate)
        for one in change.gone:
            self.by_id[one.function_id] = one
            self._inbox.put(FunctionRetired(one.function_id, _gone_error(one)))
        return trials

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
            key = f"{found.spec.name}{_VARIANT}{wish.digest}"
            variant = self._named(found.app_id, key)
            if variant is None:
                spec = variants.derive(found.spec, wish)
                _check_spec(spec)
                function_id = ids.new_id(ids.FUNCTION)
                whose = (found.app_id, found.environment, found.owner)
                variant = Published(
                    function_id, *whose, spec, base=found.function_id, wish=wish, deployed=found.deployed
                )
                await self._store.write(_statements(variant))
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
                    if name not in _SCALABLE:
                        raise errors.InvalidError(
                            f"{name!r} is not a setting of the autoscaler", hint=f"it has: {', '.join(_SCALABLE)}"
                        )
                    scaled.pop(name, None)
                    if value is not None:
                        scaled[name] = _scalable(found.spec.name, name, value)
                _check_spec(_scaled(found.spec, scaled))
                if scaled != found.scaled:
                    fresh = dataclasses.replace(found, scaled=scaled)
                    await self._store.write(_statements(fresh))
                    self._take(fresh)
                    self._inbox.put(FunctionScaled(function_id, fresh.need))
                    found = fresh
        need = found.need
        return FunctionScaling(need.min_containers, need.max_containers, need.buffer_containers, need.scaledown_window)

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
                _check_spec(spec)
            except errors.InvalidError as error:
                log.warning("%s of app %s stays at its earlier version: %s", one.key, one.app_id, error)
                continue
            again = one if one.deployed == base.deployed else dataclasses.replace(one, deployed=base.deployed)
            found.append(_renewed(again, spec, renew=renew))
        return found

    def _enter(self, function: Published) -> None:
        self._take(function)
        self._announce(function)

    def _announce(self, one: Published, *, trial: bool = False, recreate: bool = False) -> None:
        event = FunctionPublished(
            one.function_id, one.app_id, one.spec.name, one.need, trial=trial, recreate=recreate, kept=one.kept
        )
        self._inbox.put(event)

    def _take(self, function: Published) -> None:
        self.by_id[function.function_id] = function
        self._by_name[function.app_id, function.key] = function.function_id

    def answer(self, function: Published) -> PublishedFunction:
        """What its publisher hears of it."""
        name = function.spec.name
        urls = self.names.of(function) if self.names is not None else ()
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


def is_variant(key: str) -> bool:
    """Whether this is the name of a variant, which people need not see."""
    return _VARIANT in key


def shown_name(key: str, method: str = "") -> str:
    """What people call it: "train" for a variant of train, "Model.predict" for a method."""
    name = key.partition(_VARIANT)[0]
    return name[:-1] + method if method and name.endswith(".*") else name


def spoken_name(key: str) -> str:
    """Its name within a sentence: "train()", "the class Model"."""
    name = shown_name(key)
    return f"the class {name[:-2]}" if name.endswith(".*") else f"{name}()"


def may_use(who: Principal, function: Published) -> bool:
    """Whether a principal may call and scale a function: the server's owner any, users their own, and a container
    those of its own owner and environment."""
    if who.kind == CONTAINER and who.environment != function.environment:
        return False
    return who.kind == OWNER or who.owner == function.owner


def need_of(spec: FunctionSpec) -> scheduled.Need:
    """What the scheduler has to know of a function."""
    asked, scaling = spec.resources, spec.autoscaling
    window = scaling.scaledown_window
    return scheduled.Need(
        cpu=asked.cpu if asked.cpu is not None else scheduled.DEFAULT_CPU,
        memory=asked.memory if asked.memory is not None else scheduled.DEFAULT_MEMORY,
        gpus=tuple(asked.gpus),
        min_containers=scaling.min_containers,
        max_containers=scaling.max_containers,
        buffer_containers=scaling.buffer_containers,
        scaledown_window=window if window is not None else scheduled.DEFAULT_WINDOW,
        max_concurrent=max(1, scaling.max_concurrent_inputs),
        target_concurrent=scaling.target_concurrent_inputs,
        batch_size=scaling.batch_size,
        single_use=scaling.single_use,
        retries=spec.retries,
    )


def _renewed(old: Published, spec: FunctionSpec, *, renew: bool = False) -> Published:
    """The function as it is published now; the very same one when nothing is different."""
    if old.spec != spec or old.gone or renew:
        return dataclasses.replace(old, spec=spec, version=old.version + 1, scaled={}, gone="")
    return dataclasses.replace(old, scaled={}) if old.scaled else old


def _version(function: Published | None) -> int:
    return 0 if function is None else function.version


def _gone_error(function: Published) -> dict[str, Any]:
    return errors.to_wire(errors.NotFoundError(function.gone))


def _scaled(spec: FunctionSpec, scaled: dict[str, Any]) -> FunctionSpec:
    return replace(spec, autoscaling=replace(spec.autoscaling, **scaled)) if scaled else spec


def _scalable(function: str, name: str, value: Any) -> Any:
    """A value for a setting of the autoscaler. Raises InvalidError for one that is no such number."""
    seconds = name == "scaledown_window"
    number = not isinstance(value, bool) and isinstance(value, (int, float) if seconds else int)
    if not number or not 0 <= value < math.inf:
        what = "seconds" if seconds else "a number of containers"
        raise errors.InvalidError(f"{function}(): {name}={value!r} is not {what}")
    return float(value) if seconds else value


def _check_spec(spec: FunctionSpec) -> None:
    asked, scaling = spec.resources, spec.autoscaling
    if not spec.name or len(spec.name) > 256 or _VARIANT in spec.name:
        raise errors.InvalidError(f"a function's name has 1 to 256 characters, and no {_VARIANT}")
    for value, what in ((asked.cpu, "cpu"), (asked.memory, "memory"), (spec.timeout, "timeout")):
        if value is not None and not 0 < value < float("inf"):
            raise errors.InvalidError(f"{spec.name}(): {what}={value} is not above 0")
    if spec.schedule:
        schedules.parse(spec.schedule, spec.name)
    most = scaling.max_containers
    if most is not None and most < max(1, scaling.min_containers):
        least = f"min_containers={scaling.min_containers}" if scaling.min_containers > 1 else "1"
        raise errors.InvalidError(f"{spec.name}(): max_containers={most} is too small: it is at least {least}")


def _statements(function: Published) -> list[Statement]:
    now = time.time()
    kept = _Kept(function.base, function.wish.changes, function.wish.given, function.scaled)
    plain = to_plain(function.spec)
    if function.base or function.scaled:
        plain["kept"] = msgspec.to_builtins(kept)
    row = {
        "function_id": function.function_id,
        "app_id": function.app_id,
        "name": function.key,
        "spec": json.dumps(plain),
        "version": function.version,
        "now": now,
        "gone": function.gone,
    }
    digests = {files.tree for files in function.spec.files} | {function.spec.serialized}
    refs = [{"digest": digest, "holder": function.app_id, "now": now} for digest in sorted(digests) if digest]
    return [("function_put", row), ("blob_ref_add", refs)]
