"""Memory for large values, in large pages where the system has them.

Taking 100 MB page by page costs more than filling it: 46 ms instead of 26 for bytes that are read from a file.
"""

from __future__ import annotations

import mmap
import sys

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable

#: From here on asking for large pages is worth what it takes (for bytes the import of ctypes, once).
LARGE = 8 << 20


def writable(size: int) -> memoryview:
    """Zeros that nobody else sees. They go when the last view of them does."""
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(bytearray(size))
    room = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        room.madvise(mmap.MADV_HUGEPAGE)
    except OSError:
        pass  # this kernel was built without: ordinary pages do
    return memoryview(room)


def new_bytes(size: int, fill: Callable[[memoryview], Any]) -> bytes:
    """Bytes that ``fill`` writes, through a view that is valid only while it runs. What it raises, this raises.

    For less than ``LARGE`` it costs a copy: whoever can get such bytes otherwise should.
    """
    if size < LARGE or not hasattr(mmap, "MADV_HUGEPAGE") or sys.implementation.name != "cpython":
        return _copied(size, fill)
    try:
        import ctypes  # noqa: PLC0415  only large values pay for it

        madvise = ctypes.CDLL(None).madvise
    except (ImportError, OSError, AttributeError):  # a Python that was built without
        return _copied(size, fill)
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_ssize_t)(
        ("PyBytes_FromStringAndSize", ctypes.pythonapi)
    )
    where = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object)(("PyBytes_AsString", ctypes.pythonapi))
    # Bytes are made without content and written before anybody else has them, as C code does it.
    data: bytes = new(None, size)
    address: int = where(data)
    start = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
    length = (address + size - start) // mmap.PAGESIZE * mmap.PAGESIZE
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    madvise(start, length, mmap.MADV_HUGEPAGE)  # a kernel that refuses gives ordinary pages
    view = memoryview((ctypes.c_char * size).from_address(address)).cast("B")
    try:
        fill(view)
    finally:
        view.release()
    return data


def _copied(size: int, fill: Callable[[memoryview], Any]) -> bytes:
    room = bytearray(size)
    fill(memoryview(room))
    return bytes(room)
