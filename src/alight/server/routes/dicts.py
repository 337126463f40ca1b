"""Requests about what dicts hold."""

from __future__ import annotations

import asyncio

from alight.link.turn import turn_of
from alight.server.request import QuickRoutes, Request, Routes
from alight.server.routes import shared
from alight.server.services.dicts import Dicts
from alight.server.services.shared_names import SharedNames
from alight.wire.shared import DictCount, DictKeys, DictPut, DictScan, DictValue


def routes(names: SharedNames, dicts: Dicts) -> Routes:
    async def keys(request: Request) -> DictKeys:
        asked = request.arguments(DictKeys)
        await names.check(asked.dict_id, request.who)
        return asked

    async def get(request: Request) -> None:
        asked = await keys(request)
        value, body = await dicts.get(asked.dict_id, request.stream.opened_body)
        await request.stream.send(value, body)

    async def contains(request: Request) -> None:
        asked = await keys(request)
        there = await dicts.contains(asked.dict_id, request.stream.opened_body)
        await request.stream.send(DictCount(int(there)))

    async def put(request: Request) -> None:
        asked = request.arguments(DictPut)
        await names.check(asked.dict_id, request.who)
        await request.stream.send(DictCount(await dicts.put(asked, request.stream.opened_body)))

    async def pop(request: Request) -> None:
        asked = await keys(request)
        value, body = await dicts.pop(asked, request.stream.opened_body)
        await request.stream.send(value, body)

    async def count(request: Request) -> None:
        asked = await keys(request)
        await request.stream.send(DictCount(await dicts.count(asked.dict_id)))

    async def clear(request: Request) -> None:
        await dicts.clear(await keys(request))
        await request.stream.send({})

    async def scan(request: Request) -> None:
        asked = request.arguments(DictScan)
        await names.check(asked.dict_id, request.who)
        async for page, body in dicts.scan(asked):
            await request.stream.send(page, body)

    return {
        **shared.routes(names),
        "dict.get": get,
        "dict.contains": contains,
        "dict.put": put,
        "dict.pop": pop,
        "dict.len": count,
        "dict.clear": clear,
        "dict.scan": scan,
    }


def quick_routes(names: SharedNames, dicts: Dicts) -> QuickRoutes:
    """What is asked one by one, in loops."""
    turn = turn_of(asyncio.get_running_loop())

    def get(request: Request) -> bool:
        stream = request.stream
        asked = request.arguments(DictKeys)

        def then(value: DictValue | None, body: bytes) -> None:
            if value is None:
                request.peer.serve(stream)
                return
            with turn:
                stream.send_nowait(value, body)
                stream.finish()

        return names.is_known(asked.dict_id, request.who) and dicts.get_now(asked.dict_id, stream.opened_body, then)

    def put(request: Request) -> bool:
        stream = request.stream
        asked = request.arguments(DictPut)

        def then(count: int | None) -> None:
            if count is None:
                request.peer.serve(stream)  # it was done before, or is refused: what that says takes reading
                return
            with turn:
                stream.send_nowait(DictCount(count))
                stream.finish()

        return names.is_known(asked.dict_id, request.who) and dicts.put_now(asked, stream.opened_body, then)

    return {"dict.get": get, "dict.put": put}
