"""What a queue's verbs read from requests, write into the store and say to callers. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from alight.server.services.queue_state import Taken, Taking
from alight.store.base import Statement
from alight.wire import errors
from alight.wire.shared import ITEM_MOST, PARTITION_MOST, PARTITION_TTL_MOST, QueueItems, QueuePut

_REQUEST = re.compile(r"[pg][0-9a-f]{32}")


def values_of(asked: QueuePut, body: bytes) -> list[bytes]:
    """The items of a put. Raises InvalidError, RequestSizeError."""
    check_request(asked.request, "p")
    if not asked.sizes or len(asked.sizes) > PARTITION_MOST or min(asked.sizes) < 0 or sum(asked.sizes) != len(body):
        raise errors.InvalidError("the sizes of a put do not fit what came")
    if max(asked.sizes) > ITEM_MOST:
        raise errors.RequestSizeError(f"an item of a queue has at most {ITEM_MOST:,} bytes, not {max(asked.sizes):,}")
    if not 0 < asked.ttl <= PARTITION_TTL_MOST:
        raise errors.InvalidError(f"partition_ttl is more than 0 and at most {PARTITION_TTL_MOST} seconds")
    values, at = [], 0
    for size in asked.sizes:
        values.append(body[at : at + size])
        at += size
    return values


def check_request(request: str, kind: str) -> None:
    if not _REQUEST.fullmatch(request) or request[0] != kind:
        raise errors.InvalidError("the id of a request is a letter and 32 hexadecimal digits")


def takes(getters: Sequence[Taking], taken: Sequence[Taken]) -> Statement:
    return "queue_taken", [
        {
            "request": getter.request,
            "queue_id": one.queue_id,
            "now": one.at,
            "partition": one.partition,
            "start": one.start,
            "stop": one.stop,
        }
        for getter, one in zip(getters, taken)
    ]


def drop(queue_id: str, partition: str, start: int, stop: int) -> Statement:
    return "queue_drop", {"queue_id": queue_id, "partition": partition, "start": start, "stop": stop}


def message(page: list[tuple[int, bytes]]) -> tuple[QueueItems, bytes]:
    return QueueItems(tuple(len(value) for _, value in page), page[-1][0]), b"".join([value for _, value in page])
