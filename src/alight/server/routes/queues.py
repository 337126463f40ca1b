"""Requests about what queues hold."""

from __future__ import annotations

import asyncio

from alight.link.turn import turn_of
from alight.server.request import QuickRoutes, Request, Routes
from alight.server.routes import shared
from alight.server.services.queues import Queues
from alight.server.services.shared_names import SharedNames
from alight.wire.shared import DictCount, QueueBack, QueueGet, QueueItems, QueueLeft, QueuePeek, QueuePut, QueueWhich


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


def quick_routes(names: SharedNames, queues: Queues) -> QuickRoutes:
    """What most puts and gets are: nobody else waits there, and there is something to take, or room."""
    turn = turn_of(asyncio.get_running_loop())

    def put(request: Request) -> bool:
        stream = request.stream
        asked = request.arguments(QueuePut)

        def then(error: Exception | None) -> None:
            with turn:
                if error is None:
                    stream.send_nowait(QueueLeft())
                    stream.finish()
                else:
                    stream.fail_nowait(error)

        return names.is_known(asked.queue_id, request.who) and queues.put_now(asked, stream.opened_body, stream, then)

    def get(request: Request) -> bool:
        stream = request.stream
        asked = request.arguments(QueueGet)

        def then(items: QueueItems | None, body: bytes) -> None:
            if items is None:
                request.peer.serve(stream)  # it finds what was taken for it, or tries again
                return
            with turn:
                stream.send_nowait(items, body)
                stream.finish()

        return names.is_known(asked.queue_id, request.who) and queues.get_now(asked, stream, then)

    return {"queue.put": put, "queue.get": get}
