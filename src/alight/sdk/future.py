"""What a verb may await: a value that another thread brings, with or without an end to the waiting."""

from __future__ import annotations

import _thread
from typing import Any, Callable, Generator, List, Optional

_allocate_lock = _thread.allocate_lock


class Future:
    """A value that another thread brings, once. Setting it twice keeps the first."""

    __slots__ = ("_callbacks", "_done", "_error", "_gate", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._done = False
        self._value: Any = None
        self._error: Optional[BaseException] = None
        self._gate: Any = None
        self._callbacks: Optional[List[Callable[[], Any]]] = None

    def done(self) -> bool:
        return self._done

    def result(self) -> Any:
        """The value; raises the error. Only when done."""
        if self._error is not None:
            raise self._error
        return self._value

    def set(self, value: Any = None, error: Optional[BaseException] = None) -> None:
        with self._lock:
            if self._done:
                return
            self._value, self._error, self._done = value, error, True
            gate, callbacks, self._callbacks = self._gate, self._callbacks, None
        if gate is not None:
            gate.release()
        for callback in callbacks or ():
            callback()

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Block this thread until done, at most ``timeout`` seconds. Returns whether it is done."""
        with self._lock:
            if self._done:
                return True
            if self._gate is None:
                self._gate = _allocate_lock()
                self._gate.acquire()
            gate = self._gate
        if gate.acquire(True, -1 if timeout is None else max(0.0, timeout)):
            gate.release()  # let the next waiter through
        return self._done

    def add_callback(self, callback: Callable[[], Any]) -> None:
        """Call it when done, in the thread that brought the value; at once when done already."""
        with self._lock:
            if not self._done:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def within(self, seconds: Optional[float]) -> Within:
        """``await future.within(2)``: whether it was done in that time. Does not raise the future's error."""
        return Within(self, seconds)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self._done:
            yield self
        return self.result()


class Within:
    """Waiting for a future with an end."""

    __slots__ = ("future", "seconds")

    def __init__(self, future: Future, seconds: Optional[float]) -> None:
        self.future = future
        self.seconds = seconds

    def wait(self) -> bool:
        return self.future.wait(self.seconds)

    def __await__(self) -> Generator[Any, None, bool]:
        if not self.future.done():
            yield self
        return self.future.done()


async def sleep(seconds: float) -> None:
    """Wait without blocking a caller's event loop."""
    await Future().within(seconds)
