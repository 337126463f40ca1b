"""Every verb is written once, as ``async def``, and works both ways.

``f.verb(…)`` blocks: a trampoline sends into the coroutine and blocks on the future that it awaits. There is no event
loop and asyncio is not imported. ``f.verb.aio(…)`` is a coroutine for the caller's own loop. Inside this package
verbs await each other through ``.raw``, which is the coroutine function itself.

A verb may await only what ``future`` defines (Future, within, sleep) and other verbs; with ``.aio`` foreign awaitables
pass through, blocking they are an error. This file has the decorators, and the names that verbs are written with.
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, Callable, Coroutine, Generic, TypeVar

from alight.sdk.both_ways import Chunked, Chunks, Context, Items
from alight.sdk.future import Future, Within, sleep
from alight.sdk.plainly import plainly, show_plainly
from alight.sdk.trampoline import call_blocking, in_event_loop, in_loop, run

S = TypeVar("S")
R = TypeVar("R")

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
                raise plainly(error)  # noqa: B904  it is the same one

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
