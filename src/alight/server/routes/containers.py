"""Requests about containers: which there are, where a start went, ending one."""

from __future__ import annotations

from alight.scheduler.events import StopAsked
from alight.server.auth import OWNER, Principal
from alight.server.events import Inbox
from alight.server.request import Request, Routes
from alight.server.services.container_views import ContainerViews
from alight.server.services.containers import Containers
from alight.server.services.nodes import Nodes
from alight.store.base import Row
from alight.wire import errors
from alight.wire.starts import AppStats, ContainerList, ContainerShow, ContainerStop
from alight.wire.states import ContainerState

_LEAVING = 10.0  # seconds beyond its grace in which a container is gone
_WHY = "somebody stopped it (`alight container stop`)"


def routes(views: ContainerViews, containers: Containers, nodes: Nodes, inbox: Inbox) -> Routes:
    async def list_containers(request: Request) -> None:
        await request.stream.send(await views.listed(request.arguments(ContainerList), whose(request.who)))

    async def show(request: Request) -> None:
        row = await views.row(request.arguments(ContainerShow).container_id)
        check(request.who, row)
        await request.stream.send(views.show(row))

    async def stop(request: Request) -> None:
        asked = request.arguments(ContainerStop)
        row = await views.row(asked.container_id)
        check(request.who, row)
        if row["state"] != ContainerState.ENDED and asked.container_id in containers.alive:
            if row["node_id"] not in nodes.sessions:
                raise errors.ServiceError(
                    f"the machine of {asked.container_id} ({row['hostname'] or row['node_id']}) is not connected",
                    hint="it can be stopped when the machine is back; `alight server status` shows the machines",
                )
            inbox.put(StopAsked(asked.container_id, _WHY, max(0.0, asked.grace)))
            await containers.wait_ended(asked.container_id, max(0.0, asked.grace) + _LEAVING)
        await request.stream.send({})

    async def stats(request: Request) -> None:
        await request.stream.send(await views.stats(request.arguments(AppStats), whose(request.who)))

    return {"container.list": list_containers, "container.show": show, "container.stop": stop, "app.stats": stats}


def whose(who: Principal) -> str:
    """Whose containers somebody sees; "" is everybody's."""
    return "" if who.kind == OWNER else who.owner


def check(who: Principal, row: Row) -> None:
    """Users see and stop their own containers. Raises PermissionDeniedError."""
    if who.kind != OWNER and who.owner != row["owner"]:
        raise errors.PermissionDeniedError("this container belongs to somebody else")
