"""What dicts and queues have in common: requests about their names."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.shared_names import SharedNames
from alight.wire.shared import SharedEnsure, SharedList, SharedNamed


def routes(names: SharedNames) -> Routes:
    async def ensure(request: Request) -> None:
        asked = request.arguments(SharedEnsure)
        environment = request.environment(asked.environment)
        await request.stream.send(await names.ensure(asked, environment, request.who.owner))

    async def list_named(request: Request) -> None:
        asked = request.arguments(SharedList)
        await request.stream.send(await names.list(request.environment(asked.environment), asked.limit))

    async def find(request: Request) -> None:
        asked = request.arguments(SharedNamed)
        found = await names.named(asked, request.environment(asked.environment))
        if found is not None:
            names.check_environment(found, request.who)
        await request.stream.send(found if found is not None else {})

    async def delete(request: Request) -> None:
        asked = request.arguments(SharedNamed)
        found = await names.named(asked, request.environment(asked.environment))
        if found is not None:
            names.check_environment(found, request.who)
            await names.delete(found.object_id)
        await request.stream.send({})

    kind = names.kind
    return {f"{kind}.ensure": ensure, f"{kind}.list": list_named, f"{kind}.find": find, f"{kind}.delete": delete}
