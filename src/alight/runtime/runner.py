"""Inputs of blocking functions, one after the other: arguments from bytes, the user's function, its value to bytes.

They run in the main thread, because signals, KeyboardInterrupt and many libraries want that. What runs otherwise has
files of its own, imported where they are needed: ``generators``, ``tasks`` (coroutines), ``threads`` (blocking
functions, several at once), ``batches``. All of them take arguments and give values through the Runner. Never raises
what user code raised: that is an output.
"""

from __future__ import annotations

import os
import time

from alight.wire import ambient, payload
from alight.wire.codec import MAX_INLINE
from alight.wire.errors import InputCancellation, InvalidError, NotFoundError, SerializationError

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, Optional

    from alight.runtime.inputs import Given
    from alight.runtime.outputs import Outputs

COROUTINE, GENERATOR, ASYNC_GENERATOR = 0x80, 0x20, 0x200  # inspect's CO_*, whose import costs milliseconds
_LATER = frozenset({"coroutine", "generator", "async_generator"})
_PLAIN = b"\0\0\0\1"  # how a payload without buffers begins


class Target:
    """What an input runs: the function, or one method of the instance."""

    __slots__ = ("arguments", "call", "is_async", "name", "streams")

    def __init__(self, call: Callable[..., Any], name: str, *, streams: bool = False) -> None:
        flags = getattr(getattr(call, "__code__", None), "co_flags", 0)
        self.call = call
        self.name = name
        self.arguments = f"the arguments of {name}()"
        self.is_async = bool(flags & (COROUTINE | ASYNC_GENERATOR))
        self.streams = streams or bool(flags & (GENERATOR | ASYNC_GENERATOR))


_LAST_MOMENT = 5.0


