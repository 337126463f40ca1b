"""What came of inputs in its three forms: what a node brings, what the store keeps, what a caller gets.

Values stay the chunk that they came in; only a chunk of which some outputs do not count is cut. Everything else is a
CallUpdate in JSON from the moment it is accepted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from alight.store.base import Row
from alight.wire import chunk
from alight.wire.codec import Buffer, to_plain
from alight.wire.commands import Output
from alight.wire.states import InputState, ResultStatus

VALUES, END, ITEMS, REST, TAKEN = 0, 1, 2, 3, 4  # kinds of outputs in the store. TAKEN: their caller alone has them
ORPHAN, EXPIRED, FAILED = "orphan", "expired", "failed"  # of a call's row, besides ResultStatus


@dataclass(slots=True)
class Recorded:
    """One row of outputs. For ITEMS ``positions`` are item numbers and ``start`` is the input."""

    number: int
    kind: int
    start: int
    positions: Sequence[int]
    head: Buffer
    body: Buffer
    flags: int = 0

    def row(self, call_id: str, now: float) -> dict[str, Any]:
        """Parameters of ``output_add``."""
        positions = self.positions
        if self.kind == ITEMS:
            start, count, first = self.start, len(positions), positions[0]
        elif type(positions) is range:
            start, count, first = self.start, len(positions), 0
        else:
            start, first = min(positions), 0
            count = max(positions) + 1 - start
        return {
            "number": self.number,
            "call_id": call_id,
            "start": start,
            "count": count,
            "kind": self.kind,
            "first": first,
            "flags": self.flags,
            "head": self.head,
            "body": self.body,
            "now": now,
        }


def from_row(row: Row) -> Recorded:
    """What a row of outputs says."""
    kind, start, count = row["kind"], row["start"], row["count"]
    body = row.get("body", b"")
    if kind == VALUES:
        head = chunk.Outputs.decode(row["head"])
        return Recorded(row["number"], kind, start, head.positions, row["head"], body, head.flags)
    if kind == ITEMS:
        return Recorded(row["number"], kind, start, range(row["first"], row["first"] + count), row["head"], body)
    return Recorded(row["number"], kind, start, range(start, start + count), row["head"], body)


def cut(head: Buffer, body: Buffer, wanted: Callable[[int], bool]) -> tuple[chunk.Outputs, bytes, Buffer] | None:
    """Those outputs (or items) of a chunk that are wanted: head, encoded head, body. None when there are none."""
    whole = chunk.Outputs.decode(head)
    offsets = list(accumulate(whole.sizes, initial=0))
    kept = [at for at, position in enumerate(whole.positions) if wanted(position)]
    if not kept:
        return None
    low, high = kept[0], kept[-1] + 1
    positions: Sequence[int]
    if high - low == len(kept):
        positions, body = whole.positions[low:high], memoryview(body)[offsets[low] : offsets[high]]
    else:
        positions = tuple(whole.positions[at] for at in kept)
        body = b"".join(memoryview(body)[offsets[at] : offsets[at + 1]] for at in kept)
    if whole.is_items and type(positions) is not range:
        positions = range(positions[0], positions[-1] + 1)
    whole.positions = positions
    whole.sizes = [whole.sizes[at] for at in kept]
    return whole, whole.encode(), body


def end_of_input(output: Output) -> bytes:
    """The head of a CallUpdate for an attempt that ended without a value."""
    said: dict[str, Any] = {"call_id": output.call_id, "state": InputState.DONE, "status": output.status}
    if output.position:
        said["position"] = output.position
    if output.attempt != 1:
        said["attempt"] = output.attempt
    if output.payload.blob or output.payload.size:
        said["payload"] = to_plain(output.payload)
    if output.failure is not None:
        said["failure"] = to_plain(output.failure)
    if output.error is not None:
        said["error"] = output.error
    if output.container:
        said["container"] = output.container
    if output.log_offset:
        said["log_offset"] = output.log_offset
    if output.items:
        said["items"] = output.items
    return json.dumps(said, separators=(",", ":")).encode()


def rest_of_row(row: Row) -> dict[str, Any]:
    """How inputs of an ended call ended that have no output of their own."""
    error = json.loads(row["error"]) if row["error"] else None
    if error is None:
        error = {"code": "data_loss", "message": "what came of this input was lost with the server's disk"}
    status = ResultStatus.CANCELLED if row["status"] == ResultStatus.CANCELLED else ResultStatus.TERMINATED
    if row["status"] not in (ResultStatus.CANCELLED, ResultStatus.SUCCESS, FAILED, EXPIRED):
        status = row["status"]
    return {"call_id": row["call_id"], "state": InputState.DONE, "status": status, "error": error}


def rest_of_head(head: Buffer) -> dict[str, Any]:
    """The same from a row of kind REST."""
    said: dict[str, Any] = json.loads(bytes(head))
    return said


def update(said: Mapping[str, Any], position: int) -> bytes:
    """The head of a CallUpdate of one input for what is said of many."""
    return json.dumps({**said, "position": position}, separators=(",", ":")).encode()
