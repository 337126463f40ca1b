"""Who had how much of a container's time: to calls, to idling and to starting, to the microsecond. Pure.

A container's life is cut into *starting* (from the decision to start it until it is ready), *busy* (it has inputs) and
*idle* (ready, without any). The three add up to its life. What is busy belongs to calls: of a container that runs one
input at a time, the time until an answer belongs to the call that was answered; of one that runs several, a moment
with n inputs belongs to each by 1/n. The shares of calls add up to what the container was busy.

What costs nothing per input: a run of inputs is one entry, a frame of answers one change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

BUSY, IDLE, STARTING = "busy", "idle", "starting"
STATES = (BUSY, IDLE, STARTING)
HOUR = 3600 * 1_000_000  # microseconds
LEAST = 50_000  # microseconds of a container below which a call has no account of its own
_LATE = 1000  # ended containers of which a last sample is still taken
_GIB = float(1 << 30)

WHOLE, CPU, CPU_USED, MEMORY, ENERGY, STORAGE = "container", "cpu", "cpu_used", "memory", "energy", "storage"
GPU = "gpu:"  # and the type


class Owner(NamedTuple):
    """Whose container it is."""

    app_id: str
    function_id: str
    owner: str
    environment: str


class Shape(NamedTuple):
    """What a container holds: cores, GiB, and how many GPUs (or what part of one) of which type."""

    cores: float
    gib: float
    gpu: str = ""
    gpus: float = 0.0


class Key(NamedTuple):
    """What amounts are summed by. ``hour`` counts since 1970; the resources' units: seconds of a container, of a core,
    of a GiB, of a GPU; joules; hours of a GiB on a volume."""

    hour: int
    app_id: str
    function_id: str
    owner: str
    environment: str
    resource: str
    state: str


@dataclass(slots=True)
class Metered:
    """One container that lives. Times in microseconds; ``since`` is until when it has been accounted for."""

    container_id: str
    whose: Owner
    shape: Shape
    shared: bool  # it may run several inputs at once
    since: int
    ready: bool = False
    open: int = 0
    clock: float = 0.0  # of ``shared``: what one input that was there all the time would have had
    busy: int = 0
    idle: int = 0
    starting: int = 0
    given: int = 0  # of its busy time, what calls have
    owed: dict[str, int] = field(default_factory=dict)  # of that, by call, what is in no call's account yet
    calls: dict[str, list[float]] = field(default_factory=dict)  # inputs, and the sum of ``clock`` at their start
    written: tuple[int, int, int] = (0, 0, 0)  # busy, idle, starting as they were when amounts were made of them last
    sampled: tuple[int, int, int] = (0, 0, 0)  # the same at the last sample
    recent: dict[str, int] = field(default_factory=dict)  # calls' part in the same time
    seen: dict[str, float] = field(default_factory=dict)  # what its machine had counted at the last sample
    hour_ends: int = 0
    gap: bool = False  # nobody has heard of it since an earlier server process

    @property
    def life(self) -> int:
        """All that was accounted for."""
        return self.busy + self.idle + self.starting

    @property
    def spent(self) -> tuple[int, int, int]:
        """In the order of ``STATES``."""
        return self.busy, self.idle, self.starting


@dataclass(slots=True)
class Spent:
    """What a call had of containers: seconds of each shape, and what they used beyond what they hold."""

    time: dict[Shape, int] = field(default_factory=dict)
    cores: float = 0.0  # core-seconds beyond
    gib: float = 0.0  # GiB-seconds beyond
    joules: float = 0.0

    @property
    def total(self) -> int:
        """Microseconds of containers."""
        return sum(self.time.values())

    def amounts(self) -> dict[str, float]:
        """By resource."""
        found = {WHOLE: self.total / 1e6, CPU: self.cores, MEMORY: self.gib, ENERGY: self.joules}
        for shape, micros in self.time.items():
            add(found, held(shape, micros / 1e6))
        return {resource: amount for resource, amount in found.items() if amount}


class Meter:
    """All containers that live. ``hours`` and ``calls`` hold what has not been taken by ``take``."""

    def __init__(self) -> None:
        self.alive: dict[str, Metered] = {}
        self.hours: dict[Key, float] = {}
        self.calls: dict[str, Spent] = {}
        self._late: OrderedDict[str, Metered] = OrderedDict()

    def begin(self, one: Metered) -> None:
        """A container is about to start, or is known from an earlier process."""
        self.alive.setdefault(one.container_id, one)

    def ready(self, container_id: str, now: float) -> None:
        """It takes inputs from now on."""
        one = self.alive.get(container_id)
        if one is not None and not one.ready:
            self._advance(one, micros(now))
            one.ready = True

    def moved(self, moves: Iterable[tuple[str, str, int, bool]], now: float) -> None:
        """Containers were given inputs of calls (a count above 0), or are done with some.

        The last says of those that had begun, or of which that is not known, that they are answered.
        """
        at, alive = micros(now), self.alive
        for container_id, call_id, count, begun in moves:
            one = alive.get(container_id)
            if one is None:
                continue
            if one.since < at:
                if one.gap and count > 0:
                    self._had(one, call_id, at)
                else:
                    self._advance(one, at)
            if count > 0:
                entry = one.calls.get(call_id)
                if entry is None:
                    one.calls[call_id] = [count, count * one.clock]
                else:
                    entry[0] += count
                    entry[1] += count * one.clock
                one.open += count
            else:
                self._done(one, call_id, -count, begun)

    def seen(self, container_id: str, now: float) -> None:
        """Its machine says that it is there: the time since an earlier server process counts."""
        one = self.alive.get(container_id)
        if one is not None and one.gap:
            self._advance(one, micros(now))

    def ended(self, container_id: str, at: float | None) -> None:
        """It is gone. ``at`` None: nobody saw when, so that what nobody saw is not counted."""
        one = self.alive.pop(container_id, None)
        if one is None:
            return
        if at is not None:
            self._advance(one, micros(at))
        self._share_all(one)
        self._write(one)
        self._pay(one)
        self._late[container_id] = one
        if len(self._late) > _LATE:
            self._late.popitem(last=False)

    def settle(self, now: float, *, calls: bool = False) -> None:
        """Account for everything until now; with ``calls`` also to the calls that still run."""
        at = micros(now)
        for one in self.alive.values():
            if not one.gap:
                self._advance(one, at)
                if calls:
                    self._share_all(one)
            self._write(one)

    def sample(self, container_id: str, used: dict[str, float], now: float) -> None:
        """What a container's machine says that it has used since its start: what of it is beyond what it holds counts
        for who had it since the last time."""
        one = self.alive.get(container_id)
        if one is not None:
            self._advance(one, micros(now))
            self._share_all(one)
        else:
            one = self._late.get(container_id)
            if one is None:
                return
        parts = [now - before for now, before in zip(one.spent, one.sampled, strict=True)]
        whole = sum(parts)
        seconds = whole / 1e6
        cpu = _grown(one, "cpu_seconds", used)
        gib = _grown(one, "memory_byte_seconds", used) / _GIB
        joules = _grown(one, "gpu_joules", used)
        beyond = Spent({}, max(0.0, cpu - one.shape.cores * seconds), max(0.0, gib - one.shape.gib * seconds), joules)
        hour = one.since // HOUR
        for state, part in zip(STATES, parts if whole else (0, 1, 0), strict=True):
            share = part / (whole or 1)
            amounts = {CPU_USED: cpu, CPU: beyond.cores, MEMORY: beyond.gib, ENERGY: joules}
            for resource, amount in amounts.items():
                self._add(one, hour, resource, state, amount * share)
        if whole:
            for call_id, part in one.recent.items():
                mine = self._of_call(call_id)
                mine.cores += beyond.cores * part / whole
                mine.gib += beyond.gib * part / whole
                mine.joules += joules * part / whole
        one.recent = {}
        one.sampled = one.spent

    def store(self, key: Key, amount: float) -> None:
        """Something that no container had: bytes on volumes."""
        self.hours[key] = self.hours.get(key, 0.0) + amount

    def take(self, runs: Container[str]) -> tuple[dict[Key, float], dict[str, Spent]]:
        """What came together since the last time: by hour, and by call.

        Calls that had too little of a container for an account of their own wait as long as they are in ``runs``.
        """
        hours, self.hours = self.hours, {}
        totals: dict[str, int] = {}
        for one in self.alive.values():
            for call_id, share in one.owed.items():
                totals[call_id] = totals.get(call_id, 0) + share
        for one in self.alive.values():
            self._pay(one, totals, runs)
        found: dict[str, Spent] = {}
        left: dict[str, Spent] = {}
        for call_id, spent in self.calls.items():
            if spent.total >= LEAST or spent.cores or spent.gib or spent.joules:
                found[call_id] = spent
            elif call_id in runs:
                left[call_id] = spent
        self.calls = left
        return hours, found

    def put_back(self, hours: dict[Key, float], calls: dict[str, Spent]) -> None:
        """What was taken could not be written down."""
        for key, amount in hours.items():
            self.store(key, amount)
        for call_id, spent in calls.items():
            mine = self._of_call(call_id)
            for shape, part in spent.time.items():
                mine.time[shape] = mine.time.get(shape, 0) + part
            mine.cores += spent.cores
            mine.gib += spent.gib
            mine.joules += spent.joules

    # inside

    def _advance(self, one: Metered, at: int) -> None:
        """Account for a container's time until now, hour by hour: nothing that is written down spans two."""
        one.gap = False
        while one.since < at:
            if one.since >= one.hour_ends:
                self._write(one)
                one.hour_ends = one.since - one.since % HOUR + HOUR
            passed = (min(one.hour_ends, at)) - one.since
            one.since += passed
            if not one.ready:
                one.starting += passed
            elif one.open:
                one.busy += passed
                if one.shared:
                    one.clock += passed / one.open
            else:
                one.idle += passed

    def _had(self, one: Metered, call_id: str, at: int) -> None:
        """While nobody looked it had inputs of this call."""
        one.open += 1
        self._advance(one, at)
        one.open -= 1
        self._give(one, call_id, one.busy - one.given)

    def _done(self, one: Metered, call_id: str, count: int, begun: bool) -> None:
        entry = one.calls.get(call_id)
        if entry is None:
            return
        has, starts = entry
        count = min(count, int(has))
        one.open -= count
        left = one.busy - one.given
        if not one.open:
            share = left
        elif one.shared:
            share = min(left, round(count * (one.clock - starts / has)))
        else:
            share = left if begun else 0
        if count == has:
            del one.calls[call_id]
        else:
            entry[1] -= starts * count / has
            entry[0] -= count
        self._give(one, call_id, share)

    def _share_all(self, one: Metered) -> None:
        """The calls that it has get what is theirs until now."""
        if not one.open:
            return
        for call_id, entry in one.calls.items():
            left = one.busy - one.given
            if not one.shared:
                self._give(one, call_id, left)  # the first of them runs
                return
            has, starts = entry
            self._give(one, call_id, min(left, round(has * one.clock - starts)))
            entry[1] = has * one.clock

    def _give(self, one: Metered, call_id: str, share: int) -> None:
        if share <= 0:
            return
        one.given += share
        one.owed[call_id] = one.owed.get(call_id, 0) + share
        if share >= LEAST:
            one.recent[call_id] = one.recent.get(call_id, 0) + share

    def _pay(self, one: Metered, totals: dict[str, int] | None = None, runs: Container[str] = ()) -> None:
        """What calls had of it comes to their accounts. With ``totals`` (over all containers), those that are over and
        had too little have none."""
        if one.owed:
            owed, one.owed = one.owed, {}
            for call_id, share in owed.items():
                small = totals is not None and totals[call_id] < LEAST
                if small and call_id not in runs and call_id not in self.calls:
                    continue
                mine = self._of_call(call_id)
                mine.time[one.shape] = mine.time.get(one.shape, 0) + share

    def _of_call(self, call_id: str) -> Spent:
        found = self.calls.get(call_id)
        if found is None:
            found = self.calls[call_id] = Spent()
        return found

    def _write(self, one: Metered) -> None:
        """Its time since the last write becomes amounts of its hour."""
        if one.spent == one.written:
            return
        hour = max(0, one.since - 1) // HOUR
        for state, now, before in zip(STATES, one.spent, one.written, strict=True):
            if now > before:
                seconds = (now - before) / 1e6
                for resource, amount in held(one.shape, seconds).items():
                    self._add(one, hour, resource, state, amount)
                self._add(one, hour, WHOLE, state, seconds)
        one.written = one.spent

    def _add(self, one: Metered, hour: int, resource: str, state: str, amount: float) -> None:
        if amount:
            key = Key(hour, *one.whose, resource, state)
            self.hours[key] = self.hours.get(key, 0.0) + amount


def micros(seconds: float) -> int:
    """Unix time in microseconds."""
    return round(seconds * 1e6)


def held(shape: Shape, seconds: float) -> dict[str, float]:
    """What a container of this shape holds for so long."""
    found = {CPU: shape.cores * seconds, MEMORY: shape.gib * seconds}
    if shape.gpus:
        found[GPU + shape.gpu] = shape.gpus * seconds
    return found


def add(sums: dict[str, float], more: dict[str, float]) -> None:
    """Add amounts by resource."""
    for resource, amount in more.items():
        sums[resource] = sums.get(resource, 0.0) + amount


def _grown(one: Metered, name: str, used: dict[str, float]) -> float:
    """How much a counter has grown. One that is not told, or that began anew, has not."""
    if name not in used:
        return 0.0
    before, one.seen[name] = one.seen.get(name, 0.0), used[name]
    return max(0.0, used[name] - before)
