"""Requests about nameless objects: still wanted, and not wanted any more."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.ephemeral import Ephemeral
from alight.wire.shared import EphemeralNamed


def routes(ephemeral: Ephemeral) -> Routes:
    async def keep(request: Request) -> None:
        await ephemeral.keep(request.arguments(EphemeralNamed).object_id, request.who)
        await request.stream.send({})

    async def drop(request: Request) -> None:
        await ephemeral.drop(request.arguments(EphemeralNamed).object_id, request.who)
        await request.stream.send({})

    return {"ephemeral.keep": keep, "ephemeral.drop": drop}
