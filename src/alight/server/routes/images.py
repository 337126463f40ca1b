"""Requests about images."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.apps import Apps
from alight.server.services.images import Images
from alight.wire.messages import AppEvent, ImageEnsure


def routes(images: Images, apps: Apps) -> Routes:
    async def ensure(request: Request) -> None:
        asked = request.arguments(ImageEnsure)
        app = apps.get(asked.app_id, request.who)

        async def tell(event: AppEvent) -> None:
            await request.stream.send(event)

        whose = (app.app_id, app.environment)
        await request.stream.send(await images.ensure_anywhere(asked.image, asked.python_version, whose, tell))

    return {"image.ensure": ensure}
