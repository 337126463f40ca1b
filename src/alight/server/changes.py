"""What the scheduler learns, as topics of the dashboard. Nothing of it happens while nobody looks.

Calls are noted as facts come by; apps, functions, containers and machines are compared with how they were.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from alight.scheduler import events
from alight.scheduler.state import State
from alight.server.services.apps import App
from alight.server.services.call_views import CallViews
from alight.server.services.published import Published
from alight.server.web import is_lease

_REMEMBERED = 10_000  # calls of which it is known whose they are


class Topics(Protocol):
    """Who hears of it."""

    def note(self, kind: str, name: str, owner: str | None) -> None: ...
    def general(self, topic: str) -> None: ...


class Changes:
    """See the module. ``topics`` is set by whoever makes both."""

    topics: Topics

    def __init__(
        self, state: State, functions: Mapping[str, Published], apps: Mapping[str, App], views: CallViews
    ) -> None:
        self._state = state
        self._functions = functions
        self._apps = apps
        self._views = views
        self._owners: OrderedDict[str, str | None] = OrderedDict()
        # As they were: what is compared, and whose it is.
        self._seen: dict[str, dict[str, tuple[Any, str | None]]] = {}

    def after_step(self, facts: Sequence[events.Event]) -> None:
        """The scheduler has taken in what happened."""
        for fact in facts:
            if isinstance(fact, events.InputsArrived):
                if not is_lease(fact.call_id):
                    owner = self._owner(fact.function_id)
                    self._remember(fact.call_id, owner)
                    self.topics.note("call", fact.call_id, owner)
                    self.topics.note("function", fact.function_id, owner)
            elif isinstance(fact, (events.AttemptsEnded, events.CallCancelled, events.ItemsCame)):
                if not is_lease(fact.call_id):
                    self._note_call(fact.call_id, getattr(fact, "container_id", ""))
            elif isinstance(fact, (events.NodeJoined, events.NodeAway, events.NodeGone)):
                self.topics.general("nodes")
            elif isinstance(fact, events.FunctionScaled):
                self.topics.note("function", fact.function_id, self._owner(fact.function_id))

    def look(self) -> None:
        """Note what is not as it was."""
        self._compare(
            "container",
            {
                name: ((one.function_id, one.ready, one.stopping, bool(one.runs)), self._owner(one.function_id))
                for name, one in self._state.containers.items()
            },
        )
        self._compare("app", {name: ((one.state, one.version), one.owner) for name, one in self._apps.items()})
        self._compare("function", {name: ((one.version, one.gone), one.owner) for name, one in self._functions.items()})

    def counts(self, owner: str) -> dict[str, int]:
        """What is under way, for everybody ("") or of one owner."""
        waiting, running = self._views.totals(owner)
        ready = starting = 0
        for one in self._state.containers.values():
            if not owner or self._owner(one.function_id) == owner:
                ready += one.ready
                starting += not one.ready
        return {"waiting": waiting, "running": running, "starting": starting, "ready": ready, "apps": len(self._apps)}

    def _compare(self, kind: str, now: dict[str, tuple[Any, str | None]]) -> None:
        before, self._seen[kind] = self._seen.get(kind, {}), now
        for name in before.keys() | now.keys():
            was, found = before.get(name), now.get(name)
            if was == found:
                continue
            owner = (found or was or ("", None))[1]
            self.topics.note(kind, name, owner)
            if kind == "container":
                function_id = str((found or was or (("",), None))[0][0])
                self.topics.note("function", function_id, owner)

    def _note_call(self, call_id: str, container_id: str) -> None:
        container = self._state.containers.get(container_id)
        if container is not None:
            owner = self._owner(container.function_id)
            self.topics.note("container", container_id, owner)
            self.topics.note("function", container.function_id, owner)
        else:
            owner = self._owners.get(call_id)
        self.topics.note("call", call_id, owner)

    def _owner(self, function_id: str) -> str | None:
        function = self._functions.get(function_id)
        return function.owner if function is not None else None

    def _remember(self, call_id: str, owner: str | None) -> None:
        if len(self._owners) >= _REMEMBERED:
            self._owners.popitem(last=False)
        self._owners[call_id] = owner
