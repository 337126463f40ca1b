"""Requests about tokens, for the owner alone."""

from __future__ import annotations

import time

from alight.server.auth import NODE, USER
from alight.server.request import Request, Routes
from alight.server.services.tokens import Tokens
from alight.wire.admission import TokenCreate


def routes(tokens: Tokens) -> Routes:
    async def create(request: Request) -> None:
        asked = request.arguments(TokenCreate)
        made = await tokens.create(asked.name, time.time(), kind=NODE if asked.node else USER, owner=request.who.owner)
        await request.stream.send(made)

    async def listed(request: Request) -> None:
        await request.stream.send(await tokens.list())

    async def delete(request: Request) -> None:
        await tokens.delete(request.arguments(TokenCreate).token_id)
        await request.stream.send({})

    return {"token.create": create, "token.list": listed, "token.delete": delete}
