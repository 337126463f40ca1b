"""Every verb is written once, as ``async def``, and works both ways.

``f.verb(…)`` blocks: a trampoline sends into the coroutine and blocks on the future that it awaits. There is no event
loop and asyncio is not imported. ``f.verb.aio(…)`` is a coroutine for the caller's own loop. Inside this package
verbs await each other through ``.raw``, which is the coroutine function itself.

A verb may await only what this file defines (Future, within, sleep) and other verbs; with ``.aio`` foreign awaitables
pass through, blocking they are an error.
"""

from __future__ import annotations

import _thread
import functools
import os
import sys
import types
import warnings
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Coroutine,
    Generator,
    Generic,
    List,
    Optional,
    Protocol,
    Set,
    TypeVar,
    Union,
)

from alight.wire.errors import AsyncUsageWarning, BuiltinTimeoutError, Error

T = TypeVar("T")
S = TypeVar("S")
R = TypeVar("R")

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


def run(coroutine: Any, name: str = "") -> Any:
    """Run a verb's coroutine to its end in this thread, blocking."""
    _warn_in_loop(name)
    send = coroutine.send
    try:
        step = send(None)
        while True:
            try:
                _ours(step).wait()
            except BaseException as error:  # noqa: BLE001  the coroutine itself decides what an interrupt means
                step = coroutine.throw(error)
            else:
                step = send(None)
    except StopIteration as stop:
        return stop.value


def _ours(step: Any) -> Union[Future, Within]:
    if not isinstance(step, (Future, Within)):
        raise RuntimeError("this awaits something of an event loop: call it with `.aio` there")  # noqa: TRY004  misuse
    return step


@types.coroutine
def in_loop(coroutine: Any) -> Generator[Any, Any, Any]:
    """The same coroutine, driven by the running asyncio loop."""
    error: Optional[BaseException] = None
    value: Any = None
    while True:
        try:
            step = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            if isinstance(step, (Future, Within)):
                yield from _loop_waiter(step)
            else:
                value = yield step
        except BaseException as raised:  # noqa: BLE001  cancellation and GeneratorExit go into the coroutine too
            error = raised


def _loop_waiter(step: Union[Future, Within]) -> Generator[Any, Any, Any]:
    loop = sys.modules["asyncio"].get_running_loop()
    waiter = loop.create_future()
    future, seconds = (step.future, step.seconds) if isinstance(step, Within) else (step, None)

    def release() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def on_done() -> None:
        try:
            loop.call_soon_threadsafe(release)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return

    future.add_callback(on_done)
    timer = None if seconds is None else loop.call_later(seconds, release)
    try:
        yield from waiter.__await__()
    finally:
        if timer is not None:
            timer.cancel()


class Items:
    """An async generator that both ``for`` and ``async for`` accept."""

    def __init__(self, generator: Any, name: str) -> None:
        self._generator = generator
        self._name = name

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> Any:
        try:
            return run(self._generator.__anext__(), self._name)
        except StopAsyncIteration:
            raise StopIteration from None
        except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
            raise _plainly(error)  # noqa: B904  it is the same one

    def close(self) -> None:
        run(self._generator.aclose())

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        return await in_loop(self._generator.__anext__())

    async def aclose(self) -> None:
        await in_loop(self._generator.aclose())


class Chunks(Protocol):
    """Items that come in lists. What a verb of ``dual_chunks`` returns."""

    unread: str  # what it means that nobody ever asked; "" when that means nothing

    async def more(self) -> Optional[List[Any]]:
        """The next items, None when there are no more."""

    def close(self) -> None:
        """Nobody asks again. Must not wait."""


class Chunked:
    """What comes in lists, one item at a time, for both ``for`` and ``async for``.

    Between two lists an item costs what an item of a list costs: no coroutine, no lock, no event loop.
    """

    def __init__(self, source: Chunks, name: str) -> None:
        self._source = source
        self._name = name
        self._iterator: Any = None

    def __iter__(self) -> Any:
        # The generator knows nothing of this object, so that a `break` ends it at once and not when a cycle is found.
        if self._iterator is None:
            self._iterator = _each(self._source, self._name)
        return self._iterator

    def __next__(self) -> Any:
        return next(iter(self))

    def close(self) -> None:
        self._source.close()
        if self._iterator is None:
            self._iterator = iter(())

    def __aiter__(self) -> Any:
        if self._iterator is None:
            self._iterator = _each_in_loop(self._source)
        return self._iterator

    async def __anext__(self) -> Any:
        return await self.__aiter__().__anext__()

    async def aclose(self) -> None:
        self.close()

    def __del__(self) -> None:
        if self._iterator is None and self._source.unread:
            warnings.warn(
                f"{self._name}(…) was never iterated: {self._source.unread}", RuntimeWarning, stacklevel=2, source=self
            )


