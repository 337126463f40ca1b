"""Where the start of one container went, from the server's word "start" to the first line of user code.

Time is cut into stages that leave no gap: what nobody names is ``other``. Nothing here decides anything, and nothing
waits for it. It is said with the first answer or with the end; before, when the first input runs for long.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from alight.wire.commands import LinkReady, Report

log = logging.getLogger(__name__)

MOUNTS, IMAGE, RUNTIME, IMPORT, FIRST, OTHER = "mounts", "image", "runtime", "import", "first_input", "other"
#: Seconds after which an input that comes to a ready container did not wait for its start: the container did, for it.
_PREWARMED = 1.0


class Stages:
    """Moments of one start. ``open`` until all that there is to say was said; ``awaits_input`` until one was given."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.open = self.awaits_input = True
        self._clock = clock
        self._last = clock()
        self._took: dict[str, float] = {}
        self._facts: dict[str, Any] = {"how": "plain", "level": 0}
        self._under_way = MOUNTS
        self._ready_at = self._given_at = 0.0
        self._failed = False
        self._said: Report | None = None

    def adopted(self) -> None:
        """Another agent saw the start: there is nothing to say of it."""
        self.open = self.awaits_input = False

    def reached(self, stage: str, under_way: str = "") -> None:
        """What ends now was ``stage``, or more of it. ``under_way`` is what begins, if that is known."""
        if self.open and not self._ready_at:
            self._cut(stage)
            self._under_way = under_way or stage

    def note(
        self,
        *,
        how: str = "",
        level: int | None = None,
        refused: Sequence[str] = (),
        imports: Sequence[Any] = (),
        gpus: Sequence[str] = (),
    ) -> None:
        """Facts about this start: ``how`` it came to be ("plain", "forked", "parked"), the ``level`` of the template
        that it was forked from (0: none), why there was no template, modules that took long to import, how its GPUs are
        shared."""
        if how:
            self._facts["how"] = how
        if level is not None:
            self._facts["level"] = level
        if refused:
            self._facts["refused"] = list(refused)
        if gpus:
            self._facts["gpus"] = list(gpus)
        if imports:
            self._facts["imports"] = [[name, seconds] for name, seconds in imports]

    def started(self, how: str, stages: Mapping[str, float]) -> None:
        """The engine has started it, and says what of that took how long. The rest is the start itself."""
        itself = "exec" if how == "plain" else "fork"
        self.note(how=how)
        self._named(stages, itself)
        self._under_way = RUNTIME

    def loaded(self, ready: LinkReady) -> None:
        """The runtime has loaded the user's code, or failed to."""
        self.note(imports=ready.imports)
        self._named(ready.stages, OTHER if ready.stages else IMPORT)
        if ready.failure is None and ready.error is None:
            self._ready_at = self._last
            self._under_way = FIRST
            self._facts["ready"] = True
        else:
            self._failed = True  # what comes now is its leaving

    def given(self) -> None:
        """The first input was handed to the runtime."""
        self.awaits_input = False
        self._given_at = self._clock()

    def answered(self, container_id: str, began: float) -> Report:
        """The first answer came, of an input whose code began at ``began`` (unix time; 0: nobody knows)."""
        if self._ready_at:
            now = self._clock()
            since = self._ready_at if self._given_at - self._ready_at <= _PREWARMED else self._given_at
            begun = now - max(0.0, time.time() - began) if began else now
            self._took[FIRST] = max(0.0, min(now, begun) - since)
        return self.ended(container_id)

    def ended(self, container_id: str) -> Report:
        """The container has answered or is gone: what there is to say, for good."""
        if self.open:
            if not self._ready_at and not self._failed:
                self._cut(self._under_way)
            self.open = self.awaits_input = False
            self._said = self.so_far(container_id)
            if log.isEnabledFor(logging.DEBUG):
                parts = ", ".join(f"{stage} {1e3 * seconds:.1f}" for stage, seconds in self._took.items())
                log.debug("container %s: %.1f ms: %s", container_id, 1e3 * sum(self._took.values()), parts)
        return self._said or Report("started", container_id)

    def so_far(self, container_id: str) -> Report:
        """What is known until now. ``reached`` is the stage that a container did not get out of; "" when it did."""
        reached = "" if FIRST in self._took else ("ready" if self._ready_at else self._under_way)
        stages = {stage: round(seconds, 6) for stage, seconds in self._took.items()}
        return Report("started", container_id, start={**self._facts, "reached": reached, "stages": stages})

    @property
    def said(self) -> Report | None:
        """What was said for good, to say it again after a reconnect."""
        return self._said

    def _named(self, stages: Mapping[str, float], rest: str) -> None:
        """The time since the last moment, by the names that somebody else gave to parts of it."""
        now = self._clock()
        left = now - self._last
        for stage, seconds in stages.items():
            part = min(max(0.0, float(seconds)), left)
            left -= part
            self._took[stage] = self._took.get(stage, 0.0) + part
        self._took[rest] = self._took.get(rest, 0.0) + left
        self._last = now

    def _cut(self, stage: str) -> None:
        now = self._clock()
        self._took[stage] = self._took.get(stage, 0.0) + now - self._last
        self._last = now
