"""Where the start of one container went, for one line of the node's log (level DEBUG). Decides nothing."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)


class Stages:
    """Moments of one start, each noted once."""

    def __init__(self) -> None:
        self._last = self._begun = time.monotonic()
        self._took: dict[str, float] = {}
        self._said = False

    def reached(self, stage: str) -> None:
        """The stage that ends now; the next one begins."""
        if not self._said and stage not in self._took:
            now = time.monotonic()
            self._took[stage] = now - self._last
            self._last = now

    def say(self, container_id: str, until: str) -> None:
        """The last stage ends now: write the line."""
        if self._said:
            return
        self.reached(until)
        self._said = True
        if log.isEnabledFor(logging.DEBUG):
            parts = ", ".join(f"{stage} {1e3 * seconds:.1f}" for stage, seconds in self._took.items())
            log.debug("container %s: %.1f ms to %s: %s", container_id, 1e3 * (self._last - self._begun), until, parts)
