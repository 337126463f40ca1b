"""Requests about blobs: what is missing, take one or many, give one or many."""

from __future__ import annotations

import os

from alight.link.stream import decode
from alight.server.auth import NODE, OWNER
from alight.server.request import Request, Routes
from alight.server.services.blob_packs import BlobPacks
from alight.server.services.blobs import Blobs
from alight.wire import errors
from alight.wire.messages import BlobGet, BlobMissing, BlobPlace, BlobPut
from alight.wire.packs import BlobPack


def routes(blobs: Blobs) -> Routes:
    packs = BlobPacks(blobs)

    async def missing(request: Request) -> None:
        asked = request.arguments(BlobMissing)
        await request.stream.send(BlobMissing(blobs.missing(asked.digests)))

    async def put(request: Request) -> None:
        asked = request.arguments(BlobPut)
        if asked.file:
            if not _at_home(request):
                raise errors.PermissionDeniedError("only who shares the server's disk may leave files for it")
            name, size = blobs.adopt(asked.file, asked.size), asked.size
        else:
            name, size = await blobs.put(_bodies(request), asked.digest)
        if asked.keep:
            await blobs.keep(name)
        await request.stream.send(BlobPut(name, size))
        if request.who.kind == NODE:  # what machines bring are results, and those are kept; an argument soon goes
            blobs.settle(name)

    async def get(request: Request) -> None:
        async for piece in blobs.read(request.arguments(BlobGet).digest):
            await request.stream.send(None, piece)

    async def put_many(request: Request) -> None:
        async for head, body in request.stream:
            await packs.put(decode(BlobPack, head), body)
        await request.stream.send({})

    async def get_many(request: Request) -> None:
        async for pack, body in packs.get(request.arguments(BlobMissing).digests):
            await request.stream.send(pack, body)

    async def place(request: Request) -> None:
        here = BlobPlace(str(blobs.incoming), str(blobs.given)) if _at_home(request) else BlobPlace()
        await request.stream.send(here)

    return {
        "blob.missing": missing,
        "blob.put": put,
        "blob.get": get,
        "blob.put_many": put_many,
        "blob.get_many": get_many,
        "blob.place": place,
    }


def _at_home(request: Request) -> bool:
    """Whether the kernel says that this is the server's own user or root, on this machine, and no container."""
    return request.peer.uid in {0, os.getuid()} and request.who.kind in {OWNER, NODE}


async def _bodies(request: Request):  # type: ignore[no-untyped-def]  # noqa: ANN202  an async generator of messages
    """The body that came with the request, then those that follow."""
    if request.stream.opened_body:
        yield b"", request.stream.opened_body
    async for message in request.stream:
        yield message
