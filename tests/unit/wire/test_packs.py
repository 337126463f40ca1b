"""Many small blobs in one message: they come out as they went in, and a head that lies is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alight.wire.errors import InvalidError
from alight.wire.packs import PACKED_MOST, TOGETHER, BlobPack, Packing, contents


@given(st.lists(st.tuples(st.text("abcdef", min_size=1, max_size=6), st.binary(max_size=40)), max_size=30))
def test_what_was_packed_comes_out_in_order(things):
    packing = Packing()
    for digest, content in things:
        packing.add(digest, content)
    pack, body = packing.take()
    assert [(digest, bytes(content)) for digest, content in contents(pack, body)] == things
    assert not packing


def test_a_pack_is_full_before_it_is_too_large():
    packing = Packing()
    while not packing.is_full:
        packing.add("a", b"x" * PACKED_MOST)
    assert len(packing.take()[1]) <= 1 << 20
    for _ in range(TOGETHER):
        packing.add("a", b"")
    assert packing.is_full


@pytest.mark.parametrize(
    "pack", [BlobPack(("a",), (3,)), BlobPack(("a", "b"), (2,)), BlobPack(("a", "b"), (3, -1)), BlobPack()]
)
def test_a_head_that_does_not_fit_is_refused(pack):
    with pytest.raises(InvalidError, match="does not hold what its head says"):
        list(contents(pack, b"xy"))
