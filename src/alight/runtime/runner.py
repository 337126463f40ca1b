"""One input: arguments from bytes, the user's function, its result or exception to bytes.

Blocking functions run in the main thread, because signals, KeyboardInterrupt and many libraries want that; coroutines
run on the one event loop that the container has. Never raises what user code raised: that is an output.
"""

from __future__ import annotations

import os
import time

from alight.runtime import failures, stdio
from alight.wire import ambient, payload
from alight.wire.codec import MAX_INLINE
from alight.wire.errors import Error, InputCancellation, InvalidError, RemoteError, UnimplementedError, to_wire
from alight.wire.states import ResultStatus

TYPE_CHECKING = False  # importing typing would cost as much as all of this
if TYPE_CHECKING:
    from typing import Any, Callable, Dict, List, Optional, Set, Tuple

    Outcome = Tuple[Dict[str, Any], List[Any]]

_COROUTINE, _GENERATOR, _ASYNC_GENERATOR = 0x80, 0x20, 0x200  # inspect's CO_*, whose import costs milliseconds


class Runner:
    """Runs inputs of one function, one at a time."""

    def __init__(self, function: Callable[..., Any], name: str, spool: str) -> None:
        self._function = function
        self._name = name
        self._spool = spool
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        self.is_async = bool(flags & _COROUTINE)
        self._is_generator = bool(flags & (_GENERATOR | _ASYNC_GENERATOR))
        self.armed: Optional[str] = None  # the input whose user code is running right now
        self.cancelled: Set[str] = set()
        self.task: Any = None
        self.leaving = ""  # the signal that told the container to end

    def run(self, head: Dict[str, Any], body: bytes) -> Outcome:
        """The output of one input of a blocking function, as LinkOutput's head and the body's parts."""
        input_id = head["input_id"]
        started = time.time()
        if input_id in self.cancelled:
            return self._finish(head, started, *self._cancelled())
        self._announce(head)
        try:
            args, kwargs = self._arguments(head, body)
            self._refuse_generator()
            self.armed = input_id
            if input_id in self.cancelled:  # between the first look and now
                raise InputCancellation
            value = self._function(*args, **kwargs)
            self.armed = None
            parts = self._result(value)
        except InputCancellation:
            self.armed = None
            return self._finish(head, started, *self._cancelled())
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            self.armed = None
            return self._finish(head, started, *self._raised(error))
        return self._finish(head, started, {"status": ResultStatus.SUCCESS}, parts)

    async def run_async(self, head: Dict[str, Any], body: bytes) -> Outcome:
        """The same for a coroutine function; cancelled by cancelling ``task``."""
        import asyncio  # noqa: PLC0415  only where the user's function is async

        input_id = head["input_id"]
        started = time.time()
        if input_id in self.cancelled:
            return self._finish(head, started, *self._cancelled())
        self._announce(head)
        try:
            args, kwargs = self._arguments(head, body)
            self.task = asyncio.ensure_future(self._function(*args, **kwargs))
            self.armed = input_id
            try:
                value = await self.task
            finally:
                self.armed = self.task = None
            parts = self._result(value)
        except InputCancellation:
            return self._finish(head, started, *self._cancelled())
        except asyncio.CancelledError as error:
            ours = input_id in self.cancelled
            return self._finish(head, started, *(self._cancelled() if ours else self._raised(error)))
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            return self._finish(head, started, *self._raised(error))
        return self._finish(head, started, {"status": ResultStatus.SUCCESS}, parts)

    @staticmethod
    def _announce(head: Dict[str, Any]) -> None:
        ambient.current_input_id.set(head["input_id"])
        ambient.current_call_id.set(head["call_id"])

    def _arguments(self, head: Dict[str, Any], body: bytes) -> Any:
        what = f"the arguments of {self._name}()"
        spooled = head.get("spool")
        if spooled:
            return payload.loads(_mapped(os.path.join(self._spool, os.path.basename(spooled))), what)
        # Arrays are views of what is given here: only a writable copy gives the function arrays it may change.
        return payload.loads(bytearray(body) if body[:4] != b"\0\0\0\1" else body, what)

    def _refuse_generator(self) -> None:
        if self._is_generator:
            raise UnimplementedError(f"{self._name} is a generator; streaming its items is not there yet")

    def _result(self, value: Any) -> List[Any]:
        kind = type(value).__name__
        if kind in {"coroutine", "generator", "async_generator"}:
            getattr(value, "close", _nothing)()  # else Python warns that it was never awaited
            raise InvalidError(
                f"{self._name} is a plain function and returned a {kind.replace('_', ' ')}",
                hint="make it `async def`, or return the items in a list",
            )
        return payload.dumps(value, f"the result of {self._name}() (of type {_qualified(type(value))})")

    def _raised(self, error: BaseException) -> Outcome:
        if self.leaving and not isinstance(error, Exception):
            gone = RemoteError(f"{self._name}() was interrupted: its container was told to end ({self.leaving})")
            return {"status": ResultStatus.TERMINATED, "error": to_wire(gone)}, []
        sentence = failures.exit_sentence(error, f"{self._name}()")
        if sentence is not None:
            trace = error.__traceback__
            error = RemoteError(sentence)
            error.__traceback__ = trace
        failure, parts = failures.describe(error)
        head: Dict[str, Any] = {"status": ResultStatus.EXCEPTION, "failure": failure}
        if isinstance(error, Error):
            head["error"] = to_wire(error)
        return head, parts

    def _cancelled(self) -> Outcome:
        error = RemoteError(f"this input of {self._name}() was cancelled")
        return {"status": ResultStatus.CANCELLED, "error": to_wire(error)}, []

    def _finish(self, head: Dict[str, Any], started: float, outcome: Dict[str, Any], parts: List[Any]) -> Outcome:
        """The output's head; its body goes to a file when it is too large for a frame."""
        ambient.current_input_id.set(None)
        ambient.current_call_id.set(None)
        input_id, attempt = head["input_id"], head["attempt"]
        self.cancelled.discard(input_id)
        size = payload.size_of(parts)
        outcome.update(input_id=input_id, attempt=attempt, started_at=started, ended_at=time.time())
        if size > MAX_INLINE:
            name = f"out-{input_id}-{attempt}"
            try:
                _write(os.path.join(self._spool, name), parts)
            except OSError as error:
                if outcome["status"] != ResultStatus.SUCCESS:
                    outcome["failure"].pop("pickled", None)
                    return outcome, []
                sentence = f"the result of {self._name}() ({size} bytes) could not be kept: {error.strerror}"
                return self._finish(head, started, *self._raised(RemoteError(sentence, hint="free some disk space")))
            outcome.update(spool=name, size=size)
            parts = []
        stdio.flush()
        return outcome, parts


def _nothing() -> None:
    return None


def _qualified(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _mapped(path: str) -> Any:
    """A private, writable mapping of a file: no copy, and arrays in it may be changed."""
    import mmap  # noqa: PLC0415  only large arguments pay for it

    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def _write(path: str, parts: List[Any]) -> None:
    """Write the whole file or none."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, payload.size_of(parts))  # writing is twice as fast, and fails at once
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(descriptor, view) :]
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
