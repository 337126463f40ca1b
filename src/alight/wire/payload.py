"""User values to bytes and back: pickle protocol 5 with its buffers out of band.

Layout: ``count`` of parts, the length of each, then the parts: first the pickle stream, then each buffer. The top bit
of a buffer's length says that nobody may write to it, as is true of bytes. A value of plain data is pickled by the C
pickler; only what that refuses (lambdas, classes of ``__main__``, closures) loads cloudpickle, so a container or a
client that never needs it never pays its import.

Used by callers and containers alone. Server and node carry these bytes and never look inside.
"""

from __future__ import annotations

import struct

from alight.wire.errors import DeserializationError, SerializationError

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    import pickle
    from typing import Any, Callable, List, Optional, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]
else:
    import _pickle as pickle  # the C half is all that is used here; the other half imports re and more

    Buffer = object

_COUNT = struct.Struct("!I")
_LENGTH = struct.Struct("!Q")
_BYTES = (bytes, bytearray)
_COPIED = 1 << 16  # up to here one piece is worth a copy
_READ_ONLY = 1 << 63
_FIRST = 1 << 12  # so much of a file is looked at for its table of parts


class Encoded:
    """Bytes that are a payload already, for who agreed on another form with the reader."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> Any:
        raise TypeError("it is encoded already")


def dumps(value: Any, what: str = "value", *, by_value: bool = False) -> List[Buffer]:
    """The parts of ``value``, to be written one after the other. Large arrays are views, not copies.

    ``what`` names the value in the error ("the argument x of f"). ``by_value`` pickles functions and classes by value
    even when they could be imported (serialized functions). Raises SerializationError.
    """
    buffers: List[pickle.PickleBuffer] = []
    stream = None if by_value else _fast(value, buffers)
    if stream is None:
        if type(value) is Encoded:
            return [value.data]
        buffers = []
        stream = _cloudpickled(value, buffers, what)
    raw = [buffer.raw() for buffer in buffers]
    head = [_COUNT.pack(len(raw) + 1), _LENGTH.pack(len(stream))]
    head += [_LENGTH.pack(view.nbytes | _READ_ONLY if view.readonly else view.nbytes) for view in raw]
    start = b"".join(head)
    return [start + stream, *raw] if len(stream) < _COPIED else [start, stream, *raw]


def dumps_bytes(value: Any, what: str = "value", *, by_value: bool = False) -> bytes:
    """``dumps`` in one piece."""
    parts = dumps(value, what, by_value=by_value)
    return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)


def loads(data: Buffer, what: str = "value") -> Any:
    """The value. Buffers are views of ``data``: give a private, writable mapping and arrays arrive writable without a
    copy.

    Raises DeserializationError, which names a module that is missing here.
    """
    view = memoryview(data)
    lengths, offset = _table(view, what)
    parts: List[Buffer] = []
    for marked in lengths:
        length = marked & ~_READ_ONLY
        parts.append(view[offset : offset + length])
        offset += length
    return _unpickled(parts, what)


def loads_by(read: Callable[[int, int, bool], Buffer], size: int, what: str = "value") -> Any:
    """``loads`` for what lies in a file: ``read(offset, length, writable)`` brings one part at a time.

    What is not asked for as writable may come as ``bytes``: a large bytes value is then that very object, where
    ``loads`` has to copy it out of its mapping.
    """
    head = memoryview(read(0, min(size, _FIRST), False))
    if len(head) >= _COUNT.size:
        needed = _COUNT.size + _LENGTH.size * _COUNT.unpack_from(head)[0]
        if needed > len(head):
            head = memoryview(read(0, min(size, needed), False))
    lengths, offset = _table(head, what)
    parts: List[Buffer] = []
    for index, marked in enumerate(lengths):
        writable = index > 0 and not marked & _READ_ONLY
        length = marked & ~_READ_ONLY
        if offset + length > size:
            raise DeserializationError(f"{what} is damaged: it ends before its parts do")
        parts.append(read(offset, length, writable))
        offset += length
    return _unpickled(parts, what)


def size_of(parts: List[Buffer]) -> int:
    """The number of bytes of what ``dumps`` returned."""
    return sum(part.nbytes if isinstance(part, memoryview) else len(part) for part in parts)


def _table(view: memoryview, what: str) -> Tuple[List[int], int]:
    """The lengths of the parts, and where the first begins."""
    try:
        count = _COUNT.unpack_from(view, 0)[0]
        lengths = [_LENGTH.unpack_from(view, _COUNT.size + _LENGTH.size * i)[0] for i in range(count)]
    except struct.error as error:
        raise DeserializationError(f"{what} is damaged: it is too short to be a payload") from error
    if not lengths:
        raise DeserializationError(f"{what} is damaged: it has no parts")
    return lengths, _COUNT.size + _LENGTH.size * count


def _unpickled(parts: List[Buffer], what: str) -> Any:
    try:
        return pickle.loads(parts[0], buffers=parts[1:])
    except ModuleNotFoundError as error:
        raise DeserializationError(
            f"{what} needs the module {error.name!r}, which is not installed here",
            hint=f"install {error.name} on this side, or return plain data (lists, dicts, numbers) instead",
        ) from error
    except Exception as error:  # unpickling runs the value's own code, which may raise anything
        raise DeserializationError(f"{what} could not be unpickled: {type(error).__name__}: {error}") from error


def _fast(value: Any, buffers: List[pickle.PickleBuffer]) -> Optional[bytes]:
    """The C pickler's stream, or None when cloudpickle is needed."""
    try:
        stream = pickle.dumps(_lifted(value), protocol=5, buffer_callback=buffers.append)
    except Exception:  # noqa: BLE001  a __reduce__ may raise anything: cloudpickle tries next and reports
        return None
    # A reference into __main__ would be looked up in the other side's __main__, which is another program.
    return None if b"__main__" in stream else stream


class _Large:
    """Bytes that are pickled beside the stream instead of copied into it; they arrive as what they were."""

    __slots__ = ("_value",)

    def __init__(self, value: Any) -> None:
        self._value = value

    def __reduce_ex__(self, _protocol: Any) -> Any:
        return type(self._value), (pickle.PickleBuffer(self._value),)


def _lifted(value: Any) -> Any:
    """The value with large bytes at its surface (results, arguments) set aside: pickle itself lifts arrays only."""
    kind = type(value)
    if kind in _BYTES:
        return _Large(value) if len(value) > _COPIED else value
    if kind is tuple and value:
        lifted = tuple([_lifted(item) for item in value])
        return lifted if any(new is not old for new, old in zip(lifted, value)) else value
    if kind is dict and value:
        changed = {name: _Large(item) for name, item in value.items() if type(item) in _BYTES and len(item) > _COPIED}
        return {**value, **changed} if changed else value
    return value


def _cloudpickled(value: Any, buffers: List[pickle.PickleBuffer], what: str) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]  # noqa: PLC0415  only what the C pickler refuses pays this

    try:
        stream: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    except Exception as error:  # a value's own reduce methods may raise anything
        raise SerializationError(
            f"{what} cannot be pickled: {type(error).__name__}: {error}",
            hint="pass plain data, or open files, locks and connections inside the function",
        ) from error
    return stream
