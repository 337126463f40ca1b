"""Large results leave memory once they are on disk and somebody has read them, and not before."""

from __future__ import annotations

import asyncio
import ctypes
import mmap
import os
import time

import pytest

from alight.server.services.blobs import Blobs
from alight.server.services.writeback import Writeback
from alight.wire import errors

SIZE = 4 << 20


def in_memory(path) -> int:
    """How many of its pages the kernel keeps."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as mapped:
        whole = (ctypes.c_char * SIZE).from_buffer(mapped)
        found = (ctypes.c_ubyte * (SIZE // mmap.PAGESIZE))()
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mincore(ctypes.c_void_p(ctypes.addressof(whole)), ctypes.c_size_t(SIZE), found) == 0
        del whole
        return sum(page & 1 for page in found)


def until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def folder(disk_path):
    """Skips where files are always memory, or reading leaves no trace."""
    probe = disk_path / "probe"
    probe.write_bytes(bytes(SIZE))
    with probe.open("rb") as file:
        os.fdatasync(file.fileno())
        file.read()
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(probe) or probe.stat().st_atime_ns <= probe.stat().st_mtime_ns:
        pytest.skip("this file system keeps all in memory, or does not note when files are read")
    return disk_path


def test_a_result_stays_in_memory_until_it_has_been_read(folder):
    writeback = Writeback()
    result, second = folder / "result", folder / "second"
    for path in (result, second):
        path.write_bytes(os.urandom(SIZE))
        writeback.add(path)
    content = second.read_bytes()
    until(lambda: not in_memory(second), "what was read is still in memory")
    assert in_memory(result) == SIZE // mmap.PAGESIZE
    result.read_bytes()
    until(lambda: not in_memory(result), "what was read later is still in memory")
    assert second.read_bytes() == content


def test_files_that_go_or_lead_elsewhere_do_not_end_it(folder):
    writeback = Writeback()
    (folder / "link").symlink_to(folder / "probe")
    writeback.add(folder / "gone")
    writeback.add(folder / "link")
    path = folder / "result"
    path.write_bytes(os.urandom(SIZE))
    path.read_bytes()
    writeback.add(path)
    until(lambda: not in_memory(path), "it does not go on after a file that is gone")


def test_what_is_kept_is_on_disk_at_once(folder):
    blobs = Blobs(folder / "blobs")
    blobs.open()

    async def pieces():
        yield b"", os.urandom(SIZE)

    async def put():
        name, _ = await blobs.put(pieces())
        await blobs.keep(name)
        return blobs.path(name)

    path = asyncio.run(put())
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # leaves what is not on disk
    assert not in_memory(path)


def test_what_cannot_be_kept_is_an_error(folder):
    blobs = Blobs(folder / "blobs")
    blobs.open()
    with pytest.raises(errors.ServiceError, match="cannot be written"):
        asyncio.run(blobs.keep("x" + "0" * 64))
