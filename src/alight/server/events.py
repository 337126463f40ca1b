"""The way from whoever sees something to the scheduler: a box of facts that the loop empties."""

from __future__ import annotations

from collections.abc import Callable

from alight.scheduler.events import Event


class Inbox:
    """Facts in order. ``on_mail`` is called when the first one lands in an empty box."""

    def __init__(self) -> None:
        self._facts: list[Event] = []
        self.on_mail: Callable[[], None] | None = None

    def put(self, fact: Event) -> None:
        """Add a fact; the loop takes it in within this turn of the event loop."""
        self._facts.append(fact)
        if len(self._facts) == 1 and self.on_mail is not None:
            self.on_mail()

    def take(self) -> list[Event]:
        """Everything that has come."""
        facts, self._facts = self._facts, []
        return facts