def _each(source: Chunks, name: str) -> Generator[Any, None, None]:
    try:
        while True:
            try:
                items = run(source.more(), name)
            except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
                raise _plainly(error)  # noqa: B904  it is the same one
            if items is None:
                return
            yield from items
    finally:
        source.close()


async def _each_in_loop(source: Chunks) -> AsyncGenerator[Any, None]:
    try:
        while True:
            items = await in_loop(source.more())
            if items is None:
                return
            for item in items:
                yield item
    finally:
        source.close()


class Context:
    """An async generator with one ``yield``, as a context manager for both ``with`` and ``async with``."""

    def __init__(self, generator: Any, name: str) -> None:
        self._generator = generator
        self._name = name

    def __enter__(self) -> Any:
        try:
            return run(self._generator.__anext__(), self._name)
        except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
            raise _plainly(error)  # noqa: B904  it is the same one

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        step = self._generator.__anext__() if kind is None else self._generator.athrow(error or kind())
        try:
            run(step)
        except StopAsyncIteration:
            return kind is not None
        except BaseException as raised:
            if raised is error:
                raised.__traceback__ = traceback
                return False
            raise
        raise RuntimeError(f"{self._name} yielded twice")

    async def __aenter__(self) -> Any:
        return await in_loop(self._generator.__anext__())

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        step = self._generator.__anext__() if kind is None else self._generator.athrow(error or kind())
        try:
            await in_loop(step)
        except StopAsyncIteration:
            return kind is not None
        except BaseException as raised:
            if raised is error:
                raised.__traceback__ = traceback
                return False
            raise
        raise RuntimeError(f"{self._name} yielded twice")


