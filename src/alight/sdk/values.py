"""Arguments to bytes and bytes to values: the quick way for what is small and plain, ``wire.payload`` for the rest.

Both forms are payload's own (one part: count 1, its length, the pickle stream); a map makes and reads one for each
input, and this is most of what an input costs its caller.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence, Tuple

from alight.wire import errors, payload

if TYPE_CHECKING:
    import pickle

    from alight.sdk.callee import Callee
    from alight.wire.codec import Buffer
else:
    import _pickle as pickle  # the C half is all that is used here

_ONE = struct.Struct("!IQ")
_ONE_PART = b"\0\0\0\1"
_START = _ONE.size
_SMALL = 1 << 16
_BYTES = (bytes, bytearray)


def quick(args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Optional[bytes]:
    """The payload of (args, kwargs), or None when it takes ``payload.dumps``: large, or not for the C pickler."""
    for one in (*args, *kwargs.values()) if kwargs else args:
        if type(one) in _BYTES and len(one) > _SMALL:
            return None  # pickling would copy it, only to be thrown away
    buffers: List[Any] = []
    try:
        stream = pickle.dumps((args, kwargs), 5, buffer_callback=buffers.append)
    except Exception:  # noqa: BLE001  a __reduce__ may raise anything: the long way tries next and reports
        return None
    if buffers or len(stream) > _SMALL or b"__main__" in stream:
        return None
    return _ONE.pack(1, len(stream)) + stream


def of_arguments(callee: Callee, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> List[Any]:
    """The parts of (args, kwargs). An argument that cannot be pickled is named."""
    try:
        return payload.dumps((args, kwargs), f"the arguments of {callee.name}()")
    except errors.SerializationError as whole:
        for name, value in _named(callee.raw, args, kwargs):
            try:
                payload.dumps(value, f"the argument {name} of {callee.name}()")
            except errors.SerializationError as one:
                raise one from whole.__cause__
        raise


def value(data: Buffer, what: str) -> Any:
    """One value. What lies beside the pickle stream (arrays) arrives writable. Raises DeserializationError."""
    if bytes(data[:4]) == _ONE_PART:
        try:
            return pickle.loads(memoryview(data)[_START:])
        except Exception:  # noqa: BLE001, S110  the long way says what is wrong with it
            pass
    elif isinstance(data, bytes) or (isinstance(data, memoryview) and data.readonly):
        data = bytearray(data)
    return payload.loads(data, what)


def all_of(
    sizes: Sequence[int], body: bytes, what: str, out: List[Any], failed: Callable[[errors.Error], bool]
) -> None:
    """Append the values of a chunk to ``out``. One that cannot be read goes to ``failed``, which says whether to go
    on after it.
    """
    before, at, loads = len(out), 0, pickle.loads
    try:
        for size in sizes:
            if body[at : at + 4] != _ONE_PART:
                break
            out.append(loads(body[at + _START : at + size]))
            at += size
        else:
            return
    except Exception:  # noqa: BLE001, S110  unpickling runs the value's own code: the slow way says which and why
        pass
    for size in sizes[len(out) - before :]:
        try:
            found = value(body[at : at + size], what)
        except errors.Error as error:
            if not failed(error):
                return
        else:
            out.append(found)
        at += size


def _named(raw: Optional[Callable[..., Any]], args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> List[Tuple[str, Any]]:
    names: List[str] = []
    if raw is not None:
        try:
            import inspect  # noqa: PLC0415  paid by failures only

            names = [repr(name) for name in inspect.signature(raw).parameters]
        except (TypeError, ValueError):
            names = []
    positional = [(names[index] if index < len(names) else f"{index + 1}", value) for index, value in enumerate(args)]
    return positional + [(repr(name), value) for name, value in kwargs.items()]
