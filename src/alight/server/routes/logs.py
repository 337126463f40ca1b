"""Requests for output: lines of apps, functions, calls and containers."""

from __future__ import annotations

from alight.server.auth import CONTAINER
from alight.server.request import Request, Routes
from alight.server.services.log_views import LogViews
from alight.wire.logs import LogQuery


def routes(views: LogViews) -> Routes:
    async def query(request: Request) -> None:
        asked = request.arguments(LogQuery)
        inside = request.who.kind == CONTAINER
        environment = request.environment(asked.environment) if inside else asked.environment
        await views.serve(request.stream, asked, environment, request.who)

    return {"logs.query": query}
