"""What changed, for those who look: topics, gathered and told a few times a second. Pure but for its clock.

A topic is a kind ("calls", "containers" …) or one thing ("call:fc-…"). Whoever looks is told topics and asks again for
what is on screen, so nothing is lost when many changes become one, and a slow reader holds no more than one message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any

TICK = 0.2  # seconds between words to a reader
_COUNT_EVERY = 5  # ticks between looks at numbers when nothing was noted
SINGLE_MOST = 200  # things of one kind that are named; more are "many"
#: Kinds of single things, by the topic that stands for all of them.
KINDS = {"app": "apps", "function": "functions", "call": "calls", "container": "containers"}


class Listener:
    """One who looks. ``owner`` "" hears of everybody's."""

    def __init__(self, topics: Topics, owner: str) -> None:
        self.owner = owner
        self._topics = topics
        self._general: set[str] = set()
        self._single: dict[str, set[str]] = {}
        self._many: set[str] = set()
        self._counts: Mapping[str, int] = {}
        self._told: Mapping[str, int] = {}
        self._news = asyncio.Event()
        self.closed = False

    def add(self, general: Iterable[str], single: Mapping[str, Iterable[str]], counts: Mapping[str, int]) -> None:
        """Something changed."""
        self._general.update(general)
        for kind, names in single.items():
            if kind in self._many:
                continue
            known = self._single.setdefault(kind, set())
            known.update(names)
            if len(known) > SINGLE_MOST:
                del self._single[kind]
                self._many.add(kind)
        self._counts = counts
        if self._general or self._single or self._many or counts != self._told:
            self._news.set()

    async def take(self, seconds: float) -> dict[str, Any] | None:
        """What changed since the last word, None when nothing did for so long."""
        try:
            await asyncio.wait_for(self._news.wait(), seconds)
        except asyncio.TimeoutError:
            return None
        self._news.clear()
        named = [f"{kind}:{name}" for kind, names in sorted(self._single.items()) for name in sorted(names)]
        said = {"topics": [*sorted(self._general), *named], "many": sorted(self._many), "counts": dict(self._counts)}
        self._told = self._counts
        self._general, self._single, self._many = set(), {}, set()
        return said

    def close(self) -> None:
        """Nobody looks any more."""
        self.closed = True
        self._topics.leave(self)


class Topics:
    """All who look. While nobody does, nothing is noted and nothing runs.

    ``counts`` says what is under way for an owner; ``look`` is asked before each word for things that changed without
    a word, ``heard`` when somebody begins to look and when nobody does any more.
    """

    def __init__(
        self,
        counts: Callable[[str], Mapping[str, int]],
        look: Callable[[], None] = lambda: None,
        heard: Callable[[bool], None] = lambda is_heard: None,
    ) -> None:
        self._counts = counts
        self._look = look
        self._heard = heard
        self._ticks = 0
        self._listeners: set[Listener] = set()
        self._timer: asyncio.TimerHandle | None = None
        # By owner ("" where everybody may know): kinds, and single things by kind. What is noted waits for a tick
        # before it is told, so that it is in the store when somebody asks.
        self._fresh: dict[str | None, dict[str, set[str]]] = {}
        self._ripe: dict[str | None, dict[str, set[str]]] = {}

    @property
    def is_heard(self) -> bool:
        """Whether anybody looks."""
        return bool(self._listeners)

    def listen(self, owner: str) -> Listener:
        """Begin to look; give it back with ``close``."""
        listener = Listener(self, owner)
        self._listeners.add(listener)
        if self._timer is None:
            self._heard(True)
            self._look()  # from here on, what is different is news
            self._fresh, self._ripe = {}, {}
            self._wind()
        return listener

    def leave(self, listener: Listener) -> None:
        """See ``Listener.close``."""
        self._listeners.discard(listener)
        if not self._listeners and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._heard(False)

    def note(self, kind: str, name: str, owner: str | None) -> None:
        """A single thing of somebody changed; None: nobody knows any more whose it was."""
        if self._listeners:
            single = self._fresh.setdefault(owner, {})
            names = single.setdefault(kind, set())
            if len(names) <= SINGLE_MOST:
                names.add(name)

    def general(self, topic: str) -> None:
        """Something of a kind that is everybody's changed ("nodes")."""
        if self._listeners:
            self._fresh.setdefault("", {}).setdefault(f"*{topic}", set())

    def close(self) -> None:
        """End all words."""
        for listener in list(self._listeners):
            listener.close()

    def _wind(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _tick(self) -> None:
        self._look()
        ripe, self._ripe, self._fresh = self._ripe, self._fresh, {}
        self._ticks += 1
        if not ripe and self._ticks % _COUNT_EVERY:
            self._wind()
            return
        counts: dict[str, Mapping[str, int]] = {}
        for listener in self._listeners:
            owner = listener.owner
            if owner not in counts:
                counts[owner] = self._counts(owner)
            general: set[str] = set()
            single: dict[str, set[str]] = {}
            for whose, things in ripe.items():
                if whose == "" or not owner or whose == owner:
                    for kind, names in things.items():
                        if kind.startswith("*"):
                            general.add(kind[1:])
                            continue
                        general.add(KINDS.get(kind, kind))
                        single.setdefault(kind, set()).update(names)
            listener.add(general, single, counts[owner])
        self._wind()
