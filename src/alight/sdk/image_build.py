"""Asking for an image, and following how it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Set, Tuple

from alight.sdk import progress
from alight.sdk.client import Client
from alight.sdk.lost import LostError
from alight.wire import errors, messages
from alight.wire.codec import loads_head
from alight.wire.record import dataclass
from alight.wire.spec import ImageSpec

if TYPE_CHECKING:
    from alight.sdk.conversation import Stream


@dataclass(frozen=True)
class _BuildMessage:
    """Any message of an image.ensure stream: AppEvents ("build", "system") and, last, ImageReady."""

    kind: str = ""
    image_id: str = ""
    text: str = ""
    state: str = ""
    built: bool = False
    seconds: float = 0.0


def ensure(app_id: str, image: ImageSpec, python_version: str, name: str = "") -> messages.ImageEnsure:
    """The request for an image, which gets this name."""
    found: List[Any] = [secret for step in image.steps for secret in step.get("secrets", ())]
    secrets: Tuple[str, ...] = tuple(dict.fromkeys(found))
    return messages.ImageEnsure(app_id=app_id, image=image, secrets=secrets, python_version=python_version, name=name)


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
