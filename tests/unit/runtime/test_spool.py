"""Large values inside a container: they come out of their file as what they were, or not at all."""

from __future__ import annotations

import os

import pytest

from alight.runtime import spool
from alight.wire import chunk, errors, payload, room


@pytest.mark.parametrize("size", [1 << 17, room.LARGE + 3])
def test_what_was_written_is_read(tmp_path, size):
    value = os.urandom(size), bytearray(os.urandom(size))
    reference = spool.write(str(tmp_path), "one", payload.dumps(value), "f")
    found = spool.loads(str(tmp_path), reference, "the argument")
    assert found == value
    assert [type(one) for one in found] == [bytes, bytearray]


def test_a_file_that_is_shorter_than_its_reference_says_so(tmp_path):
    parts = payload.dumps(bytes(room.LARGE))
    name, size = chunk.read_reference(spool.write(str(tmp_path), "one", parts, "f"))
    os.truncate(tmp_path / name, size - 1)
    with pytest.raises(errors.DataLossError, match="ends"):
        spool.loads(str(tmp_path), chunk.reference(name, size), "the argument")


def test_a_full_disk_leaves_no_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(errors.RemoteError, match=r"f\(\).*No space left"):
        spool.write(str(tmp_path), "one", [b"value"], "f")
    assert not list(tmp_path.iterdir())
