"""Requests about images."""

from __future__ import annotations

import asyncio

from alight.server.request import Request, Routes
from alight.server.services.apps import Apps
from alight.server.services.images import Images
from alight.wire.built import ImageWork
from alight.wire.messages import AppEvent, ImageEnsure, ImageGet


def routes(images: Images, apps: Apps) -> Routes:
    async def ensure(request: Request) -> None:
        asked = request.arguments(ImageEnsure)
        app = apps.get(asked.app_id, request.who)

        async def tell(event: AppEvent) -> None:
            await request.stream.send(event)

        if asked.name:
            images.name_parts(asked.name)  # said before anything is built
        whose = (app.app_id, app.environment)
        build = asyncio.ensure_future(images.ensure_anywhere(asked.image, asked.python_version, whose, tell))
        gone = asyncio.ensure_future(request.stream.wait_broken())
        try:
            await asyncio.wait({build, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not build.done():
                return  # who asked has left, and a build that nobody waits for must not go on unseen
            ready = await build
            if asked.name:
                await images.give_name(ready.image_id, asked.name, app.environment)
            await request.stream.send(ready)
        finally:
            gone.cancel()
            build.cancel()
            await asyncio.gather(build, gone, return_exceptions=True)

    async def get(request: Request) -> None:
        await request.stream.send(await images.recipe(request.arguments(ImageGet).image_id))

    async def work(request: Request) -> None:
        asked = request.arguments(ImageWork)
        if asked.verb == "export":
            await images.export(asked, request.stream)
        elif asked.verb == "import":
            await request.stream.send(await images.bring(asked, request.stream))
        else:
            await request.stream.send(await images.work(asked))

    return {"image.work": work, "image.ensure": ensure, "image.get": get}
