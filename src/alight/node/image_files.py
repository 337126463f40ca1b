"""Images that leave this machine or come to it, over a stream of the server: a manifest, then the layers' files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from alight.builder import Builder
from alight.builder.portable import MOST_BYTES
from alight.link.peer import Stream
from alight.wire import errors
from alight.wire.built import BuiltImageInfo, ImageWork, ImageWorked
from alight.wire.codec import PIECE
from alight.wire.spec import ImageSpec


async def send(stream: Stream, builder: Builder, asked: ImageWork) -> None:
    """Answer "export"."""
    image = await asyncio.to_thread(builder.inventory.find, asked.image)
    with builder.exchange.packing(image.digest) as packing:
        packed = await asyncio.to_thread(packing.make)
        await stream.send(ImageWorked((image,)), packed.manifest)
        for path in packed.files:
            with path.open("rb") as file:
                while piece := await asyncio.to_thread(file.read, PIECE):
                    await stream.send(None, piece)


async def missing(stream: Stream, builder: Builder, asked: ImageWork) -> None:
    """Answer "missing"."""
    await stream.send(ImageWorked(log=await asyncio.to_thread(builder.exchange.missing, asked.layers)))


async def receive(
    stream: Stream, builder: Builder, asked: ImageWork, kept: Callable[[ImageSpec, str], BuiltImageInfo]
) -> None:
    """Answer "import". ``kept`` is told the recipe that the image has now, and its id."""
    pieces = _Pieces(stream)
    with builder.exchange.taking(asked.image, await pieces.whole()) as taking:
        coming = set(asked.layers)
        for layer in taking.manifest.layers:
            if layer.content in coming:
                coming.discard(layer.content)
                with taking.arriving() as arriving:
                    await pieces.into(arriving.file, layer.size)
                    await asyncio.to_thread(taking.lay_out, layer, arriving)
        spec = await asyncio.to_thread(taking.finish)
        info = await asyncio.to_thread(kept, spec, asked.image_id)
    await stream.send(ImageWorked((info,)))


class _Pieces:
    """The bodies of a stream, cut where the files in them end."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._left = memoryview(b"")

    async def whole(self) -> bytes:
        """The next body as it came."""
        message = await self._stream.recv()
        if message is None or len(message[1]) > MOST_BYTES:
            raise errors.InvalidError("an image begins with its manifest")
        return bytes(message[1])

    async def into(self, path: Path, size: int) -> None:
        """Write the next ``size`` bytes to a file. Raises InvalidError when fewer come."""
        with path.open("wb") as file:
            while size:
                if not self._left:
                    message = await self._stream.recv()
                    if message is None:
                        raise errors.InvalidError("the files of an image ended too early")
                    self._left = memoryview(message[1])
                piece, self._left = self._left[:size], self._left[size:]
                size -= len(piece)
                await asyncio.to_thread(file.write, piece)