def in_event_loop() -> bool:
    """Whether an asyncio loop runs in this thread."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None  # noqa: SLF001  its public twin raises


def _warn_in_loop(name: str) -> None:
    if not in_event_loop() or not name or name in _WARNED:
        return
    _WARNED.add(name)
    setting = os.environ.get("ALIGHT_ASYNC_WARNINGS") or os.environ.get("MODAL_ASYNC_WARNINGS") or "1"
    if setting.lower() in {"0", "false", "no"}:
        return
    warnings.warn(
        f"{name}(…) blocks the event loop that it is called in: write `await {name}.aio(…)`",
        AsyncUsageWarning,
        stacklevel=4,
    )


_WARNED: Set[str] = set()


# The decorators. Type checkers read the first half, Python the second: ParamSpec is not in Python 3.9.

if TYPE_CHECKING:
    from typing import AsyncContextManager, AsyncGenerator, AsyncIterator, ContextManager, Iterator

    from typing_extensions import Concatenate, ParamSpec

    P = ParamSpec("P")

    class Verb(Generic[P, R]):
        """A verb on its object: blocking when called, ``.aio`` for event loops, ``.raw`` for other verbs."""

        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def aio(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
        def raw(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...

    class dual(Generic[S, P, R]):  # noqa: N801  a decorator
        def __init__(self, function: Callable[Concatenate[S, P], Coroutine[Any, Any, R]]) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> Verb[P, R]: ...

    def dual_function(function: Callable[P, Coroutine[Any, Any, R]]) -> Verb[P, R]: ...

    class GenVerb(Generic[P, R]):
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[R]: ...
        def aio(self, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]: ...
        def raw(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]: ...

    class dual_gen(Generic[S, P, R]):  # noqa: N801  a decorator
        def __init__(self, function: Callable[Concatenate[S, P], AsyncIterator[R]]) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> GenVerb[P, R]: ...

    class dual_chunks(Generic[S, P]):  # noqa: N801  a decorator
        def __init__(self, function: Callable[Concatenate[S, P], Chunks]) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> GenVerb[P, Any]: ...

    class BothContext(ContextManager[R], AsyncContextManager[R]): ...

    class ContextVerb(Generic[P, R]):
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> BothContext[R]: ...
        def aio(self, *args: P.args, **kwargs: P.kwargs) -> BothContext[R]: ...
        def raw(self, *args: P.args, **kwargs: P.kwargs) -> AsyncGenerator[R, None]: ...

    class dual_context(Generic[S, P, R]):  # noqa: N801  a decorator
        def __init__(self, function: Callable[Concatenate[S, P], AsyncIterator[R]]) -> None: ...
        def __get__(self, instance: Any, owner: Any) -> ContextVerb[P, R]: ...

    def dual_context_function(function: Callable[P, AsyncIterator[R]]) -> ContextVerb[P, R]: ...

else:

    class Verb:
        """A callable with ``.aio`` and ``.raw``. ``__wrapped__`` shows its signature to inspect and help()."""

        def __init__(self, raw: Any, kind: Any) -> None:
            self.raw = raw
            self.kind = kind
            self.__wrapped__ = raw
            self.__doc__ = raw.__doc__

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            raw = self.raw
            try:
                return self.kind[0](raw(*args, **kwargs), _short(raw))
            except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
                raise _plainly(error)  # noqa: B904  it is the same one

        def aio(self, *args: Any, **kwargs: Any) -> Any:
            raw = self.raw
            return self.kind[1](raw(*args, **kwargs), _short(raw))

        def __getattr__(self, name: str) -> Any:
            if name in {"__name__", "__qualname__", "__module__"}:
                return getattr(self.raw, name)
            raise AttributeError(name)

        def __repr__(self) -> str:
            return f"<verb {getattr(self.raw, '__qualname__', '?')}>"

    class _Dual:
        """The descriptor half: makes a Verb of a method when it is looked up on an object."""

        kind: Any = ()

        def __init__(self, function: Any) -> None:
            self.raw = function
            self.__wrapped__ = function
            self.__doc__ = function.__doc__
            self.__name__ = function.__name__
            self.__qualname__ = function.__qualname__
            self.__module__ = function.__module__

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            if instance is None:
                return self
            return Verb(types.MethodType(self.raw, instance), self.kind)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return Verb(self.raw, self.kind)(*args, **kwargs)

        def aio(self, *args: Any, **kwargs: Any) -> Any:
            return Verb(self.raw, self.kind).aio(*args, **kwargs)

    def _short(raw: Any) -> str:
        return ".".join(raw.__qualname__.split(".")[-2:])

    async def _await(coroutine: Any, _name: str) -> Any:
        return await in_loop(coroutine)

    _CALL = (run, _await)
    _ITEMS = (Items, Items)
    _CHUNKS = (Chunked, Chunked)
    _CONTEXT = (Context, Context)

    class dual(_Dual):  # noqa: N801  a decorator
        """``@dual async def verb(self, …)``."""

        kind = _CALL

    class dual_gen(_Dual):  # noqa: N801  a decorator
        """``@dual_gen async def verb(self, …): yield …``."""

        kind = _ITEMS

    class dual_chunks(_Dual):  # noqa: N801  a decorator
        """``@dual_chunks def verb(self, …): return Chunks``: a generator whose items come in lists."""

        kind = _CHUNKS

    class dual_context(_Dual):  # noqa: N801  a decorator
        """``@dual_context async def verb(self, …): yield once``."""

        kind = _CONTEXT

    def dual_function(function: Any) -> Any:
        """``dual`` for functions without a self: module level and static methods."""
        return functools.wraps(function)(Verb(function, _CALL))

    def dual_context_function(function: Any) -> Any:
        """``dual_context`` for functions without a self."""
        return functools.wraps(function)(Verb(function, _CONTEXT))


def _plainly(error: BaseException) -> BaseException:
    """An error on its way to the user's code, without the lines of this package on top of it."""
    ours = isinstance(error, (Error, KeyboardInterrupt, BuiltinTimeoutError)) or id(error) in _PLAIN
    if not ours or _full_tracebacks():
        return error
    _PLAIN.discard(id(error))
    step = error.__traceback__
    while step is not None and step.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        step = step.tb_next
    return error.with_traceback(step)


def _full_tracebacks() -> bool:
    return any(os.environ.get(name, "0") not in {"0", ""} for name in ("ALIGHT_TRACEBACK", "MODAL_TRACEBACK"))


def show_plainly(error: BaseException) -> None:
    """Remember that an exception is the user's own (from a container), so that our lines don't stand in its
    traceback.
    """
    _PLAIN.add(id(error))


#: Identities of remote exceptions between being made and being raised out of a verb.
_PLAIN: Set[int] = set()
_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep


def call_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of this package to its end, without a word about event loops."""
    result: T = run(coroutine)
    return result


__all__ = [
    "Chunked",
    "Chunks",
    "Context",
    "Future",
    "Items",
    "Verb",
    "Within",
    "call_blocking",
    "dual",
    "dual_chunks",
    "dual_context",
    "dual_context_function",
    "dual_function",
    "dual_gen",
    "in_event_loop",
    "in_loop",
    "run",
    "show_plainly",
    "sleep",
]
