"""Requests of the dashboard and of those who want its addresses: links, functions, inputs, who changed what."""

from __future__ import annotations

from collections.abc import Callable

from alight.server.auth import OWNER, Principal
from alight.server.request import Request, Routes
from alight.server.services.audits import Audits
from alight.server.services.call_views import CallViews
from alight.server.services.function_views import FunctionViews
from alight.server.services.input_views import InputViews
from alight.store.base import Row
from alight.wire import errors
from alight.wire.dashboard import (
    AuditList,
    CallInputs,
    CallRetry,
    DashboardLink,
    DashboardUrl,
    FunctionSeries,
    FunctionView,
)

#: The page of an object (its id), and with a principal a link that logs them in.
Link = Callable[[str, Principal | None], DashboardUrl]


def routes(link: Link, functions: FunctionViews, calls: CallViews, inputs: InputViews, audits: Audits) -> Routes:
    async def give_link(request: Request) -> None:
        asked = request.arguments(DashboardLink)
        await request.stream.send(link(asked.object_id, request.who if asked.login else None))

    async def view(request: Request) -> None:
        row = await functions.row(request.arguments(FunctionView).function_id, request.who)
        await request.stream.send(await functions.show(row))

    async def series(request: Request) -> None:
        asked = request.arguments(FunctionSeries)
        await request.stream.send(await functions.series(asked, await functions.row(asked.function_id, request.who)))

    async def show_inputs(request: Request) -> None:
        asked = request.arguments(CallInputs)
        await request.stream.send(await inputs.inputs(asked, await _mine(request, asked.call_id)))

    async def retry(request: Request) -> None:
        asked = request.arguments(CallRetry)
        await request.stream.send(await inputs.retry(await _mine(request, asked.call_id)))

    async def audit(request: Request) -> None:
        await request.stream.send(await audits.list(request.arguments(AuditList).limit, request.who))

    async def _mine(request: Request, call_id: str) -> Row:
        """A call that they may see; of somebody else's not even that it is there is said."""
        row = await calls.row(call_id)
        if request.who.kind != OWNER and request.who.owner != row["owner"]:
            raise errors.NotFoundError(f"there is no call {call_id}")
        return row

    return {
        "dashboard.link": give_link,
        "function.view": view,
        "function.series": series,
        "call.inputs": show_inputs,
        "call.retry": retry,
        "audit.list": audit,
    }
