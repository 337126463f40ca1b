"""Who watches which app. A slow watcher loses nothing and blocks nobody.

Output is not queued here: a watcher is told which containers have more, and reads that from ``logs`` at its own pace.
Other events wait in a bounded queue per watcher; when it runs over, the oldest go and the watcher is told how many.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from alight.wire.messages import AppEvent

_EVENTS = 1000
_UNHEARD = 100  # words that nobody was there for, of all apps


class Watcher:
    """One who watches. ``news`` is set when there is something to take."""

    def __init__(self, app_id: str, *, logs: bool, system: bool = False) -> None:
        self.app_id = app_id
        self.logs = logs
        self.system = system  # the lines of Alight's own grow under the app's id
        self.events: deque[AppEvent] = deque()
        self.grown: dict[str, None] = {}
        self.news = asyncio.Event()
        self.stopped: AppEvent | None = None
        self._dropped = 0

    def tell(self, event: AppEvent) -> None:
        """Add an event; the oldest makes room."""
        if len(self.events) >= _EVENTS:
            self.events.popleft()
            self._dropped += 1
        self.events.append(event)
        self.news.set()

    def take_events(self) -> list[AppEvent]:
        """What has come, and a word about what was dropped."""
        events = list(self.events)
        self.events.clear()
        if self._dropped:
            events.insert(0, AppEvent("system", text=f"{self._dropped} events were skipped: this reader is slow"))
            self._dropped = 0
        return events


class Hub:
    """All watchers by app. ``on_watched`` hears when the first comes to an app's output and when the last leaves."""

    def __init__(self) -> None:
        self._watchers: dict[str, list[Watcher]] = {}
        # After a crash machines are often back before watchers: what nobody heard is kept for the first who comes.
        self._unheard: deque[tuple[str, AppEvent]] = deque(maxlen=_UNHEARD)
        self.on_watched: Callable[[str, bool], None] | None = None
        self.on_event: Callable[[str, AppEvent], None] | None = None  # hears every event, watched or not

    def watch(self, app_id: str, *, logs: bool, system: bool = False) -> Watcher:
        """Begin to watch; give it back with ``leave``."""
        watcher = Watcher(app_id, logs=logs, system=system)
        before = self.is_watched(app_id)
        self._watchers.setdefault(app_id, []).append(watcher)
        for one in [one for one in self._unheard if one[0] == app_id and not system]:
            self._unheard.remove(one)
            watcher.tell(one[1])
        if logs and not before and self.on_watched is not None:
            self.on_watched(app_id, True)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """Stop watching."""
        watchers = self._watchers.get(watcher.app_id, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(watcher.app_id, None)
        if watcher.logs and not self.is_watched(watcher.app_id) and self.on_watched is not None:
            self.on_watched(watcher.app_id, False)

    def is_watched(self, app_id: str) -> bool:
        """Whether somebody wants this app's output now."""
        return any(watcher.logs for watcher in self._watchers.get(app_id, ()))

    @property
    def watched(self) -> list[str]:
        """Apps whose output somebody wants."""
        return [app_id for app_id in self._watchers if self.is_watched(app_id)]

    def tell(self, app_id: str, event: AppEvent) -> None:
        """Something happened to an app."""
        watchers = self._watchers.get(app_id, ())
        if self.on_event is not None:
            self.on_event(app_id, event)
        if event.kind == "system" and all(watcher.system for watcher in watchers):
            self._unheard.append((app_id, event))
        for watcher in watchers:
            watcher.tell(event)

    def log_grew(self, app_id: str, container_id: str) -> None:
        """A container's log has more."""
        for watcher in self._watchers.get(app_id, ()):
            if watcher.logs:
                watcher.grown[container_id] = None
                watcher.news.set()

    def note(self, app_id: str, text: str, *, container: str = "", function: str = "") -> None:
        """A word for the app's log alone: nobody who watches is told of it."""
        if self.on_event is not None:
            self.on_event(app_id, AppEvent("note", container=container, function=function, text=text))

    def noted(self, app_id: str) -> None:
        """What is kept of Alight's own words has more."""
        for watcher in self._watchers.get(app_id, ()):
            if watcher.system:
                watcher.grown[app_id] = None
                watcher.news.set()

    def stopped(self, app_id: str, why: str) -> None:
        """The app has ended: the last event."""
        for watcher in self._watchers.get(app_id, ()):
            watcher.stopped = AppEvent("stopped", text=why)
            watcher.news.set()
