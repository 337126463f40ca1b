"""Inputs and outputs on the hot path: consecutive ones of a call in one frame, with heads of fixed form.

A *call* has inputs, numbered by *position* from 0. What travels together is a *chunk*: many inputs of one call (or what
came of them), so that the cost of a frame is shared. The body holds the payloads one after the other; nobody between
caller and container looks into them. A payload over ``MAX_INLINE`` travels alone in its chunk, as a *reference*: the
body is "name:size" (a blob of the server, or a file in the container's spool directory).

These heads begin with a byte below 0x20, JSON heads with "{": both may come on one stream. Failures, which are rare and
say much, travel as JSON (``commands.Output``, ``messages.CallUpdate``).
"""

from __future__ import annotations

import struct

from alight.wire.errors import InternalError

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import List, Sequence, Tuple, Union

    Buffer = Union[bytes, bytearray, memoryview]

INPUTS = 1
OUTPUTS = 2

REFERENCE = 1  # one payload, which is the name of something larger
SCATTERED = 2  # outputs whose positions are not consecutive: each is listed
ITEMS = 4  # what one generator yielded, not what it ended with: ``start`` is its position, ``first`` the item's number
LAST = 8  # inputs: the call has no more after these
SPAWNED = 16  # inputs: nobody waits for the call, so its container's log has to tell what failed
JSON = 64  # inputs: arguments are JSON, and so will the value be
QUIET = 32  # outputs: what their container printed until now has left its pipes
UNSENT = 128  # outputs: the log up to ``log_offset`` is noted as theirs, and not on its way: nobody waits for it

#: More inputs than this never share a chunk.
MOST = 1024

_INPUTS = struct.Struct("!BBHQII25s25s")
_OUTPUTS = struct.Struct("!BBHQIIQQddQ25s25s")
_INPUTS_CONTAINER = _INPUTS.size - 25
_LOG_OFFSET = struct.calcsize("!BBHQIIQQdd")
_LOG_END = struct.Struct("!Q")
_OF_CONTAINER = struct.Struct("!Q25s25s")


class Inputs:
    """Inputs ``start`` … ``start + len(sizes)`` of a call, all at one attempt.

    ``container`` is set between server and node only. ``method`` is for classes.
    """

    __slots__ = ("attempt", "call_id", "container", "flags", "method", "sizes", "start")

    def __init__(  # noqa: PLR0913, PLR0917  what it says is what it has
        self,
        call_id: str,
        start: int,
        sizes: Sequence[int],
        attempt: int = 1,
        method: str = "",
        container: str = "",
        flags: int = 0,
    ) -> None:
        self.call_id = call_id
        self.start = start
        self.sizes = sizes
        self.attempt = attempt
        self.method = method
        self.container = container
        self.flags = flags

    @property
    def stop(self) -> int:
        """The position after the last."""
        return self.start + len(self.sizes)

    def encode(self) -> bytes:
        count, method = len(self.sizes), self.method.encode()
        head = _INPUTS.pack(
            INPUTS,
            self.flags,
            len(method),
            self.start,
            self.attempt,
            count,
            self.call_id.encode(),
            self.container.encode(),
        )
        return head + struct.pack(f"!{count}I", *self.sizes) + method

    @classmethod
    def decode(cls, head: Buffer) -> Inputs:
        """Raises InternalError for what is no such head."""
        try:
            kind, flags, method, start, attempt, count, call_id, container = _INPUTS.unpack_from(head)
            sizes = struct.unpack_from(f"!{count}I", head, _INPUTS.size)
        except struct.error as error:
            raise InternalError(f"a chunk of inputs could not be read: {error}") from error
        if kind != INPUTS:
            raise InternalError(f"a chunk of inputs begins with {kind}")
        at = _INPUTS.size + 4 * count
        return cls(
            call_id.rstrip(b"\0").decode(),
            start,
            sizes,
            attempt,
            bytes(head[at : at + method]).decode() if method else "",
            container.rstrip(b"\0").decode(),
            flags,
        )


def readdressed(head: bytes, container: str) -> bytes:
    """The same inputs (an encoded head) for another container."""
    return head[:_INPUTS_CONTAINER] + container.encode().ljust(25, b"\0") + head[_INPUTS.size :]


