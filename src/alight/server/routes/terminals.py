"""Requests about terminals: a client lends one to its app, a container of the app asks for it."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.apps import Apps
from alight.server.services.containers import Containers
from alight.server.services.terminals import Terminals, Turn
from alight.wire import errors
from alight.wire.states import AppState
from alight.wire.terminal import TerminalAttach


def routes(terminals: Terminals, apps: Apps, containers: Containers) -> Routes:
    async def attach(request: Request) -> None:
        app = apps.get(request.arguments(TerminalAttach).app_id, request.who)
        if app.state != AppState.RUNNING:
            raise errors.InvalidError("a detached or deployed app has no client that could lend it a terminal")
        await terminals.lend(app.app_id, request.stream)

    async def open_one(request: Request) -> None:
        who = request.who
        function = containers.function_of(who.container_id)
        name = "a function" if function is None else function.spec.class_name or function.spec.name
        await terminals.use(who.app_id, Turn(request.stream, who.container_id, name))

    return {"terminal.attach": attach, "terminal.open": open_one}
