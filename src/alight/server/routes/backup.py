"""Requests for backups: only from whoever could read the server's directory anyway."""

from __future__ import annotations

import os
from contextlib import aclosing

from alight.server.auth import OWNER
from alight.server.request import Request, Routes
from alight.server.services.backup import Backup
from alight.wire import errors
from alight.wire.backups import BackupMake


def routes(backup: Backup) -> Routes:
    async def make(request: Request) -> None:
        # The server writes where it is told to: nobody may have it write where they could not themselves.
        if request.who.kind != OWNER or request.peer.uid not in {0, os.getuid()}:
            raise errors.PermissionDeniedError(
                "a backup is made on the server's own machine, by its own user or root",
                hint="run `alight server backup DIR` there",
            )
        asked = request.arguments(BackupMake)
        async with aclosing(backup.make(asked, request.environment(asked.environment))) as saying:
            async for said in saying:
                await request.stream.send(said)

    return {"server.backup": make}
