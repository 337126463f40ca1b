"""Requests about programs that people run in running containers."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.apps import Apps, may_touch
from alight.server.services.containers import Containers
from alight.server.services.execs import Execs
from alight.wire import errors
from alight.wire.execs import ExecStart


def routes(execs: Execs, apps: Apps, containers: Containers) -> Routes:
    async def run(request: Request) -> None:
        asked = request.arguments(ExecStart)
        if not asked.argv:
            raise errors.InvalidError("there is no program to run: its words are missing")
        record = containers.alive.get(asked.container_id)
        app = apps.alive.get(record.app_id) if record is not None else None
        # Of somebody else's container not even that it runs is said.
        if record is None or app is None or not may_touch(request.who, app):
            raise errors.NotFoundError(
                f"no container {asked.container_id} runs", hint="`alight container list` shows those that do"
            )
        await execs.run(asked, record, request.stream)

    return {"container.exec": run}
