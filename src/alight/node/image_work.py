"""Answers about the images of this machine, and clears up among them."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Collection

from alight.builder import Inventory
from alight.link.peer import Stream
from alight.wire import errors
from alight.wire.built import ImageWork, ImageWorked, Installed
from alight.wire.record import replace

#: An image that was used this many seconds ago may have a container on its way to the disk.
_JUST_USED = 10.0


async def serve(stream: Stream, inventory: Inventory, running: Collection[str]) -> None:
    """Answer ``node.images``. ``running``: digests of images that containers use."""
    asked = stream.arguments(ImageWork)
    answer = await asyncio.to_thread(_answer, asked, inventory, frozenset(running))
    named = tuple(replace(one, node=socket.gethostname()) for one in answer.images)
    await stream.send(replace(answer, images=named))


def _answer(asked: ImageWork, inventory: Inventory, running: frozenset[str]) -> ImageWorked:
    needed = running | frozenset(asked.keep)
    if asked.verb == "list":
        return ImageWorked(tuple(replace(one, layers=()) for one in inventory.look(needed)))
    if asked.verb == "prune":
        recent = {one.digest for one in inventory.look() if one.used_at > time.time() - _JUST_USED}
        gone, freed = inventory.clear(
            needed=needed | recent, older_than=asked.older_than, most_bytes=asked.most_bytes, dry_run=asked.dry_run
        )
        if asked.caches and not asked.dry_run:
            freed += inventory.clear_caches()
        return ImageWorked(tuple(replace(one, layers=()) for one in gone), freed=freed)
    image = inventory.find(asked.image, needed)
    if asked.verb == "show":
        return ImageWorked((image,), installed=(Installed(dict(inventory.installed(image))),))
    if asked.verb == "log":
        return ImageWorked((replace(image, layers=()),), tuple(inventory.log(image)))
    if asked.verb == "remove":
        if image.in_use or image.used_at > time.time() - _JUST_USED:
            raise errors.ConflictError(
                f"the image {image.digest[:12]} is in use", hint="stop its apps first: `alight app list` shows them"
            )
        _, freed = inventory.clear(needed=needed, named=(image.digest,))
        return ImageWorked((replace(image, layers=()),), freed=freed)
    raise errors.UnimplementedError(f"this node does not know what {asked.verb!r} does to images")
