"""What the owner of a server says about its GPUs."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.nodes import Nodes
from alight.wire import errors
from alight.wire.commands import Command
from alight.wire.gpus import GpuRestore


def routes(nodes: Nodes) -> Routes:
    async def restore(request: Request) -> None:
        wanted = request.arguments(GpuRestore).uuid
        found = [
            (session, gpu)
            for session in nodes.sessions.values()
            for gpu in session.hello.gpus
            if wanted and gpu.uuid.startswith(wanted)
        ]
        exact = [one for one in found if one[1].uuid == wanted] or found
        if len(exact) != 1:
            what = f"{len(found)} GPUs begin with" if found else "no machine that is connected has a GPU"
            raise errors.NotFoundError(f"{what} {wanted!r}", hint="`alight gpu list` shows their uuids")
        session, gpu = exact[0]
        if not gpu.fault:
            raise errors.ConflictError(f"{gpu.name} of {session.hello.hostname} is in service")
        session.send(Command("gpu", gpu=gpu.uuid))
        await request.stream.send({})

    return {"gpu.restore": restore}
