"""Which of the imports that the user's module makes take long.

Only the outermost are measured: while one of them runs, imports are Python's own again and cost nothing more.
"""

from __future__ import annotations

import builtins
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

#: Seconds from which one is worth telling, and how many at most.
SLOW, MOST = 0.1, 5


class SlowImports:
    """``begin`` and ``end`` are around the import of the user's module."""

    def __init__(self) -> None:
        self._seconds: Dict[str, float] = {}
        self._on = False

    def begin(self) -> None:
        """Measure from now on."""
        original = self._original = builtins.__import__
        seconds, now = self._seconds, time.perf_counter

        def measured(name: str, *args: Any, **kwargs: Any) -> Any:
            # (name, globals, locals, fromlist, level): dots say that it is relative.
            level = kwargs.get("level", args[3] if len(args) > 3 else 0)
            if builtins.__import__ is measured:
                builtins.__import__ = original
            before = now()
            try:
                return original(name, *args, **kwargs)
            finally:
                took = now() - before
                if took >= SLOW / MOST:
                    named = "." * level + name
                    seconds[named] = seconds.get(named, 0.0) + took
                if builtins.__import__ is original and self._on:
                    builtins.__import__ = measured

        self._on = True
        self._measured = builtins.__import__ = measured

    def end(self) -> None:
        """Measure no more."""
        self._on = False
        if builtins.__import__ is self._measured:  # else user code has put its own there
            builtins.__import__ = self._original

    def told(self) -> List[List[Any]]:
        """[name, seconds], slowest first."""
        slow = sorted(self._seconds.items(), key=lambda one: -one[1])
        return [[name, round(took, 3)] for name, took in slow if took >= SLOW][:MOST]
