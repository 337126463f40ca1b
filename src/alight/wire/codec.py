"""Frames, and records to JSON and back. Knows no socket.

A frame is ``length | stream | head length | kind | head | body``: three big-endian 32-bit numbers, one byte, then the
bytes. ``length`` counts head and body. The head is JSON (or, for hot kinds, a fixed struct); the body is opaque:
nothing between a caller and a container ever decodes it.

The standard library decodes JSON heads here; servers hand ``msgspec`` the same records. The two are tested against
each other, so they must agree: unknown fields are ignored, missing ones take their default.
"""

from __future__ import annotations

import struct

from alight.wire.errors import InternalError
from alight.wire.record import shape_of

# A container needs frames at once and messages perhaps never: what only messages need is imported by them.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, NamedTuple, Optional, Type, TypeVar, Union

    T = TypeVar("T")
    Buffer = Union[bytes, bytearray, memoryview]
    _Convert = Callable[[Any], Any]
else:
    Buffer = object  # others import the name for their hints

#: What a connection says first, so that one port can tell our frames from HTTP.
PREFACE = b"ALIGHT/1\n"

HEADER = struct.Struct("!IIIB")
_HEADER_SIZE = HEADER.size
_unpack_header = HEADER.unpack_from
MAX_FRAME = 64 << 20
_SMALL = 64 << 10  # bytes that may be copied once more to be cut quickly
#: Bodies over this travel in pieces (streams) or as files (on one machine), never as one frame.
MAX_INLINE = 2 << 20
PIECE = 1 << 20


class Kind:
    """What a frame is. Streams: HELLO … PONG. Container link (stream 0): LINK_* ."""

    HELLO = 1
    OPEN = 2
    DATA = 3
    END = 4
    ERROR = 5
    CREDIT = 6
    PING = 7
    PONG = 8

    LINK_START = 32  # node → runtime: what to import, environment, secrets
    LINK_READY = 33  # runtime → node: the user's code is imported, enter hooks have run
    LINK_INPUT = 34  # node → runtime
    LINK_OUTPUT = 35  # runtime → node
    LINK_CANCEL = 36  # node → runtime
    LINK_STOP = 37  # node → runtime: finish what runs, exit hooks, leave
    LINK_WAITING = 38  # runtime → node: the user's code began (or ended) waiting for another function
    LINK_ACK = 39  # node → runtime: these output frames are kept elsewhere now (body: chunk.pack_serials)
    LINK_RECALL = 40  # node → runtime: give back what was given and has not begun
    LINK_RETURNED = 41  # runtime → node: here it is, it will not run here (LinkReturned)


if TYPE_CHECKING:

    class Frame(NamedTuple):
        """One frame. ``head`` is undecoded; ``body`` may be a view of the buffer that it arrived in."""

        kind: int
        stream: int
        head: bytes
        body: bytes

else:
    from _collections import _tuplegetter

    class Frame(tuple):
        """See above: what NamedTuple makes of it, without the modules that it needs for that."""

        __slots__ = ()

        def __new__(cls: Any, kind: int, stream: int, head: bytes, body: bytes) -> Any:
            return _new_tuple(cls, (kind, stream, head, body))

        kind = _tuplegetter(0, "what it is")
        stream = _tuplegetter(1, "which stream it belongs to")
        head = _tuplegetter(2, "undecoded")
        body = _tuplegetter(3, "user bytes")

    _new_tuple = tuple.__new__


def encode_frame(kind: int, stream: int, head: bytes = b"", body: Buffer = b"") -> List[Buffer]:
    """The pieces to write, in order. A large body is not copied."""
    size = len(head) + len(body)
    if size > MAX_FRAME:
        raise InternalError(f"a frame of {size} bytes is over the limit of {MAX_FRAME}")
    start = HEADER.pack(size, stream, len(head), kind) + head
    if not body:
        return [start]
    if len(body) < 4096:
        return [start + bytes(body)]
    return [start, body]


