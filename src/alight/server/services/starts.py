"""The ledger of cold starts: what the server knows of each, what its machine says of it, written down as one row.

A row is written when the machine is told, and again when it has said how it went, so that a server that is killed in
between keeps its part. Nothing waits for a write.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from alight.scheduler import why
from alight.scheduler.state import State
from alight.store.base import Row, Store
from alight.wire.states import ContainerState

_LOOK_EVERY = 0.2  # seconds between looks at who waits for room: shorter waits need no reason
_LOOKED_AT = 20  # functions in one look: each costs as much as there are containers
_SENTENCES = 20  # refusals and modules of one start that are kept
_ENDS = 4096  # functions of which the last end is known
_FACTS = ("imports", "refused", "gpus")


@dataclass
class _Open:
    """A start that is under way, or a container that has ended neither. ``begun`` is of the monotonic clock."""

    function_id: str
    created_at: float
    begun: float
    stages: dict[str, float] = field(default_factory=dict)  # the server's own
    facts: dict[str, Any] = field(default_factory=dict)
    under_way: str = "place"
    told: bool = False  # its machine knows of it
    ready: bool = False
    said: bool = False  # its machine has said how it went


class Starts:
    """Takes note. Unknown containers are ignored: of those an earlier server kept what there was."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._last_end: dict[str, float] = {}  # by function
        self._waits: dict[str, str] = {}  # by function: why it finds no room
        self._looked = 0.0
        self.on_wait: Callable[[str, str], None] = lambda function_id, why: None

    async def load(self) -> None:
        """Take up what an earlier server process noted of containers that are still there."""
        for row in await self._store.read("starts_open"):
            self._open[row["container_id"]] = _open_of(row, self._clock())

    def decided(self, container_id: str, function_id: str, state: State, now: float) -> None:
        """A container is to start: whoever has waited for it does not wait for a decision any more."""
        since = waited_since(state, function_id, now, self._last_end.get(function_id, 0.0))
        one = _Open(function_id, now, self._clock(), {"wait": max(0.0, now - since)})
        waited = self._waits.pop(function_id, "")
        if waited:
            one.facts["waited"] = waited
        self._open[container_id] = one

    def image_begins(self, container_id: str) -> None:
        """Its machine may have to build the image."""
        one = self._open.get(container_id)
        if one is not None:
            self._pass(one, "place", "image")

    def image_ready(self, container_id: str, *, built: bool) -> None:
        """Its machine has the image. ``built``: it had not before."""
        one = self._open.get(container_id)
        if one is not None:
            self._pass(one, "image", "place")
            if built:
                one.facts["built"] = True

    def told(self, container_id: str) -> None:
        """Its machine was told to start it."""
        one = self._open.get(container_id)
        if one is not None:
            self._pass(one, "place", "mounts")
            one.told = True
            self._write(container_id, one, {})

    def waited(self, container_id: str) -> str:
        """Why there was no room for it at first; "" when there was."""
        one = self._open.get(container_id)
        return str(one.facts.get("waited", "")) if one is not None else ""

    def ready(self, container_id: str) -> None:
        """It takes inputs."""
        one = self._open.get(container_id)
        if one is not None:
            one.ready = True

    def said(self, container_id: str, start: Mapping[str, Any]) -> None:
        """Its machine says where the time went (``commands.Report.start``)."""
        one = self._open.get(container_id)
        if one is not None and start:
            one.said = True
            self._write(container_id, one, start)

    def ended(self, container_id: str, now: float) -> None:
        """The container is gone, or will never be."""
        one = self._open.pop(container_id, None)
        if one is None:
            return
        self._last_end.pop(one.function_id, None)  # in order of time
        self._last_end[one.function_id] = now
        if len(self._last_end) > _ENDS:
            del self._last_end[next(iter(self._last_end))]
        if not one.told:
            self._pass(one, one.under_way, one.under_way)
            self._write(container_id, one, {})
        elif one.ready and not one.said:  # another agent than the one that saw it start told of its end
            one.under_way = "ready"
            self._write(container_id, one, {})

    def look(self, state: State, now: float) -> None:
        """Note why functions find no room, while that can still be seen. Called often, looks now and then."""
        clock = self._clock()
        if clock - self._looked < _LOOK_EVERY:
            return
        self._looked = clock
        for function_id in [one for one in self._waits if one not in state.starved]:
            del self._waits[function_id]
        new = (one for one in state.starved if one not in self._waits)
        for function_id in itertools.islice(new, _LOOKED_AT):
            function = state.functions.get(function_id)
            call_id = _first_in_line(function) if function is not None else ""
            facts = why.waiting_of(state, call_id, now) if call_id else None
            self._waits[function_id] = facts.why if facts is not None else ""
            if self._waits[function_id]:
                self.on_wait(function_id, self._waits[function_id])

    def _pass(self, one: _Open, stage: str, under_way: str) -> None:
        now = self._clock()
        one.stages[stage] = one.stages.get(stage, 0.0) + now - one.begun
        one.begun = now
        one.under_way = under_way

    def _write(self, container_id: str, one: _Open, start: Mapping[str, Any]) -> None:
        stages, reached = dict(one.stages), one.under_way
        facts = {**one.facts, "server": one.stages}
        if start:
            for name, seconds in start.get("stages", {}).items():
                stages[str(name)] = stages.get(str(name), 0.0) + float(seconds)
            reached = str(start.get("reached", ""))
            facts.update({name: list(start[name])[:_SENTENCES] for name in _FACTS if start.get(name)})
        row = {
            "container_id": container_id,
            "function_id": one.function_id,
            "created_at": one.created_at,
            "how": str(start.get("how", "")),
            "level": int(start.get("level", 0)),
            "reached": reached,
            "total": sum(stages.values()) if start.get("ready") else None,
            "stages": json.dumps(stages),
            "facts": json.dumps(facts),
        }
        self._store.write_soon([("start_put", row)])


def waited_since(state: State, function_id: str, now: float, last_end: float) -> float:
    """Since when the oldest input of a function waits for nothing but a container; ``now`` when none does.

    A call with many inputs that arrived long ago has not waited as long as its containers answered: the line moved.
    """
    function = state.functions.get(function_id)
    call_id = _first_in_line(function) if function is not None else ""
    call = state.calls.get(call_id)
    if function is None or call is None:
        return now
    moved = max((state.containers[name].moved for name in function.serving), default=0.0)
    return min(now, max(call.arrived, moved, last_end))


def _first_in_line(function: Any) -> str:
    for calls in (function.suspects, function.first, function.line):
        for call_id in calls:
            return str(call_id)
    return ""


def _open_of(row: Row, clock: float) -> _Open:
    facts = json.loads(row["facts"])
    stages = facts.pop("server", {})
    ready, said = row["state"] == ContainerState.READY, bool(row["how"])
    return _Open(row["function_id"], row["created_at"], clock, stages, facts, "mounts", True, ready, said)
