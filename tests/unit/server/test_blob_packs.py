"""Small blobs by the thousand: kept under their digests and nothing else, and given back."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from alight.server.services.blob_packs import BlobPacks
from alight.server.services.blobs import Blobs
from alight.wire import errors
from alight.wire.packs import PACKED_MOST, Packing, contents


def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def blobs(tmp_path):
    made = Blobs(tmp_path / "blobs")
    made.open()
    return made


def packed(*some):
    packing = Packing()
    for name, content in some:
        packing.add(name, content)
    return packing.take()


def put(blobs, *some):
    asyncio.run(BlobPacks(blobs).put(*packed(*some)))


def get(blobs, digests):
    async def all_of_them():
        packs = BlobPacks(blobs).get(digests)
        return [(name, bytes(content)) async for pack, body in packs for name, content in contents(pack, body)]

    return asyncio.run(all_of_them())


def test_many_go_in_and_come_out(blobs):
    some = {digest(str(n).encode()): str(n).encode() for n in range(2500)}
    items = list(some.items())
    for start in range(0, 2500, 900):
        put(blobs, *items[start : start + 900])
    assert blobs.missing(some) == ()
    assert get(blobs, list(some)) == items
    assert not list(blobs.incoming.iterdir())


def test_what_is_not_what_its_digest_says_is_not_kept(blobs):
    good, bad = digest(b"good"), digest(b"bad")
    with pytest.raises(errors.DataLossError, match="did not arrive"):
        put(blobs, (good, b"good"), (bad, b"worse"))
    assert blobs.missing([good, bad]) == (bad,)
    assert not list(blobs.incoming.iterdir())


def test_names_that_are_no_digests_lead_nowhere(blobs):
    for name in ("../../etc/passwd", "x" + "0" * 63, ""):
        with pytest.raises(errors.Error):
            put(blobs, (name, b""))
        with pytest.raises(errors.Error):
            get(blobs, [name])


def test_what_is_missing_or_large_is_said(blobs):
    with pytest.raises(errors.NotFoundError):
        get(blobs, [digest(b"no")])
    large = b"x" * (PACKED_MOST + 1)
    path = blobs.path(digest(large))
    path.parent.mkdir()
    path.write_bytes(large)
    with pytest.raises(errors.RequestSizeError):
        get(blobs, [digest(large)])
