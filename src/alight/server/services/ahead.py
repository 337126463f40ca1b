"""Tells machines of deployed functions before anybody calls them, so that a template is there for the first start.

It is advice: a machine makes templates when nothing starts, as far as its memory for them goes, and says nothing back.
"""

from __future__ import annotations

import asyncio
import logging
import time

from alight.server.services.apps import Apps
from alight.server.services.functions import Functions
from alight.server.services.images import Images
from alight.server.services.node_session import Session
from alight.server.services.nodes import Nodes
from alight.server.services.published import Published
from alight.server.services.secrets import Secrets
from alight.wire import errors
from alight.wire.commands import Command, StartContainer

log = logging.getLogger(__name__)


class Ahead:
    """``look`` is called whenever a deployed app or a machine has changed."""

    def __init__(self, apps: Apps, functions: Functions, images: Images, secrets: Secrets, nodes: Nodes) -> None:
        self._apps = apps
        self._functions = functions
        self._images = images
        self._secrets = secrets
        self._nodes = nodes
        self._told: dict[str, tuple[Session, set[tuple[str, int]]]] = {}  # by machine: functions and their versions
        self._again = False
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Tell each machine what it was not told yet; a moment later."""
        self._again = True
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())

    def close(self) -> None:
        """The server leaves."""
        if self._task is not None:
            self._task.cancel()

    async def _look(self) -> None:
        try:
            while self._again:
                self._again = False
                for node_id, session in list(self._nodes.sessions.items()):
                    await self._tell(node_id, session)
        finally:
            self._task = None

    async def _tell(self, node_id: str, session: Session) -> None:
        known, told = self._told.get(node_id, (None, set()))
        if known is not session:  # a new agent has no templates
            told = set()
        deployed = [one for one in self._functions.by_id.values() if one.kept and not one.spec.resources.gpus]
        self._told[node_id] = session, told & {(one.function_id, one.version) for one in deployed}
        for function in deployed:
            key = (function.function_id, function.version)
            if key in told:
                continue
            try:
                start = await self._start(node_id, function)
            except errors.Error as error:
                log.info("no template of %s ahead of its calls: %s", function.spec.name, error)
                continue
            if start is not None:
                self._told[node_id][1].add(key)
                session.send(Command("template", start=start))

    async def _start(self, node_id: str, function: Published) -> StartContainer | None:
        """What the first container would be started with; None where the machine would have to build its image,
        and for functions with buckets, which have no templates."""
        spec, app = function.spec, self._apps.alive.get(function.app_id)
        image_id = await self._images.image_id(spec.image, spec.python_version)
        if app is None or spec.buckets or not self._images.is_built(node_id, image_id):
            return None
        secrets = {}
        if spec.secrets:
            secrets = await self._secrets.values(spec.secrets, function.app_id, function.environment, time.time())
        return StartContainer(
            "",
            function.app_id,
            app.name or app.description,
            function.environment,
            function.function_id,
            spec,
            image_id,
            secrets=secrets,
            owner=function.owner,
        )
