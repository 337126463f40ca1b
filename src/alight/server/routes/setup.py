"""Requests of laptops that want to be let in, and the owner's answers."""

from __future__ import annotations

import logging
import time

from alight.server.request import Request, Routes
from alight.server.services.setup import Setup
from alight.server.services.tokens import Tokens
from alight.wire.admission import SetupApprove, SetupBegin, SetupPending, SetupPoll

log = logging.getLogger(__name__)


def routes(setup: Setup, tokens: Tokens) -> Routes:
    async def begin(request: Request) -> None:
        asked = request.arguments(SetupBegin)
        address = str(request.peer.info.get("address") or "local")
        begun = setup.begin(asked, address, time.time())
        log.info("%s (%s) asks to be let in: `alight token approve CODE` answers it", asked.hostname, address)
        await request.stream.send(begun)

    async def poll(request: Request) -> None:
        asked = request.arguments(SetupPoll)
        await request.stream.send(await setup.wait(asked.request_id, asked.nonce, asked.wait))

    async def pending(request: Request) -> None:
        waiting = tuple(
            {"hostname": one.hostname, "address": one.address, "expires_at": one.expires_at}
            for one in setup.pending(time.time())
        )
        await request.stream.send(SetupPending(waiting))

    async def approve(request: Request) -> None:
        now = time.time()
        found = setup.match(request.arguments(SetupApprove).code, now)
        made = await tokens.create(found.hostname or found.address, now, owner=request.who.owner)
        setup.grant(found, made)
        await request.stream.send({"hostname": found.hostname, "token_id": made.token_id})

    return {"setup.begin": begin, "setup.poll": poll, "setup.pending": pending, "setup.approve": approve}
