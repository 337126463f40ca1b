"""Who holds what: an ephemeral app lives while a client holds it, and for a while after the last one let go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Leases:
    """Counts holders by name. ``on_expire`` is called ``grace`` seconds after the last holder has gone."""

    def __init__(self, grace: float, on_expire: Callable[[str], None]) -> None:
        self._grace = grace
        self._on_expire = on_expire
        self._holders: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def begin(self, name: str) -> None:
        """Start the clock of something that nobody holds yet."""
        self._holders.setdefault(name, 0)
        if not self._holders[name]:
            self._start_clock(name)

    def hold(self, name: str) -> None:
        """One more holder."""
        self._holders[name] = self._holders.get(name, 0) + 1
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def let_go(self, name: str) -> None:
        """One holder less; nothing happens for a name that was forgotten meanwhile."""
        if name not in self._holders:
            return
        self._holders[name] -= 1
        if not self._holders[name]:
            self._start_clock(name)

    def forget(self, name: str) -> None:
        """It needs no holder any more."""
        self._holders.pop(name, None)
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def is_held(self, name: str) -> bool:
        """Whether somebody holds it now."""
        return self._holders.get(name, 0) > 0

    def close(self) -> None:
        """Stop all clocks."""
        for name in list(self._timers):
            self._timers.pop(name).cancel()

    def _start_clock(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()
        self._timers[name] = asyncio.get_running_loop().call_later(self._grace, self._expire, name)

    def _expire(self, name: str) -> None:
        self._timers.pop(name, None)
        self._holders.pop(name, None)
        self._on_expire(name)
