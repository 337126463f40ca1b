"""A result in its three forms: what a node brings, what the store keeps, what a caller gets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from alight.store.base import Row
from alight.wire import errors
from alight.wire.codec import from_plain, to_plain
from alight.wire.commands import Output
from alight.wire.failure import Failure
from alight.wire.messages import CallUpdate, Payload
from alight.wire.states import InputState

EXPIRED = "expired"


@dataclass(frozen=True)
class Result:
    """The last update of a call, and its body."""

    update: CallUpdate
    body: bytes


def from_output(output: Output, body: bytes, call_id: str, attempt: int) -> Result:
    """What a caller gets for an attempt's end."""
    update = CallUpdate(
        call_id,
        InputState.DONE,
        output.input_id,
        output.status,
        attempt,
        output.payload,
        output.failure,
        output.error,
        output.container,
        output.log_offset,
    )
    return Result(update, body)


def to_row(result: Result, now: float) -> dict[str, Any]:
    """Parameters of the queries that record a result."""
    update = result.update
    return {
        "input_id": update.input_id,
        "attempt": update.attempt,
        "now": now,
        "status": update.status,
        "container_id": update.container,
        "result": result.body or None,
        "result_blob": update.payload.blob,
        "result_size": update.payload.size,
        "failure": json.dumps(to_plain(update.failure)) if update.failure is not None else None,
        "error": json.dumps(update.error) if update.error is not None else None,
        "log_offset": update.log_offset,
    }


def from_row(row: Row, call_id: str) -> Result:
    """What a caller gets for a recorded result. Raises OutputExpiredError for one that was kept for its time."""
    if row["status"] == EXPIRED:
        raise errors.OutputExpiredError(f"the result of {call_id} was kept for its time and is gone")
    update = CallUpdate(
        call_id,
        InputState.DONE,
        row["input_id"],
        row["status"],
        row["attempt"],
        Payload(row["result_blob"], row["result_size"]),
        from_plain(Failure, json.loads(row["failure"])) if row["failure"] else None,
        json.loads(row["error"]) if row["error"] else None,
        row["container_id"],
        row["log_offset"],
    )
    return Result(update, bytes(row["result"] or b""))


def head(update: CallUpdate) -> dict[str, Any]:
    """An update as it goes over the wire: what equals its default is left out, as most of it does."""
    said = {name: value for name, value in vars(update).items() if value}
    if not (update.payload.blob or update.payload.size):
        del said["payload"]
    return said
