"""One frame of answers, as a node brought it."""

from __future__ import annotations

from collections.abc import Sequence

from alight.wire.codec import Buffer
from alight.wire.commands import Output


class Frame:
    """What a container answered: values (or items), or the end of one input (``output``)."""

    __slots__ = ("app_id", "attempt", "body", "busy", "call_id", "container_id", "ended", "flags", "function_id",
                 "head", "item_of", "output", "positions", "serial", "used")  # fmt: skip

    def __init__(self, call_id: str, container_id: str, serial: int, attempt: int, positions: Sequence[int]) -> None:
        self.call_id = call_id
        self.container_id = container_id
        self.serial = serial
        self.attempt = attempt
        self.positions = positions
        self.head: Buffer = b""
        self.body: Buffer = b""
        self.flags = 0
        self.item_of = 0
        self.busy = self.ended = 0.0  # see chunk.Outputs
        self.output: Output | None = None
        self.app_id = self.function_id = ""  # of the container, as it was recorded; "" for one that is gone
        self.used = False