class Outputs:
    """Values that user code returned (or yielded), all of one call and attempt.

    ``positions`` is a range, or a tuple when they are scattered; for ITEMS the range of item numbers of the one input
    ``position``. ``serial`` counts the output frames of a container, from 1: it names this one in acknowledgements.
    ``busy`` is how long user code ran for them, in seconds; ``ended`` unix time. ``log_offset``: where the container's
    log ends that belongs before the last of them.
    """

    __slots__ = (
        "attempt",
        "busy",
        "call_id",
        "container",
        "ended",
        "flags",
        "log_offset",
        "position",
        "positions",
        "serial",
        "sizes",
    )

    def __init__(  # noqa: PLR0913  what it says is what it has
        self,
        call_id: str,
        positions: Union[range, Tuple[int, ...]],
        sizes: Sequence[int],
        *,
        attempt: int = 1,
        serial: int = 0,
        busy: float = 0.0,
        ended: float = 0.0,
        log_offset: int = 0,
        container: str = "",
        flags: int = 0,
        position: int = 0,
    ) -> None:
        self.call_id = call_id
        self.positions = positions
        self.sizes = sizes
        self.attempt = attempt
        self.serial = serial
        self.busy = busy
        self.ended = ended
        self.log_offset = log_offset
        self.container = container
        self.flags = flags
        self.position = position

    @property
    def is_items(self) -> bool:
        return bool(self.flags & ITEMS)

    @property
    def is_reference(self) -> bool:
        return bool(self.flags & REFERENCE)

    def encode(self) -> bytes:
        count, positions, flags = len(self.sizes), self.positions, self.flags
        listed = b""
        if type(positions) is range:
            start = self.position if flags & ITEMS else positions.start
            first = positions.start if flags & ITEMS else 0
        else:
            flags |= SCATTERED
            start, first = positions[0], 0
            listed = struct.pack(f"!{count}Q", *positions)
        head = _OUTPUTS.pack(
            OUTPUTS,
            flags,
            0,
            self.serial,
            self.attempt,
            count,
            start,
            first,
            self.busy,
            self.ended,
            self.log_offset,
            self.call_id.encode(),
            self.container.encode(),
        )
        return head + struct.pack(f"!{count}I", *self.sizes) + listed

    @classmethod
    def decode(cls, head: Buffer) -> Outputs:
        """Raises InternalError for what is no such head."""
        try:
            (kind, flags, _, serial, attempt, count, start, first, busy, ended, log_offset, call_id, container) = (
                _OUTPUTS.unpack_from(head)
            )
            sizes = struct.unpack_from(f"!{count}I", head, _OUTPUTS.size)
            positions: Union[range, Tuple[int, ...]]
            if flags & SCATTERED:
                positions = struct.unpack_from(f"!{count}Q", head, _OUTPUTS.size + 4 * count)
            elif flags & ITEMS:
                positions = range(first, first + count)
            else:
                positions = range(start, start + count)
        except struct.error as error:
            raise InternalError(f"a chunk of outputs could not be read: {error}") from error
        if kind != OUTPUTS:
            raise InternalError(f"a chunk of outputs begins with {kind}")
        return cls(
            call_id.rstrip(b"\0").decode(),
            positions,
            sizes,
            attempt=attempt,
            serial=serial,
            busy=busy,
            ended=ended,
            log_offset=log_offset,
            container=container.rstrip(b"\0").decode(),
            flags=flags & ~SCATTERED,
            position=start if flags & ITEMS else 0,
        )


def stamped(head: Buffer, container: str) -> bytes:
    """The head of outputs with the container that they come from, and no end of its log, whatever it says of both."""
    start, end = _LOG_OFFSET, _OUTPUTS.size
    return b"".join((head[:start], _OF_CONTAINER.pack(0, head[start + 8 : end - 25], container.encode()), head[end:]))


def log_offset_of(head: Buffer) -> int:
    """Where the log ends that goes before these outputs, read from their head without the rest."""
    if head[1] & UNSENT:
        return 0
    offset: int = _LOG_END.unpack_from(head, _LOG_OFFSET)[0]
    return offset


def is_chunk(head: Buffer) -> bool:
    """Whether a head is one of these, and not JSON."""
    return len(head) > 0 and head[0] < 0x20


def cut(sizes: Sequence[int], body: Buffer) -> List[Buffer]:
    """The payloads of a chunk, as views of its body. Raises InternalError when it is shorter than its sizes say."""
    pieces: List[Buffer] = []
    view, at = memoryview(body), 0
    for size in sizes:
        pieces.append(view[at : at + size])
        at += size
    if at != len(view):
        raise InternalError(f"a chunk of {at} bytes came with {len(view)}")
    return pieces


def reference(name: str, size: int) -> bytes:
    """The body of a chunk whose one payload lies elsewhere."""
    return f"{name}:{size}".encode()


def read_reference(body: Buffer) -> Tuple[str, int]:
    """The name and the size in such a body. Raises InternalError."""
    name, _, size = bytes(body).decode("ascii", "replace").rpartition(":")
    if not name or not size.isdigit():
        raise InternalError("a reference to a large value could not be read")
    return name, int(size)


def pack_serials(serials: Sequence[int]) -> bytes:
    """The body of LINK_ACK."""
    return struct.pack(f"!{len(serials)}Q", *serials)


def unpack_serials(body: Buffer) -> Tuple[int, ...]:
    """The serials that a LINK_ACK names."""
    return struct.unpack(f"!{len(body) // 8}Q", body)
