"""Requests about functions: find one, make a variant of it, scale it, count what it does."""

from __future__ import annotations

from collections.abc import Callable

from alight.server.auth import CONTAINER, Principal
from alight.server.request import Request, Routes
from alight.server.services import variants
from alight.server.services.apps import Apps
from alight.server.services.functions import Functions
from alight.server.services.published import Published, may_use
from alight.wire import errors
from alight.wire.messages import FunctionBind, FunctionFind, FunctionLookup, FunctionScale, FunctionStats


def routes(apps: Apps, functions: Functions, stats: Callable[[str], FunctionStats]) -> Routes:
    """``stats`` counts what a function does just now."""

    async def lookup(request: Request) -> None:
        asked = request.arguments(FunctionLookup)
        app_id = asked.app_id or request.who.app_id
        if request.who.kind == CONTAINER and app_id != request.who.app_id:
            raise errors.PermissionDeniedError("code in a container may use its own app's functions only")
        apps.get(app_id, request.who)
        await request.stream.send(functions.lookup(app_id, asked.name))

    async def find(request: Request) -> None:
        asked = request.arguments(FunctionFind)
        found = apps.named(asked.app, request.environment(asked.environment), request.who)
        await request.stream.send(functions.find((app.app_id for app in found), asked.app, asked.name))

    async def bind(request: Request) -> None:
        asked = request.arguments(FunctionBind)
        _usable(request.who, functions.get(asked.function_id))
        wish = variants.wish(asked.changes, request.stream.opened_body, asked.given)
        await request.stream.send(await functions.bind(asked.function_id, wish))

    async def scale(request: Request) -> None:
        asked = request.arguments(FunctionScale)
        _usable(request.who, functions.get(asked.function_id))
        await request.stream.send(await functions.scale(asked.function_id, asked.changes))

    async def count(request: Request) -> None:
        function_id = request.arguments(FunctionScale).function_id
        _usable(request.who, functions.get(function_id))
        await request.stream.send(stats(function_id))

    return {
        "function.lookup": lookup,
        "function.find": find,
        "function.bind": bind,
        "function.scale": scale,
        "function.stats": count,
    }


def _usable(who: Principal, function: Published) -> None:
    if not may_use(who, function):
        raise errors.PermissionDeniedError("this function belongs to somebody else")
