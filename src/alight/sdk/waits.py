"""Why a call waits, told to whoever draws, once it has waited long enough to wonder."""

from __future__ import annotations

import time
from typing import Optional

from alight.sdk import progress

WONDER = 1.0  # seconds


class Waiting:
    """What is told of one call. Costs nothing until the server has given a reason."""

    __slots__ = ("_call_id", "_since", "_told", "_why")

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._why = ""
        self._told = ""
        self._since = 0.0

    def because(self, why: str) -> None:
        """The server's word for it; "" when it waits no longer."""
        if why and not self._why:
            self._since = time.monotonic()
        self._why = why
        if self._told and why != self._told:
            self._tell()

    def sooner(self, left: Optional[float]) -> Optional[float]:
        """How long to listen before something has to be told."""
        if not self._why or self._told:
            return left
        until = max(0.0, self._since + WONDER - time.monotonic())
        return until if left is None else min(left, until)

    def say(self) -> bool:
        """Tell it when it is time. False when there was nothing to tell."""
        if not self._why or self._told or time.monotonic() < self._since + WONDER:
            return False
        self._tell()
        return True

    def over(self) -> None:
        """The call ended, one way or another."""
        if self._told:
            self._why = ""
            self._tell()

    def _tell(self) -> None:
        self._told = self._why
        progress.current().waiting(self._call_id, self._why)
