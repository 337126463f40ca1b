"""Requests about what queues hold."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.routes import shared
from alight.server.services.queues import Queues
from alight.server.services.shared_names import SharedNames
from alight.wire.shared import DictCount, QueueBack, QueueGet, QueuePeek, QueuePut, QueueWhich


def routes(names: SharedNames, queues: Queues) -> Routes:
    async def put(request: Request) -> None:
        asked = request.arguments(QueuePut)
        await names.check(asked.queue_id, request.who)
        await request.stream.send(await queues.put(asked, request.stream.opened_body, request.stream))

    async def get(request: Request) -> None:
        asked = request.arguments(QueueGet)
        await names.check(asked.queue_id, request.who)
        async for items, body in queues.get(asked, request.stream):
            await request.stream.send(items, body)

    async def back(request: Request) -> None:
        asked = request.arguments(QueueBack)
        await names.check(asked.queue_id, request.who)
        await queues.back(asked.queue_id, asked.request)
        await request.stream.send({})

    async def peek(request: Request) -> None:
        asked = request.arguments(QueuePeek)
        await names.check(asked.queue_id, request.who)
        items, body = await queues.peek(asked, request.stream)
        await request.stream.send(items, body)

    async def count(request: Request) -> None:
        asked = request.arguments(QueueWhich)
        await names.check(asked.queue_id, request.who)
        await request.stream.send(DictCount(await queues.count(asked)))

    async def clear(request: Request) -> None:
        asked = request.arguments(QueueWhich)
        await names.check(asked.queue_id, request.who)
        await queues.clear(asked)
        await request.stream.send({})

    return {
        **shared.routes(names),
        "queue.put": put,
        "queue.get": get,
        "queue.back": back,
        "queue.peek": peek,
        "queue.len": count,
        "queue.clear": clear,
    }
