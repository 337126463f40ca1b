"""Having an image made, and following it: for apps that run, and for ``Image.build()``."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, List, Set, Tuple

from alight.sdk import progress
from alight.sdk.client import Client, default_client
from alight.sdk.lost import LostError
from alight.sdk.resolve import Resolver
from alight.wire import errors, messages
from alight.wire.codec import loads_head
from alight.wire.record import dataclass
from alight.wire.spec import ImageSpec

if TYPE_CHECKING:
    from alight.sdk.carrier import Stream
    from alight.sdk.image import Image


@dataclass(frozen=True)
class _BuildMessage:
    """Any message of an image.ensure stream: AppEvents ("build", "system") and, last, ImageReady."""

    kind: str = ""
    image_id: str = ""
    text: str = ""
    state: str = ""
    built: bool = False
    seconds: float = 0.0


async def build(image: Image, app: Any) -> None:
    """Make the image for ``app``, which runs; None: for an app of its own that ends with the build."""
    from alight.sdk.app import App  # noqa: PLC0415  apps need images

    if app is not None:
        if app.app_id is None:
            raise errors.InvalidError(
                "Image.build(app) needs an app that runs", hint="within `with app.run():`, or without an app"
            )
        await _build(image, app._running.client if app._running else default_client(), app.app_id)  # noqa: SLF001
        return
    own = App("image-build")
    async with contextlib.asynccontextmanager(own.run.raw)():
        assert own.app_id is not None
        await _build(image, default_client(), own.app_id)


async def _build(image: Image, client: Client, app_id: str) -> None:
    resolver = Resolver(client, app_id)
    spec = await resolver.image(image)
    await resolver.upload()
    message = ensure(app_id, spec, resolver.minor)
    stream = await client.open("image.ensure", message)
    try:
        ready = await follow(client, message, stream, set())
        image._object_id = ready.image_id  # noqa: SLF001  of this family
    finally:
        stream.leave()


def ensure(app_id: str, image: ImageSpec, python_version: str) -> messages.ImageEnsure:
    """The request for an image."""
    found: List[Any] = [secret for step in image.steps for secret in step.get("secrets", ())]
    secrets: Tuple[str, ...] = tuple(dict.fromkeys(found))
    return messages.ImageEnsure(app_id=app_id, image=image, secrets=secrets, python_version=python_version)


async def follow(client: Client, message: messages.ImageEnsure, stream: Stream, said: Set[str]) -> messages.ImageReady:
    """Show a build until it ends, over lost connections, too. ``said``: warnings that were shown already."""
    ready = None
    while True:
        try:
            answer = await stream.recv()
        except LostError as lost:
            await client.after_loss(lost)
            stream = await client.open("image.ensure", message)
            continue
        if answer is None:
            break
        event = loads_head(_BuildMessage, answer[0])
        if event.kind == "build":
            if event.text:
                progress.current().build_line(event.image_id, (event.text + "\n").encode())
        elif event.kind == "system":
            if event.text not in said:  # once, however many images there are
                said.add(event.text)
                progress.current().warn(event.text)
        elif event.image_id:
            ready = messages.ImageReady(event.image_id, event.built, event.seconds)
    if ready is None:
        raise errors.InternalError("the server ended a build without an image")
    if ready.built:
        progress.current().done(f"Built the image in {ready.seconds:.1f} s")
    return ready
