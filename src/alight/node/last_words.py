"""The end of one container, as the server hears of it: said when it comes, and again until the server knows of it."""

from __future__ import annotations

from alight.node.session import Session
from alight.node.stages import Stages
from alight.wire.commands import Report


class LastWords:
    """Where its start went, what it used in all, and how it ended: in this order, which the server relies on."""

    def __init__(self, container_id: str, session: Session, stages: Stages) -> None:
        self._id = container_id
        self._session = session
        self._stages = stages
        self._used = Report("usage", container_id, usage={"final": 1.0})
        self._end: tuple[Report, bytes] | None = None
        self.acked = False

    @property
    def have_come(self) -> bool:
        """Whether it has ended."""
        return self._end is not None

    def note_used(self, used: dict[str, float]) -> None:
        """All that it used; nothing where it never ran."""
        self._used = Report("usage", self._id, usage=used)

    async def say(self, end: Report, body: bytes = b"") -> None:
        """It has ended."""
        self._end = (end, body)
        await self._session.report(self._stages.ended(self._id))
        await self.say_again()

    async def say_again(self) -> None:
        """The server may not have heard it."""
        if self._end is not None:
            await self._session.report(self._used)
            await self._session.report(*self._end)

    def on_acked(self) -> None:
        """The server knows."""
        self.acked = self._end is not None
