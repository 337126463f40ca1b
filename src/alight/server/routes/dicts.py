"""Requests about what dicts hold."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.routes import shared
from alight.server.services.dicts import Dicts
from alight.server.services.shared_names import SharedNames
from alight.wire.shared import DictCount, DictKeys, DictPut, DictScan


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
