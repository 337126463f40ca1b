"""Requests about blobs: what is missing, take one, give one."""

from __future__ import annotations

from alight.server.request import Request, Routes
from alight.server.services.blobs import Blobs
from alight.wire.messages import BlobGet, BlobMissing, BlobPut


def routes(blobs: Blobs) -> Routes:
    async def missing(request: Request) -> None:
        asked = request.arguments(BlobMissing)
        await request.stream.send(BlobMissing(blobs.missing(asked.digests)))

    async def put(request: Request) -> None:
        asked = request.arguments(BlobPut)
        digest, size = await blobs.put(_bodies(request), asked.digest)
        await request.stream.send(BlobPut(digest, size))

    async def get(request: Request) -> None:
        async for piece in blobs.read(request.arguments(BlobGet).digest):
            await request.stream.send(None, piece)

    return {"blob.missing": missing, "blob.put": put, "blob.get": get}


async def _bodies(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN202  an async generator of messages
    """The body that came with the request, then those that follow."""
    if request.stream.opened_body:
        yield b"", request.stream.opened_body
    async for message in request.stream:
        yield message
