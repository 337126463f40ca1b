"""One published function or variant: what is kept of it, and what follows from its spec. Pure."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec

from alight.scheduler import schedules
from alight.scheduler import state as scheduled
from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.services.variants import Wish
from alight.store.base import Statement
from alight.wire import errors
from alight.wire.codec import to_plain
from alight.wire.record import replace
from alight.wire.spec import FunctionSpec

SCALABLE = (
    "min_containers", "max_containers", "buffer_containers", "scaledown_window", "target_concurrent_inputs",
    "scaleup_window",
)  # fmt: skip
_FOR_HOOKS = 10.0  # seconds
VARIANT = "#"  # between a function's name and what makes it a variant; no function's own name has it


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
    def startable(self) -> bool:
        """Whether a container of it can be had without any input: nothing is left to be given."""
        ready = self.base or not any(one.required for one in self.spec.class_parameters)
        return not self.gone and bool(ready)

    @property
    def kept(self) -> bool:
        """Whether its containers are there without any input: of deployed apps."""
        return self.deployed and self.startable

    @property
    def key(self) -> str:
        """Its name among the functions and variants of its app."""
        return f"{self.spec.name}{VARIANT}{self.wish.digest}" if self.base else self.spec.name

    @property
    def need(self) -> scheduled.Need:
        """What the scheduler has to know of it, as it is scaled now."""
        return need_of(scaled_spec(self.spec, self.scaled))


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
        return [statement for one in (*self.changed, *self.gone) for statement in statements_of(one)]


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


def restored(row: Any, environment: str, owner: str, *, deployed: bool) -> Published:
    """A function or variant as an earlier server process recorded it."""
    spec, kept = _decode(row["spec"]), _decode_kept(row["spec"]).kept
    wish = Wish(kept.changes, spec.parameters, kept.given) if kept.base else Wish()
    return Published(
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


def is_variant(key: str) -> bool:
    """Whether this is the name of a variant, which people need not see."""
    return VARIANT in key


def is_server(spec: FunctionSpec) -> bool:
    """Whether it is a class that serves a port (``@app.server``), and no function or class with web methods."""
    return spec.is_web and bool(spec.class_name) and not spec.methods


def shown_name(key: str, method: str = "") -> str:
    """What people call it: "train" for a variant of train, "Model.predict" for a method."""
    name = key.partition(VARIANT)[0]
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
    if spec.is_web:  # the gateway leases a container as a whole and counts the requests in it
        scaling = replace(scaling, max_concurrent_inputs=1, target_concurrent_inputs=None, batch_size=0)
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
        exit_grace=exit_grace(spec),
        retries=spec.retries,
        cluster=spec.cluster,
    )


def exit_grace(spec: FunctionSpec) -> float:
    """Seconds that a container of a server has to leave in: its exit_grace_period for its requests, and some for hooks.
    0 where none was asked for.
    """
    asked = [one.get("exit_grace_period") or 0.0 for one in spec.web.values() if isinstance(one, dict)]
    longest = max(asked, default=0.0)
    return longest + _FOR_HOOKS if longest else 0.0


def renewed(old: Published, spec: FunctionSpec, *, renew: bool = False) -> Published:
    """The function as it is published now; the very same one when nothing is different."""
    if old.spec != spec or old.gone or renew:
        return dataclasses.replace(old, spec=spec, version=old.version + 1, scaled={}, gone="")
    return dataclasses.replace(old, scaled={}) if old.scaled else old


def _version(function: Published | None) -> int:
    return 0 if function is None else function.version


def gone_error(function: Published) -> dict[str, Any]:
    """What ends the inputs of a function that is gone, in its wire form."""
    return errors.to_wire(errors.NotFoundError(function.gone))


def scaled_spec(spec: FunctionSpec, scaled: dict[str, Any]) -> FunctionSpec:
    """A spec with what was set of its scaling by hand."""
    return replace(spec, autoscaling=replace(spec.autoscaling, **scaled)) if scaled else spec


def scalable(function: str, name: str, value: Any) -> Any:
    """A value for a setting of the autoscaler. Raises InvalidError for one that is no such number."""
    seconds = name in {"scaledown_window", "scaleup_window"}
    number = not isinstance(value, bool) and isinstance(value, (int, float) if seconds else int)
    inputs = name == "target_concurrent_inputs"
    if not number or not int(inputs) <= value < math.inf:
        what = "seconds" if seconds else "a number of requests" if inputs else "a number of containers"
        raise errors.InvalidError(f"{function}(): {name}={value!r} is not {what}")
    return float(value) if seconds else value


def check_spec(spec: FunctionSpec) -> None:
    """Raise InvalidError for what no function can be."""
    asked, scaling = spec.resources, spec.autoscaling
    if not spec.name or len(spec.name) > 256 or VARIANT in spec.name:
        raise errors.InvalidError(f"a function's name has 1 to 256 characters, and no {VARIANT}")
    for value, what in ((asked.cpu, "cpu"), (asked.memory, "memory"), (spec.timeout, "timeout")):
        if value is not None and not 0 < value < float("inf"):
            raise errors.InvalidError(f"{spec.name}(): {what}={value} is not above 0")
    if spec.schedule:
        schedules.parse(spec.schedule, spec.name)
    most = scaling.max_containers
    if most is not None and most < max(1, scaling.min_containers):
        least = f"min_containers={scaling.min_containers}" if scaling.min_containers > 1 else "1"
        raise errors.InvalidError(f"{spec.name}(): max_containers={most} is too small: it is at least {least}")


def row_of(function: Published) -> dict[str, Any]:
    """A function as its row in the store has it; ``restored`` makes it again."""
    kept = _Kept(function.base, function.wish.changes, function.wish.given, function.scaled)
    plain = to_plain(function.spec)
    if function.base or function.scaled:
        plain["kept"] = msgspec.to_builtins(kept)
    return {
        "function_id": function.function_id,
        "app_id": function.app_id,
        "name": function.key,
        "spec": json.dumps(plain),
        "version": function.version,
        "gone": function.gone,
    }


def statements_of(function: Published) -> list[Statement]:
    """How the store keeps a function."""
    return [("function_put", {**row_of(function), "now": time.time()})]
