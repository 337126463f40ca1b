"""Where the time of a start went inside the container: seconds by stage, and slow imports, as LinkReady tells them."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List


class Stages:
    """``seconds``: "import" (finding the user's code) and "enter" (the instance and its hooks, the
    applications of web functions)."""

    def __init__(self) -> None:
        self.seconds: Dict[str, float] = {}
        self.slow: List[List[Any]] = []

    def importing(self) -> _Importing:
        """Around the import of the user's code."""
        return _Importing(self)

    def told(self) -> Dict[str, Any]:
        """The part of a LinkReady."""
        head: Dict[str, Any] = {}
        if self.seconds:
            head["stages"] = self.seconds
        if self.slow:
            head["imports"] = self.slow
        return head

    def measured(self, name: str) -> _Measured:
        """Around a stage."""
        return _Measured(self.seconds, name)


class _Measured:
    def __init__(self, seconds: Dict[str, float], name: str) -> None:
        self._seconds = seconds
        self._name = name

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_error: Any) -> None:
        took = time.monotonic() - self._began
        self._seconds[self._name] = round(self._seconds.get(self._name, 0.0) + took, 4)


class _Importing:
    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def __enter__(self) -> None:
        from alight.runtime.slow_imports import SlowImports  # noqa: PLC0415  forks of level 2 do without

        self._began = time.monotonic()
        self._imports = SlowImports()
        self._imports.begin()

    def __exit__(self, *_error: Any) -> None:
        self._imports.end()
        stages = self._stages
        stages.seconds["import"] = round(time.monotonic() - self._began, 4)
        stages.slow = self._imports.told()