class Runner:
    """What all ways of running share, and the plainest of them: ``run``."""

    def __init__(self, targets: Dict[str, Target], outputs: Outputs, spool: str) -> None:
        self.targets = targets
        self.outputs = outputs
        self.spool = spool
        self.given: Any = None  # whose input's user code runs in the main thread right now: a Given
        self.armed: Optional[int] = None  # and the input's index; None: a cancellation has nothing to interrupt
        self.leaving = ""  # the signal that told the container to end
        self.follows = False  # it works with others, and what it returns is nobody's
        self._rank = ""  # which of them it is

    def join(self, cluster: Dict[str, Any]) -> None:
        """Be one of the containers of a cluster: values are rank 0's alone, failures say whose they are."""
        rank, ids = cluster["rank"], cluster["container_ids"]
        self.follows = rank > 0
        if len(ids) > 1:
            self._rank = f"raised by rank {rank} of {len(ids)} ({ids[rank]})"

    def run(self, given: Given) -> None:
        """Take inputs of a chunk until its line is empty."""
        target = self.target(given)
        if target.streams:
            from alight.runtime import generators  # noqa: PLC0415  only for generators

            generators.run(self, given, target)
            return
        monotonic, set_input = time.monotonic, ambient.current_input_id.set
        call, add, packed = target.call, self.outputs.add, self.packed
        failure: Any
        args: Any
        value: Any
        body: Any
        self.given = given
        ambient.current_call_id.set(given.call_id)
        for index in given.line:
            started = monotonic()
            failure = None
            try:
                try:
                    set_input(given.input_id(index))
                    args, kwargs = self.arguments(target, given, index)
                    self.armed = index
                    if given.is_cancelled(index):  # before it began
                        raise InputCancellation
                    value = call(*args, **kwargs)
                    self.armed = None
                    body = packed(target, value)
                except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
                    self.armed = None
                    failure = error
            except BaseException as error:  # noqa: BLE001  a signal came while another exception was on its way
                failure = error
            args = kwargs = value = None
            now = monotonic()
            if failure is not None:
                self.fail(target, given, index, failure, started)
            elif type(body) is bytes:
                add(given, index, body, now - started, now)
            else:
                self.leave_file(target, given, index, body, started)
            body = b""
        self.done(given)

    def target(self, given: Given) -> Target:
        """What the chunk's inputs run; for a method that is not there, something that says so."""
        target = self.targets.get(given.method)
        if target is None:
            return _missing(given.method, self.targets)
        if given.is_json:
            from alight.runtime import jsoncalls  # noqa: PLC0415  few calls are made without Python

            return jsoncalls.target(target)
        return target

    def arguments(self, target: Target, given: Given, index: int) -> Any:
        """The pair of positional and keyword arguments."""
        data: Any = given.arguments(index)
        if given.reference:
            from alight.runtime import spool  # noqa: PLC0415  only large arguments pay for it

            return spool.loads(self.spool, data, target.arguments)
        if given.is_json:
            from alight.runtime import jsoncalls  # noqa: PLC0415  few calls are made without Python

            return jsoncalls.arguments(data, target.arguments)
        if data[:4] != _PLAIN:
            # Arrays are views of what is given here: only a writable copy gives the function arrays it may change.
            data = bytearray(data)
        return payload.loads(data, target.arguments)

    def packed(self, target: Target, value: Any) -> Any:
        """What a function returned: bytes that are a copy, since user code may change it, or the parts of something
        that is too large for a frame."""
        if ambient.terminal is not None and not target.streams:
            leave_terminal()
        if type(value).__name__ in _LATER:
            raise _not_a_value(target, value)
        if self.follows:
            value = None
        try:
            parts = payload.dumps(value, "the result")
        except SerializationError:
            kind = type(value)
            named = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            parts = payload.dumps(value, f"the result of {target.name}() (of type {named})")  # the same, with a name
        if payload.size_of(parts) > MAX_INLINE:
            return parts
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def leave_file(self, target: Target, given: Given, index: int, parts: Any, started: float) -> None:
        """A value too large for a frame goes through a file."""
        from alight.runtime import spool  # noqa: PLC0415  only large values pay for it

        try:
            named = spool.write(self.spool, f"out-{given.input_id(index)}-{given.attempt}", parts, target.name)
        except Exception as error:  # noqa: BLE001  no space is the input's failure, not the container's
            self.fail(target, given, index, error, started)
            return
        self.outputs.add_reference(given, index, named, time.monotonic() - started)

    def fail(
        self, target: Target, given: Given, index: int, error: BaseException, started: float, items: int = 0
    ) -> None:
        """The output of an input that did not end well."""
        from alight.runtime import failures, stdio  # noqa: PLC0415  paid by failures only

        if stdio.is_cut_off():
            # We are about to be killed: what is done may still leave, and this input runs again elsewhere.
            self.outputs.flush()
            time.sleep(_LAST_MOMENT)
            os._exit(70)
        leave_terminal()
        cancelled = given.is_cancelled(index) and not isinstance(error, Exception)
        if self._rank and isinstance(error, (Exception, SystemExit)):
            failures.note(error, self._rank)
        head, body = failures.outcome(error, target.name, leaving=self.leaving, cancelled=cancelled)
        if given.is_spawned and head["status"] == "exception":
            failures.print_local(error)
        self.end(given, index, head, started, items, body)

    def end(
        self, given: Given, index: int, head: Dict[str, Any], started: float, items: int = 0, body: bytes = b""
    ) -> None:
        """An output in words. ``started`` by the monotonic clock."""
        leave_terminal()
        now = time.time()
        head["started_at"], head["ended_at"] = now - (time.monotonic() - started), now
        if items:
            head["items"] = items
        self.outputs.say(given, index, head, body)

    def done(self, given: Given) -> None:
        """Nothing of the chunk will be taken any more, and nobody runs."""
        given.let_go()
        self.given = None
        ambient.current_input_id.set(None)
        ambient.current_call_id.set(None)


def leave_terminal() -> None:
    """After user code, in its context: what `interact()` connected is let go, with all that was printed to it."""
    if ambient.terminal is not None:
        from alight.runtime import stdio  # noqa: PLC0415  here already

        stdio.flush()
        ambient.terminal.leave()


def _missing(method: str, targets: Dict[str, Target]) -> Target:
    def call(*_args: Any, **_kwargs: Any) -> None:
        raise NotFoundError(
            f"there is no method {method!r} in this container" if method else "the input names no method",
            hint=f"it has: {', '.join(sorted(targets)) or 'none'}",
        )

    return Target(call, method or "the class")


def _not_a_value(target: Target, value: Any) -> InvalidError:
    """Python warns of a coroutine that was never awaited: so it is closed."""
    getattr(value, "close", lambda: None)()
    return InvalidError(
        f"{target.name} is a plain function and returned a {type(value).__name__.replace('_', ' ')}",
        hint="make it `async def`, or a generator (`yield`), or return the items in a list",
    )
