"""What Alight itself says of an app, kept as lines of its log: starts and ends of containers, retries, versions.

Each line names what it is about, so that it is found where the output of that container or function is looked for.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Container
from typing import Any

from alight.server.logs import Logs
from alight.server.services.functions import Functions
from alight.server.services.hub import Hub
from alight.wire import errors
from alight.wire.messages import AppEvent
from alight.wire.states import ContainerState

log = logging.getLogger(__name__)
_LONGEST = 4000  # characters of one line
_AGAIN = 60.0
_WAITS = 4096


class SystemLog:
    """Writes such lines. A full disk loses them, and says so in the server's own log."""

    def __init__(self, logs: Logs, hub: Hub, alive: Container[str]) -> None:
        self._logs = logs
        self._hub = hub
        self._alive = alive  # apps that have not ended
        hub.on_event = self._heard
        self._waits: dict[str, tuple[str, float]] = {}  # by function: the reason that was told, and when
        self._began: dict[str, float] = {}  # by container

    def say(self, app_id: str, text: str, *, container: str = "", function: str = "", call: str = "") -> None:
        """Add a line. ``function`` is a name or an id."""
        said = {"text": text[:_LONGEST], "container": container, "function": function, "call": call}
        try:
            self._logs.note(app_id, json.dumps({name: value for name, value in said.items() if value}).encode())
        except errors.Error as error:
            log.warning("not kept in the log of %s (%s): %s", app_id, error, text)
            return
        if app_id not in self._alive:
            self._logs.forget(app_id)  # few lines come after the end: nothing stays open for them
        self._hub.noted(app_id)

    def ended(self, app_id: str, _why: str) -> None:
        """The app is over."""
        self._logs.forget(app_id)

    def waiting(self, functions: Functions, function_id: str, why: str) -> None:
        """A function finds no room for a container. The same reason again is told once in a minute."""
        reason, now = re.sub(r"[0-9][0-9,.]*", "#", why), time.monotonic()
        last, function = self._waits.get(function_id), functions.by_id.get(function_id)
        if function is None:
            return
        if last is None or last[0] != reason or now - last[1] >= _AGAIN:
            if len(self._waits) >= _WAITS:
                self._waits.clear()
            self._waits[function_id] = (reason, now)
            self.say(function.app_id, why, function=function_id)

    def _heard(self, app_id: str, event: AppEvent) -> None:
        text = self._of_container(event) if event.kind == "container" else event.text
        if text and event.kind in {"system", "note", "container"}:
            self.say(app_id, text, container=event.container, function=event.function)

    def _of_container(self, event: AppEvent) -> str:
        """What is said of a container's state. Its start is told by who knows what it is made of."""
        if event.state == ContainerState.STARTING:
            self._began[event.container] = time.monotonic()
            return ""
        if event.state == ContainerState.READY:
            began = self._began.pop(event.container, None)
            return f"{event.container} is ready" + (f" after {_seconds(began)}" if began is not None else "")
        self._began.pop(event.container, None)
        return f"{event.container} has ended: {event.text}" if event.text else f"{event.container} has ended"


def _seconds(began: float) -> str:
    took = time.monotonic() - began
    return f"{1000 * took:.0f} ms" if took < 1 else f"{took:.1f} s"


def read(data: bytes) -> dict[str, Any]:
    """The parts of a line; only its text when somebody else wrote it."""
    try:
        said = json.loads(data)
    except ValueError:
        return {"text": data.decode(errors="replace")}
    return said if isinstance(said, dict) else {"text": str(said)}
