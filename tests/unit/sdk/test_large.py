"""Large values by file: only whole regular files count, everything else streams."""

from __future__ import annotations

import asyncio
import os

import pytest

from alight.sdk import large
from alight.wire import calling, errors, messages, payload, room


class Here:
    """A server that shares its folder with us."""

    def __init__(self, folder):
        self._place = messages.BlobPlace(str(folder), str(folder))

    async def place(self):
        return self._place


def opened(folder, name, size):
    return asyncio.run(large._open_given(Here(folder), calling.Payload(blob=name, size=size)))


@pytest.mark.parametrize("size", [1 << 10, room.LARGE + 1])
def test_a_value_is_written_whole_and_read_back_as_it_was(tmp_path, size):
    value = {"fixed": os.urandom(size), "free": bytearray(os.urandom(1 << 17))}
    parts = payload.dumps(value)
    whole = payload.size_of(parts)
    assert large._write(str(tmp_path / "x1"), parts, whole)
    found = asyncio.run(large.get_value(Here(tmp_path), calling.Payload(blob="x1", size=whole), "it"))
    assert found == value
    assert [type(one) for one in found.values()] == [bytes, bytearray]
    assert not large._write(str(tmp_path / "x1"), [b"again"], 5)  # never over another's


def test_a_file_that_becomes_shorter_is_a_loss_and_not_a_crash(tmp_path):
    (tmp_path / "x1").write_bytes(bytes(room.LARGE))
    descriptor = opened(tmp_path, "x1", room.LARGE)
    os.truncate(tmp_path / "x1", 5)
    try:
        for writable in (True, False):
            with pytest.raises(errors.DataLossError, match="ends"):
                large._read(descriptor, 0, room.LARGE, writable)
    finally:
        os.close(descriptor)


def test_what_is_not_the_file_that_was_promised_is_not_read(tmp_path):
    (tmp_path / "xshort").write_bytes(b"abc")
    (tmp_path / "xlink").symlink_to(tmp_path / "xshort")
    (tmp_path / "xfolder").mkdir()
    for name, size in (("xshort", 4), ("xlink", 3), ("xgone", 3), ("xfolder", 3), ("short", 3)):
        assert opened(tmp_path, name, size) is None, name
