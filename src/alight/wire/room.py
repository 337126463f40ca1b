"""Memory for large values, in large pages where the system has them.

Taking 100 MB page by page costs more than filling it: 46 ms instead of 26 for bytes that are read from a file. In a
virtual machine the host may have to bring each page, which takes ten times as long: two threads halve that.
"""

from __future__ import annotations

import mmap
import os
import sys

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, List

    Fill = Callable[[int, memoryview], Any]

#: From here on asking for large pages is worth what it takes (for bytes the import of ctypes, once).
LARGE = 8 << 20
#: From here on two threads fill it, if the second has a processor to run on.
_SHARED = 32 << 20


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


def new_bytes(size: int, fill: Fill) -> bytes:
    """Bytes that ``fill(offset, view)`` writes from their ``offset`` on, perhaps one part in another thread.

    The views are valid only while it runs. What it raises, this raises. For less than ``LARGE`` it costs a copy:
    whoever can get such bytes otherwise should.
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
    memory: Any = (ctypes.c_char * size).from_address(address)
    memory.owner = data  # a view that outlives this, in a traceback, must not lead to memory that is gone
    with memoryview(memory).cast("B") as view:
        fill_in(view, fill)
    return data


def fill_in(view: memoryview, fill: Fill) -> None:
    """Have all of a view filled, by two threads where that is quicker. Both have ended when this does."""
    half = view.nbytes // 2 // mmap.PAGESIZE * mmap.PAGESIZE
    if view.nbytes < _SHARED or (os.cpu_count() or 1) < 2:
        fill(0, view)
        return
    import threading  # noqa: PLC0415  only large values pay for it

    problems: List[BaseException] = []

    def other() -> None:
        try:
            with view[half:] as part:
                fill(half, part)
        except BaseException as error:  # noqa: BLE001  raised below, where somebody waits for it
            problems.append(error)

    thread = threading.Thread(target=other, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # no more threads may be started here
        fill(0, view)
        return
    try:
        with view[:half] as part:
            fill(0, part)
    finally:
        _wait_for(thread)
    if problems:
        raise problems[0]


def _wait_for(thread: Any) -> None:
    """Return when a thread has ended, and not before: it writes to memory that goes when we do."""
    interrupted = None
    while thread.is_alive():
        try:
            thread.join()
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def _copied(size: int, fill: Fill) -> bytes:
    room = bytearray(size)
    fill(0, memoryview(room))
    return bytes(room)
