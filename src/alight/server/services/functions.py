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
from typing import Any

import msgspec

from alight.scheduler import state as scheduled
from alight.scheduler.events import FunctionPublished, FunctionScaled
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

log = logging.getLogger(__name__)
_SCALABLE = ("min_containers", "max_containers", "buffer_containers", "scaledown_window")
_VARIANT = "#"  # between a function's name and what makes it a variant; no function's own name has it


@dataclass
class Published:
    """A function of a living app, or a variant of one.

    ``spec`` is what was declared, ``scaled`` the fields of its scaling that were set by hand since.
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

    @property
    def key(self) -> str:
        """Its name among the functions and variants of its app."""
        return f"{self.spec.name}{_VARIANT}{self.wish.digest}" if self.base else self.spec.name

    @property
    def need(self) -> scheduled.Need:
        """What the scheduler has to know of it, as it is scaled now."""
        return need_of(_scaled(self.spec, self.scaled))


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
        self._changing = asyncio.Lock()  # two that make the same variant at once must make one
        self.by_id: dict[str, Published] = {}
        self._by_name: dict[tuple[str, str], str] = {}

    def restore(self, row: Any, environment: str, owner: str) -> None:
        """Take up a function or variant that an earlier server process recorded."""
        spec, kept = _decode(row["spec"]), _decode_kept(row["spec"]).kept
        wish = Wish(kept.changes, spec.parameters, kept.given) if kept.base else Wish()
        self._enter(
            Published(
                row["function_id"],
                row["app_id"],
                environment,
                owner,
                spec,
                row["version"],
                kept.base,
                wish,
                kept.scaled,
            )
        )

    async def publish(
        self, app_id: str, environment: str, owner: str, specs: tuple[FunctionSpec, ...]
    ) -> tuple[PublishedFunction, ...]:
        """Record functions, new or changed, and their variants with them. What was scaled by hand is as declared again.

        Raises InvalidError for a spec that cannot be.
        """
        for spec in specs:
            _check_spec(spec)
        async with self._changing:
            answers: list[Published] = []
            changed: list[Published] = []
            for spec in specs:
                old = self._named(app_id, spec.name)
                if old is None:
                    fresh = Published(ids.new_id(ids.FUNCTION), app_id, environment, owner, spec)
                    changed.append(fresh)
                else:
                    fresh = _renewed(old, spec)
                    now = (fresh, *self._derived_anew(fresh))
                    changed += [one for one in now if one is not self.by_id[one.function_id]]
                answers.append(fresh)
            await self._record(changed)
        return tuple(self._answer(one) for one in answers)

    async def bind(self, function_id: str, wish: Wish) -> PublishedFunction:
        """The variant of a function that somebody wishes for; the function itself when the wish is empty.

        Raises InvalidError for options or parameters that cannot be, NotFoundError when there is no such function.
        """
        found = self.get(function_id)
        if found.base:
            wish = variants.merged(found.wish, wish)
            found = self.get(found.base)
        if wish.is_empty:
            return self._answer(found)
        async with self._changing:
            found = self.get(found.function_id)
            key = f"{found.spec.name}{_VARIANT}{wish.digest}"
            variant = self._named(found.app_id, key)
            if variant is None:
                spec = variants.derive(found.spec, wish)
                _check_spec(spec)
                function_id = ids.new_id(ids.FUNCTION)
                whose = (found.app_id, found.environment, found.owner)
                variant = Published(function_id, *whose, spec, base=found.function_id, wish=wish)
                await self._record([variant])
        return self._answer(variant)

    async def scale(self, function_id: str, changes: dict[str, Any]) -> FunctionScaling:
        """How a function is scaled, after these changes; None as a value takes back an earlier one.

        Raises InvalidError for what cannot be.
        """
        async with self._changing:
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
        return self._answer(found)

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
        if found is None:
            raise errors.NotFoundError(
                f"there is no function {function_id} (any more)", hint="its app was stopped: run or deploy it again"
            )
        return found

    def forget_app(self, app_id: str) -> None:
        """The app has ended."""
        for key in [key for key in self._by_name if key[0] == app_id]:
            self.by_id.pop(self._by_name.pop(key), None)

    def _named(self, app_id: str, key: str) -> Published | None:
        return self.by_id.get(self._by_name.get((app_id, key), ""))

    def _derived_anew(self, base: Published) -> list[Published]:
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
            found.append(_renewed(one, spec))
        return found

    async def _record(self, changed: list[Published]) -> None:
        """Write functions down, then let everybody know of them."""
        if not changed:
            return
        await self._store.write([statement for one in changed for statement in _statements(one)])
        for one in changed:
            old = self.by_id.get(one.function_id)
            if old is not None and old.version == one.version:
                self._take(one)
                self._inbox.put(FunctionScaled(one.function_id, one.need))
            else:
                self._enter(one)

    def _enter(self, function: Published) -> None:
        self._take(function)
        self._inbox.put(FunctionPublished(function.function_id, function.app_id, function.spec.name, function.need))

    def _take(self, function: Published) -> None:
        self.by_id[function.function_id] = function
        self._by_name[function.app_id, function.key] = function.function_id

    def _answer(self, function: Published) -> PublishedFunction:
        name = function.spec.name
        try:
            warning = self._check(name, function.need)
        except errors.Error as error:
            return PublishedFunction(name, function.function_id, impossible=errors.to_wire(error))
        return PublishedFunction(name, function.function_id, warning=warning)

    def _unknown(self, app: str, app_id: str, name: str) -> errors.NotFoundError:
        names = sorted(known for owner, known in self._by_name if owner == app_id and _VARIANT not in known)
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


def _renewed(old: Published, spec: FunctionSpec) -> Published:
    """The function as it is published now; the very same one when nothing is different."""
    if old.spec != spec:
        return dataclasses.replace(old, spec=spec, version=old.version + 1, scaled={})
    return dataclasses.replace(old, scaled={}) if old.scaled else old


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
    }
    digests = {files.tree for files in function.spec.files} | {function.spec.serialized}
    refs = [{"digest": digest, "holder": function.app_id, "now": now} for digest in sorted(digests) if digest]
    return [("function_put", row), ("blob_ref_add", refs)]
