"""``Image.build()``: an image made now, and not when an app runs."""

from __future__ import annotations

from typing import Any, Optional

from alight.sdk import image_build
from alight.sdk.client import Client, default_client
from alight.sdk.image import Image
from alight.sdk.object import environment_or_default
from alight.sdk.resolve import Resolver
from alight.sdk.run import Plan, Run
from alight.wire import errors


async def build(image: Image, app: Any, *, name: str = "", environment: Optional[str] = None) -> None:
    """``Image.build()``: make the image for ``app``, which runs; None: for an app that ends with the build.

    With a ``name`` it has that from then on, in the app's environment.
    """
    if app is not None:
        if app.app_id is None:
            raise errors.InvalidError(
                "Image.build(app) needs an app that runs", hint="within `with app.run():`, or without an app"
            )
        client = app._running.client if app._running else default_client()  # noqa: SLF001  of this package
        await _build_for(image, client, app.app_id, name)
        return
    plan = Plan(default_client(), description="image build", environment=environment_or_default(environment))
    run = Run(plan, {})
    running = await run.begin()
    try:
        await _build_for(image, plan.client, running.app_id, name)
    except BaseException as error:
        await run.end(error)
        raise
    await run.end(None)


async def _build_for(image: Image, client: Client, app_id: str, name: str) -> None:
    resolver = Resolver(client, app_id)
    spec = await resolver.image(image)
    await resolver.upload()
    message = image_build.ensure(app_id, spec, resolver.minor, name)
    stream = await client.open("image.ensure", message)
    try:
        ready = await image_build.follow(client, message, stream, set())
    finally:
        stream.leave()
    image._object_id = ready.image_id  # noqa: SLF001  of this package
