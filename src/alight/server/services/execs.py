"""Programs that people run in running containers: relayed to the container's machine, with its function's secrets."""

from __future__ import annotations

import asyncio
import contextlib
import time

from alight.link.peer import Stream
from alight.server.services.containers import Containers, Record
from alight.server.services.nodes import Nodes
from alight.server.services.secrets import Secrets
from alight.wire import errors
from alight.wire.execs import ExecStart, NodeExec
from alight.wire.states import ContainerState

_LOOK_AGAIN = 0.25


class Execs:
    """See the module."""

    def __init__(self, containers: Containers, nodes: Nodes, secrets: Secrets) -> None:
        self._containers = containers
        self._nodes = nodes
        self._secrets = secrets

    async def run(self, asked: ExecStart, record: Record, caller: Stream) -> None:
        """Relay both ways until the program ended or its user left. Raises NotFoundError, ServiceError."""
        node = await self._open(NodeExec(asked, await self._env(record)), record, caller)
        up = asyncio.get_running_loop().create_task(_carry_up(caller, node))
        try:
            async for head, body in node:
                await caller.send_raw(head, body)
        except errors.ConnectionError as error:
            if caller.broken:
                raise
            raise errors.ServiceError(
                f"the machine of the container {record.container_id} was lost, and the program with it"
            ) from error
        finally:
            up.cancel()
            await asyncio.gather(up, return_exceptions=True)
            await node.end()

    async def _env(self, record: Record) -> dict[str, str]:
        """What the function of the container was given, by name."""
        function = self._containers.functions.by_id.get(record.function_id)
        if function is None:
            return {}
        secrets = {}
        if function.spec.secrets:
            whose = (function.app_id, function.environment)
            secrets = await self._secrets.values(function.spec.secrets, *whose, time.time())
        return {**secrets, **function.spec.env}

    async def _open(self, message: NodeExec, record: Record, caller: Stream) -> Stream:
        """The stream to the container's machine, on which the program runs. Waits for a container that starts."""
        while True:
            session = self._nodes.sessions.get(record.node_id)
            if session is None:
                raise errors.ServiceError(
                    f"the machine of the container {record.container_id} is not connected just now: try again"
                )
            node = await session.peer.open("node.exec", message)
            try:
                first = await node.recv()
            except errors.NotFoundError:
                starting = record.state == ContainerState.STARTING
                if not starting or caller.broken or record.container_id not in self._containers.alive:
                    raise
            else:
                if first is not None:
                    await caller.send_raw(*first)
                return node
            # Its image may be under way; nobody tells when its first process runs.
            await asyncio.sleep(_LOOK_AGAIN)


async def _carry_up(caller: Stream, node: Stream) -> None:
    """What the client says. When it says nothing more it is gone, and the program must not live on."""
    with contextlib.suppress(errors.Error):
        async for head, body in caller:
            await node.send_raw(head, body)
    gone = errors.ConnectionError("the client is gone")
    await node.fail(gone)
    node.on_error(gone)
