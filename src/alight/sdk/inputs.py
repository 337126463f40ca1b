"""From a user's iterators to payloads that leave: what pulls, pickles, and never pulls more than the window allows.

Ordinary iterators are pulled by a thread, because they may block; asynchronous ones by a task on the caller's event
loop, or on a loop of their own where the caller has none. What a user's iterator raises ends the inputs there, and is
raised by whoever reads the results once those of the inputs before it were read.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, AsyncIterator, Dict, Iterator, Mapping, Optional, Sequence, Tuple

from alight.sdk import values
from alight.sdk.large import put_blob
from alight.sdk.sending import CHUNK, CHUNK_BYTES, Reference, Sending
from alight.sdk.sync import call_blocking, in_event_loop, in_loop
from alight.wire import chunk, errors, payload
from alight.wire.codec import MAX_INLINE

if TYPE_CHECKING:
    from alight.sdk.callee import Callee

_AT_ONCE = CHUNK  # inputs that are pulled before those before them leave
_SOON = 0.001  # seconds that an input waits for others to travel with
_NEVER_BLOCK = (list, tuple, range, dict, set, frozenset, str, bytes)


class Source:
    """What the user gave: iterables side by side, or one of tuples (``star``). Raises InvalidError for others."""

    def __init__(self, iterables: Sequence[Any], kwargs: Mapping[str, Any], *, star: bool = False) -> None:
        if not iterables:
            raise errors.InvalidError("there is nothing to map over", hint="f.map(iterable)")
        for one in iterables:
            if not hasattr(one, "__aiter__") and not hasattr(one, "__iter__") and not hasattr(one, "__getitem__"):
                raise errors.InvalidError(
                    f"{one!r:.80} is not iterable", hint="map takes iterables, one for each argument: f.map([1, 2, 3])"
                )
        self.kwargs: Dict[str, Any] = dict(kwargs)
        self.is_async = any(hasattr(one, "__aiter__") for one in iterables)
        self.blocks = not all(type(one) in _NEVER_BLOCK for one in iterables)
        self._iterables = iterables
        self._star = star

    def each(self) -> Iterator[Tuple[Any, ...]]:
        """The positional arguments of each input."""
        if not self._star:
            return zip(*self._iterables)
        return map(tuple, self._iterables[0])

    async def each_async(self) -> AsyncIterator[Tuple[Any, ...]]:
        """``each`` where an iterable is asynchronous. Ends with the shortest."""
        pulled = [one.__aiter__() if hasattr(one, "__aiter__") else iter(one) for one in self._iterables]
        while True:
            args = []
            for one in pulled:
                try:
                    args.append(await one.__anext__() if hasattr(one, "__anext__") else next(one))
                except (StopAsyncIteration, StopIteration):
                    return
            yield tuple(args[0]) if self._star else tuple(args)


class Pump:
    """Moves inputs from a source to a ``Sending`` until there are no more or nobody wants them.

    ``problem`` is what the source (or pickling) raised.
    """

    def __init__(self, callee: Callee, source: Source, sending: Sending, *, keep: bool = False) -> None:
        self._keep = keep  # large values are on disk before they are named: nobody waits to send them again
        self.problem: Optional[BaseException] = None
        self._callee = callee
        self._source = source
        self._sending = sending
        sending.most = CHUNK
        self._wake = threading.Event()
        self._task: Any = None

    def start(self) -> None:
        """Begin, in the background."""
        in_loop_too = self._source.is_async and in_event_loop()
        if self._source.is_async:
            self._thread("alight-send", self._send_what_waits)
            if in_loop_too:
                self._task = sys.modules["asyncio"].get_running_loop().create_task(self._pull_async())
                return
        elif self._source.blocks:
            self._thread("alight-send", self._send_what_waits)
        context = contextvars.copy_context()  # the user's iterator may ask which input it runs for
        self._thread("alight-inputs", lambda: context.run(self._pull_all))

    def close(self) -> None:
        """Stop. An iterator that blocks is left to its thread."""
        self._sending.close()
        self._wake.set()
        if self._task is not None:
            self._task.cancel()

    @staticmethod
    def _thread(name: str, work: Any) -> None:
        threading.Thread(target=work, daemon=True, name=name).start()

    # pulling

    def _pull_all(self) -> None:
        if self._source.is_async:
            import asyncio  # noqa: PLC0415  the source needs it

            asyncio.run(self._pull_async())
            return
        try:
            each = self._source.each()
            while True:
                room = call_blocking(self._sending.wait_room())
                if room <= 0 or not self._pull(each, min(room, _AT_ONCE)):
                    break
        except BaseException as error:  # noqa: BLE001  it is the user's iterator: raised where the results are read
            self.problem = error
        self._sending.finish()
        self._wake.set()

    def _pull(self, each: Iterator[Tuple[Any, ...]], most: int) -> bool:
        """What leaves together, or what comes of it in about a millisecond. False when there are no more."""
        sending, kwargs, quick, now = self._sending, self._source.kwargs, values.quick, time.monotonic
        pending = sending.pending
        size = count = 0
        until = now() + _SOON
        try:
            for args in islice(each, most):
                data = quick(args, kwargs)
                if data is None:
                    data = self._slowly(args)
                pending.append(data)
                count += 1
                size += len(data)
                if size >= CHUNK_BYTES or now() >= until:
                    return True
                if count == 1 and self._source.blocks:
                    self._wake.set()  # the next one may be long in coming
        finally:
            sending.put += count
            if count:
                sending.flush()
        return count == most

    def _send_what_waits(self) -> None:
        """Sends what was put while the source is slow: nobody else is awake then."""
        sending = self._sending
        while not sending.closed:
            self._wake.wait()
            self._wake.clear()
            while sending.pending and not sending.closed:
                time.sleep(_SOON)
                sending.flush()
            if sending.over:
                sending.flush()
                return

    async def _pull_async(self) -> None:
        """On an event loop, which must not be blocked: sending is left to the thread."""
        asyncio = sys.modules["asyncio"]
        sending, room = self._sending, 0
        try:
            async for args in self._source.each_async():
                if room <= 0:
                    await asyncio.sleep(0)  # a source that never waits would have the loop for itself
                    room = min(_AT_ONCE, await in_loop(sending.wait_room()))
                    if room <= 0:
                        break
                data = values.quick(args, self._source.kwargs)
                if data is None:
                    data = await in_loop(self._large(args))
                sending.pending.append(data)
                sending.put += 1
                room -= 1
                if len(sending.pending) == 1:
                    self._wake.set()
        except BaseException as error:  # noqa: BLE001  it is the user's iterator: raised where the results are read
            self.problem = error
        sending.over = True
        self._wake.set()

    # pickling what is not small

    def _slowly(self, args: Tuple[Any, ...]) -> bytes:
        found: bytes = call_blocking(self._large(args))
        return found

    async def _large(self, args: Tuple[Any, ...]) -> bytes:
        parts = values.of_arguments(self._callee, args, self._source.kwargs)
        size = payload.size_of(parts)
        if size > MAX_INLINE:
            return Reference(chunk.reference(await put_blob(self._callee.client, parts, keep=self._keep), size))
        return b"".join(parts)
