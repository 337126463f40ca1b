"""What containers have of machines, kept: by hour, by container and by call; and what it cost, for whoever asks.

The accounting is ``metering``'s. What it comes to is written every few seconds in one transaction, together with until
when each container is accounted for: a server that is killed counts on from there, and nothing is counted twice.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from alight.scheduler import events
from alight.scheduler.state import DEFAULT_CPU, DEFAULT_MEMORY, State
from alight.server import costs, metering
from alight.server.costs import Prices
from alight.server.metering import GPU, Key, Meter, Metered, Owner, Shape, Spent
from alight.server.services.containers import Record
from alight.server.services.functions import Functions
from alight.server.services.published import need_of
from alight.store.base import Row, Statement, Store
from alight.wire import errors, gpus, ids
from alight.wire.billing import CostTold
from alight.wire.spec import FunctionSpec
from alight.wire.states import ContainerState

log = logging.getLogger(__name__)
EVERY = 5.0  # seconds between writes
_KEPT = 400 * 24  # hours
_SINCE = "usage_since"
_decode = msgspec.json.Decoder(FunctionSpec).decode


class Usage:
    """Listens to what happens to containers. ``on_written`` hears of the amounts of each write, before it is done, and
    of no amounts when there is nothing to write; ``on_joined`` that a machine's containers are known again."""

    def __init__(self, store: Store, functions: Functions, state: State, prices: Callable[[], Prices]) -> None:
        self._store = store
        self._functions = functions
        self._state = state
        self.prices = prices
        self.meter = Meter()
        self.since = 0.0
        self.on_written: Callable[[Mapping[Key, float]], None] = lambda hours: None
        self.on_joined: Callable[[], None] = lambda: None
        self._ended: list[Metered] = []
        self._peaks: dict[str, dict[str, float]] = {}
        self._holds: dict[str, _Holds] = {}  # by container
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.every = EVERY

    async def load(self) -> None:
        """Count on from where an earlier server process was, and begin."""
        await self._store.write([("meta_set", {"key": _SINCE, "value": repr(time.time())})])
        row = await self._store.one("meta_get", key=_SINCE)
        self.since = float(row["value"]) if row is not None else time.time()
        for one in await self._store.read("usage_open", since=self.since):
            try:
                self._take_up(one)
            except msgspec.DecodeError as error:
                log.error("the time of %s is not accounted for: %s", one["container_id"], error)
        self._state.moves = []
        self._task = asyncio.get_running_loop().create_task(self._forever())

    async def close(self) -> None:
        """Write down what there is, and stop."""
        self.stop()
        await self.flush()

    def stop(self) -> None:
        """Write nothing down any more."""
        if self._task is not None:
            self._task.cancel()

    # what happens to containers

    def began(self, record: Record, now: float) -> None:
        """A container is about to start."""
        function = self._functions.by_id.get(record.function_id)
        if function is None:
            return
        need = function.need
        whose = Owner(record.app_id, record.function_id, function.owner, function.environment)
        gpu, count = self._gpus(record)
        shape = Shape(need.cpu, record.memory / 1024, gpu, count)
        shared = need.slots > 1
        self.meter.begin(Metered(record.container_id, whose, shape, shared, metering.micros(now)))
        if count:
            holds = _Holds.of(record.gpus)
            mine = [
                one.shape
                for one in self.meter.alive.values()
                # One whose GPU this one has got is gone, and its end is told after this.
                if one.whose.app_id == record.app_id
                and (one.container_id == record.container_id or not holds.excludes(self._holds.get(one.container_id)))
            ]
            self._holds[record.container_id] = holds
            at_once = sum(one.gpus for one in mine if one.gpu == gpu)
            peaks = self._peaks.setdefault(record.app_id, {})
            peaks[gpu] = max(peaks.get(gpu, 0.0), at_once)

    def ready(self, container_id: str, now: float) -> None:
        """It takes inputs."""
        self.meter.ready(container_id, now)

    def ended(self, container_id: str, now: float, *, seen: bool) -> None:
        """It is gone; ``seen`` False: nobody knows when it ended."""
        one = self.meter.alive.get(container_id)
        self._holds.pop(container_id, None)
        if one is not None:
            self.meter.ended(container_id, now if seen else None)
            # Nobody shall count what was not seen: the next server process looks from here.
            one.since, one.gap = max(one.since, metering.micros(now)), False
            self._ended.append(one)

    def after_step(self, facts: Sequence[events.Event], now: float) -> None:
        """The scheduler has given inputs and heard of answers; machines may have come back."""
        moves = self._state.moves
        if moves:
            self._state.moves = []
            self.meter.moved(moves, now)
        for fact in facts:
            if type(fact) is events.NodeJoined:
                for held in fact.held:
                    self.meter.seen(held.container_id, now)
                self.on_joined()

    def on_usage(self, container_id: str, at: float, used: Mapping[str, float]) -> None:
        """What a machine has measured of a container."""
        del at  # of the machine's clock
        self.meter.sample(container_id, dict(used), time.time())

    # what is kept

    async def flush(self) -> None:
        """Write down everything until now. What a full disk refuses is said again with the next."""
        async with self._writing:
            now = time.time()
            self.meter.settle(now)
            hours, calls = self.meter.take(self._state.calls)
            ended, self._ended = self._ended, []
            if not hours and not calls and not ended:
                self.on_written({})  # a month may have begun
                return
            self.on_written(hours)
            kept = [_container_row(one) for one in (*self.meter.alive.values(), *ended) if not one.gap]
            rows = [row for call_id, spent in calls.items() if _is_call(call_id) for row in _call_rows(call_id, spent)]
            statements: list[Statement] = [("usage_add", [{**key._asdict(), "amount": hours[key]} for key in hours])]
            statements.append(("usage_of_container", kept))
            statements.append(("usage_of_call", rows))
            try:
                await self._store.write([one for one in statements if one[1]], urgent=False)
            except errors.Error as error:
                log.error("usage could not be written down yet: %s", error)
                self.meter.put_back(hours, calls)
                self.on_written({key: -amount for key, amount in hours.items()})
                self._ended = ended + self._ended

    async def forget(self, now: float) -> None:
        """Drop what is old, and what belongs to rows that are gone."""
        await self._store.write([("usage_forget_hours", {"before": int(now // 3600) - _KEPT})], urgent=False)
        await self._store.write([("usage_forget_containers", {})], urgent=False)
        await self._store.write([("usage_forget_calls", {})], urgent=False)

    async def _forever(self) -> None:
        while True:
            await asyncio.sleep(self.every)
            try:
                await self.flush()
            except Exception:  # accounting must not end with one fault: it is said, and tried again
                log.exception("usage could not be accounted for")

    # what it cost

    async def of_call(self, call_id: str) -> CostTold:
        """What a call has had of containers until now."""
        self.meter.settle(time.time(), calls=True)
        await self.flush()
        amounts: dict[str, float] = {}
        for row in await self._store.read("usage_by_call", call_id=call_id):
            metering.add(amounts, _amounts(row))
        small = self.meter.calls.get(call_id)
        if small is not None:
            metering.add(amounts, small.amounts())
        return self.told(costs.cost_of(amounts, self.prices()), amounts, small=not amounts)

    async def of_app(self, app_id: str) -> CostTold:
        """What an app has had until now."""
        await self.flush()
        rows = await self._store.read("usage_of_app", app_id=app_id)
        found = costs.cost_by_state([(row["resource"], row["state"], row["amount"]) for row in rows], self.prices())
        amounts: dict[str, float] = {}
        for row in rows:
            metering.add(amounts, {row["resource"]: row["amount"]})
        return self.told(found, amounts, peaks=self._peaks.get(app_id, {}))

    def told(self, found: costs.Cost, amounts: dict[str, float], **more: Any) -> CostTold:
        """A cost as clients get it."""
        return CostTold(
            found.total,
            self.prices().currency,
            amounts,
            found.by_resource,
            found.idle,
            found.starting,
            found.unpriced,
            **more,
        )

    def forget_app(self, app_id: str) -> None:
        """An app has ended long enough ago."""
        self._peaks.pop(app_id, None)

    # inside

    def _gpus(self, record: Record) -> tuple[str, float]:
        """The type of a container's GPUs, and how many they are: a part of one counts for what it is of it."""
        node = self._state.nodes.get(record.node_id)
        known = {one.uuid: one for one in node.gpus} if node is not None else {}
        kind, count = "", 0.0
        for text in record.gpus:
            grant = gpus.grant(text)
            gpu = known.get(grant.uuid)
            kind = kind or (gpu.type if gpu is not None else "unknown")
            if grant.percent:
                count += grant.percent / 100
            elif grant.memory and gpu is not None and gpu.memory:
                count += min(1.0, grant.memory / gpu.memory)
            else:
                count += 1.0
        return kind, count

    def _take_up(self, row: Row) -> None:
        whose = Owner(row["app_id"], row["function_id"], row["owner"] or "", row["environment"] or "")
        need = need_of(_decode(row["spec"])) if row["spec"] else None
        if row["until"] is None:
            cores = need.cpu if need is not None else DEFAULT_CPU
            count = float(len(json.loads(row["gpus"])))
            shape = Shape(cores, (row["memory"] or DEFAULT_MEMORY) / 1024, "unknown" if count else "", count)
            since, spent, seen = row["created_at"], (0.0, 0.0, 0.0), {}
        else:
            shape = Shape(row["cores"], row["gib"], row["gpu"], row["gpu_count"])
            since, spent = row["until"], (row["busy"], row["idle"], row["starting"])
            seen = json.loads(row["seen"])
        one = Metered(row["container_id"], whose, shape, need is not None and need.slots > 1, metering.micros(since))
        one.busy, one.idle, one.starting = (metering.micros(part) for part in spent)
        one.given, one.written, one.sampled = one.busy, one.spent, one.spent
        one.seen, one.gap = seen, True
        one.ready = row["state"] != ContainerState.STARTING
        self.meter.begin(one)
        if row["ended_at"] is not None:  # its end was written down, its last seconds were not
            one.gap, one.ready = False, True
            self.ended(one.container_id, row["ended_at"], seen=True)


def _container_row(one: Metered) -> dict[str, Any]:
    shape = one.shape
    return {
        "container_id": one.container_id,
        "until": one.since / 1e6,
        "busy": one.busy / 1e6,
        "idle": one.idle / 1e6,
        "starting": one.starting / 1e6,
        "cores": shape.cores,
        "gib": shape.gib,
        "gpu": shape.gpu,
        "gpus": shape.gpus,
        "seen": json.dumps(one.seen),
    }


def _call_rows(call_id: str, spent: Spent) -> list[dict[str, Any]]:
    """One row for each type of GPU; what was used beyond what is held is in the first."""
    rows: dict[str, dict[str, Any]] = {}
    for shape, micros in spent.time.items():
        row = rows.setdefault(shape.gpu, _empty(call_id, shape.gpu))
        seconds = micros / 1e6
        row["seconds"] += seconds
        row["cores"] += seconds * shape.cores
        row["gib"] += seconds * shape.gib
        row["gpu_seconds"] += seconds * shape.gpus
    first = next(iter(rows.values()), None) or rows.setdefault("", _empty(call_id, ""))
    first["cores"] += spent.cores
    first["gib"] += spent.gib
    first["joules"] += spent.joules
    return list(rows.values())


@dataclass(frozen=True)
class _Holds:
    """The GPUs of a container, and those of them that it has to itself."""

    any: frozenset[str]
    whole: frozenset[str]

    @classmethod
    def of(cls, granted: Iterable[str]) -> _Holds:
        grants = [gpus.grant(text) for text in granted]
        whole = (one.uuid for one in grants if not one.percent and not one.memory)
        return cls(frozenset(one.uuid for one in grants), frozenset(whole))

    def excludes(self, other: _Holds | None) -> bool:
        """Whether the two cannot be at once."""
        return other is not None and bool(self.whole & other.any or self.any & other.whole)


def _empty(call_id: str, gpu: str) -> dict[str, Any]:
    return {"call_id": call_id, "gpu": gpu, "seconds": 0.0, "cores": 0.0, "gib": 0.0, "gpu_seconds": 0.0, "joules": 0.0}


def _amounts(row: Row) -> dict[str, float]:
    found = {
        metering.WHOLE: row["seconds"],
        metering.CPU: row["cores"],
        metering.MEMORY: row["gib"],
        metering.ENERGY: row["joules"],
    }
    if row["gpu"]:
        found[GPU + row["gpu"]] = row["gpu_seconds"]
    return {resource: amount for resource, amount in found.items() if amount and math.isfinite(amount)}


def _is_call(name: str) -> bool:
    """Leases of web requests are none."""
    return name.startswith(f"{ids.CALL}-")