class FrameReader:
    """Bytes in, whole frames out. Raises InternalError on a stream that cannot be ours."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: Buffer) -> List[Frame]:
        """The frames that are whole with these bytes. Small ones are cut from ``data`` itself."""
        buffer = self._buffer
        source: Any
        if not buffer:
            source = data if type(data) is bytes else memoryview(data)
        elif len(buffer) + len(data) <= _SMALL:
            source = bytes(buffer) + data  # frames are cut from bytes with one copy, from views with two
            buffer.clear()
        else:
            buffer += data
            source = memoryview(buffer)
        frames: List[Frame] = []
        add, unpack, new = frames.append, _unpack_header, tuple.__new__
        offset, have = 0, len(source)
        try:
            while have - offset >= _HEADER_SIZE:
                size, stream, head_size, kind = unpack(source, offset)
                if size > MAX_FRAME or head_size > size:
                    raise InternalError(
                        f"a peer sent a frame of {size} bytes (head {head_size}): not Alight's protocol"
                    )
                start = offset + _HEADER_SIZE
                end = start + size
                if end > have:
                    break
                head_end = start + head_size
                add(new(Frame, (kind, stream, bytes(source[start:head_end]), bytes(source[head_end:end]))))
                offset = end
            rest = bytes(source[offset:]) if not buffer and offset < have else b""
        finally:
            if buffer:
                source.release()
        if rest:
            buffer += rest
        elif offset:
            del buffer[:offset]
        return frames

    @property
    def pending(self) -> int:
        """Bytes of a frame that is not whole yet."""
        return len(self._buffer)


#: What JSON has as it is: most of all messages, and not worth a call each.
_PLAIN = frozenset((str, int, float, bool, type(None)))


def dumps_head(message: Any) -> bytes:
    """A record, dict or None as a JSON head. Fields at their default are left out."""
    import json  # noqa: PLC0415  see the top

    return json.dumps(to_plain(message), separators=(",", ":")).encode()


def loads_head(kind: Type[T], head: bytes) -> T:
    """The record that a head describes.

    Unknown fields are ignored; a head that does not fit raises InternalError.
    """
    import json  # noqa: PLC0415  see the top

    try:
        return from_plain(kind, json.loads(head) if head else {})
    except (ValueError, TypeError, KeyError) as error:
        raise InternalError(f"a message {kind.__name__} could not be read: {error}") from error


def to_plain(value: Any) -> Any:
    """Records to dicts, tuples to lists, recursively; what equals its default is left out."""
    if value.__class__ in _PLAIN:
        return value
    shape = shape_of(type(value))
    if shape is not None:
        plain: Dict[str, Any] = {}
        defaults, factories = shape.defaults, shape.factories
        for name in shape.names:
            item = getattr(value, name)
            if name in defaults:
                if item == defaults[name]:
                    continue
            elif name in factories and item == factories[name]():
                continue
            plain[name] = item if item.__class__ in _PLAIN else to_plain(item)
        return plain
    if isinstance(value, (list, tuple)):
        return [item if item.__class__ in _PLAIN else to_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    return value


def from_plain(kind: Type[T], plain: Any) -> T:
    """The reverse of ``to_plain``, guided by the annotations of ``kind``."""
    result: T = _converter(kind)(plain)
    return result


_CONVERTERS: Dict[Any, _Convert] = {}


def _converter(kind: Any) -> _Convert:
    found = _CONVERTERS.get(kind)
    if found is None:
        found = _CONVERTERS[kind] = _make_converter(kind)
    return found


def _make_converter(kind: Any) -> _Convert:
    import typing  # noqa: PLC0415  see the top

    if isinstance(kind, type) and shape_of(kind) is not None:
        return _record_converter(kind)
    if hasattr(kind, "__dataclass_fields__"):
        raise InternalError(f"{kind.__name__} is a dataclass and not a record: it would be read as a dict")
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Union:
        inner = [arg for arg in args if arg is not type(None)]
        if len(inner) == 1:
            convert = _converter(inner[0])
            return lambda plain: None if plain is None else convert(plain)
        return lambda plain: plain
    if origin in (tuple, list):
        convert_item = _converter(args[0]) if args else None
        build: Any = tuple if origin is tuple else list
        return lambda plain: build(convert_item(item) if convert_item else item for item in plain)
    if origin is dict:
        convert_value = _converter(args[1])
        return lambda plain: {key: convert_value(item) for key, item in plain.items()}
    if kind is float:
        return float
    return lambda plain: plain


def _record_converter(kind: type) -> _Convert:
    import typing  # noqa: PLC0415  see the top

    hints = typing.get_type_hints(kind)
    converters: Optional[Dict[str, _Convert]] = None

    def convert(plain: Any) -> Any:
        nonlocal converters
        if converters is None:
            shape = shape_of(kind)
            converters = {name: _converter(hints[name]) for name in (shape.names if shape is not None else ())}
        if not isinstance(plain, dict):
            raise TypeError(f"a {kind.__name__} is not a {type(plain).__name__}")
        known = converters
        return kind(**{name: known[name](item) for name, item in plain.items() if name in known})

    return convert
