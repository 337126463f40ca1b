"""Requests that look at calls: which there are, how one is doing, which made which."""

from __future__ import annotations

from alight.server.auth import CONTAINER, OWNER, Principal
from alight.server.request import Request, Routes
from alight.server.services import call_graph
from alight.server.services.call_views import CallViews
from alight.store.base import Row, Store
from alight.wire import errors
from alight.wire.calling import CallGraph, CallList, CallShow


def routes(views: CallViews, store: Store) -> Routes:
    async def list_calls(request: Request) -> None:
        asked = request.arguments(CallList)
        await request.stream.send(await views.listed(asked, "" if request.who.kind == OWNER else request.who.owner))

    async def show(request: Request) -> None:
        row = await views.row(request.arguments(CallShow).call_id)
        _readable(request.who, row)
        await request.stream.send(await views.show(row))

    async def graph(request: Request) -> None:
        row = await views.row(request.arguments(CallGraph).call_id)
        _readable(request.who, row)
        await request.stream.send(await call_graph.draw(store, views, row))

    return {"call.list": list_calls, "call.show": show, "call.graph": graph}


def _readable(who: Principal, row: Row) -> None:
    """A user sees their own calls, code in a container those of its owner and environment."""
    ours = who.kind == OWNER or who.owner == row["owner"]
    if not ours or (who.kind == CONTAINER and who.environment != row["environment"]):
        raise errors.PermissionDeniedError("this call belongs to somebody else")
