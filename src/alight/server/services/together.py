"""Inputs that came together become one chunk, however their caller cut them: one row, one fact, one entry in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alight.link.stream import Message
from alight.wire import chunk, errors
from alight.wire.codec import Buffer

# Inputs and bytes in a chunk of several messages: beyond, a row costs little for what it holds.
_MOST = chunk.MOST // 4
_BYTES = 16 << 10


def together(messages: Sequence[Message]) -> Iterator[tuple[chunk.Inputs, Buffer]]:
    """Chunks with their bodies, consecutive plain ones joined. Large ones and references stay what they are.

    Raises InternalError for what cannot be read, once those before it were given.
    """
    first: chunk.Inputs | None = None
    sizes: list[int] = []
    bodies: list[bytes] = []
    held = 0
    for at, (head, body) in enumerate(messages):
        try:
            said = chunk.Inputs.decode(head)
        except errors.InternalError:
            if first is not None:
                yield _joined(first, sizes, bodies)
            raise
        if first is not None:
            held += len(body)
            if (
                held <= _BYTES
                and len(sizes) + len(said.sizes) <= chunk.MOST
                and _continues(first, len(sizes), said, body)
            ):
                sizes += said.sizes
                bodies.append(body)
                continue
            yield _joined(first, sizes, bodies)
            first = None
        if at + 1 == len(messages) or said.flags or not said.sizes or sum(said.sizes) != len(body):
            yield said, body
            continue
        first, sizes, bodies, held = said, list(said.sizes), [body], len(body)
    if first is not None:
        yield _joined(first, sizes, bodies)


def _continues(first: chunk.Inputs, count: int, said: chunk.Inputs, body: bytes) -> bool:
    """Whether inputs may follow ``count`` others in one chunk."""
    return (
        said.start == first.start + count
        and len(said.sizes) > 0
        and not said.flags
        and said.call_id == first.call_id
        and said.method == first.method
        and said.attempt == first.attempt
        and sum(said.sizes) == len(body)
    )


def _joined(first: chunk.Inputs, sizes: list[int], bodies: list[bytes]) -> tuple[chunk.Inputs, Buffer]:
    if len(bodies) > 1:
        first.sizes = tuple(sizes)
    return first, bodies[0] if len(bodies) == 1 else b"".join(bodies)
