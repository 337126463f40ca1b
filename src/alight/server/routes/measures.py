"""Requests about measurements: series, reports of functions and apps, machines, GPUs."""

from __future__ import annotations

import time

from alight.server.auth import OWNER
from alight.server.request import Request, Routes
from alight.server.routes.containers import check, whose
from alight.server.services.container_views import ContainerViews
from alight.server.services.declared import Declared
from alight.server.services.machine_views import MachineViews
from alight.server.services.measure_views import MeasureViews
from alight.wire import errors, ids
from alight.wire.measures import AppAsked, FunctionAsked, NodeList, SeriesAsked


def routes(views: MeasureViews, containers: ContainerViews, machines: MachineViews, declared: Declared) -> Routes:
    async def series(request: Request) -> None:
        asked = request.arguments(SeriesAsked)
        if ids.is_id(asked.object_id, ids.CONTAINER):
            check(request.who, await containers.row(asked.object_id))
        elif request.who.kind != OWNER:
            raise errors.PermissionDeniedError("only the owner of this server may look at machines and GPUs over time")
        await request.stream.send(await views.series(asked))

    async def report(request: Request) -> None:
        await request.stream.send(await views.report(_function(request), request.who))

    async def app(request: Request) -> None:
        await request.stream.send(await views.app(request.arguments(AppAsked), whose(request.who)))

    async def metrics(request: Request) -> None:
        await request.stream.send(await views.metrics(_function(request), request.who))

    async def info(request: Request) -> None:
        rows = await views.find(_function(request), request.who)
        await request.stream.send(await declared.show(rows[0]))

    async def variants(request: Request) -> None:
        asked = _function(request)
        rows = await views.find(asked, request.who)
        await request.stream.send(declared.variants(rows, max(1, asked.limit)))

    async def nodes(request: Request) -> None:
        asked = request.arguments(NodeList)
        await request.stream.send(await machines.nodes(time.time(), watch=asked.watch))

    async def gpus(request: Request) -> None:
        await request.stream.send(machines.gpus(whose(request.who), watch=request.arguments(NodeList).watch))

    return {
        "container.series": series,
        "function.report": report,
        "function.metrics": metrics,
        "function.info": info,
        "function.variants": variants,
        "app.report": app,
        "node.list": nodes,
        "gpu.list": gpus,
    }


def _function(request: Request) -> FunctionAsked:
    asked = request.arguments(FunctionAsked)
    if not asked.function_id and not (asked.app and asked.name):
        raise errors.InvalidError("say which function: its id, or its app and its name")
    return asked
