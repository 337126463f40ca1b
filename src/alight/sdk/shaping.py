"""What decorators below `@app.function` and `@app.cls` say about a function or class, and those that shape its inputs.

A decorator returns a ``Shaped``: the raw function with its ``Shape``. It can be called as the function itself, so that
tests see nothing of it; `App.function` and `App.cls` take it apart again.
"""

from __future__ import annotations

import functools
import types
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from alight.wire.errors import InvalidError
from alight.wire.record import dataclass, replace

_MOST_IN_BATCH = 1000
_LONGEST_WAIT_MS = 600_000
_LARGEST_CLUSTER = 64
_WEB = frozenset({"asgi_app", "fastapi_endpoint", "web_server", "wsgi_app"})
_HOOKS = frozenset({"enter", "exit"})

# Flags of code objects: inspect knows them by name, and costs more than all of this.
COROUTINE = 0x80
ASYNC_GENERATOR = 0x200
GENERATORS = 0x20 | ASYNC_GENERATOR

#: On an instance whose methods are handles as well (`cls.bind_instance`): what makes the handles.
HANDLES = "_alight_object"


@dataclass(frozen=True)
class Shape:
    """What the decorators said. ``words`` are their names, the innermost first."""

    words: Tuple[str, ...] = ()
    method: bool = False
    is_generator: Optional[bool] = None
    enter: str = ""  # "start", or "snap": before the snapshot
    exit: bool = False
    web: Optional[Mapping[str, Any]] = None  # "kind" (a decorator's name) and its values
    max_concurrent_inputs: int = 0  # 0: one at a time, and nothing was said
    target_concurrent_inputs: Optional[int] = None
    batch: Optional[Tuple[int, int]] = None  # most inputs, longest wait in milliseconds
    cluster: Optional[Tuple[int, bool]] = None  # how many containers, whether with RDMA
    sessioned: bool = False

    @property
    def is_method(self) -> bool:
        """Whether callers of a class may name it."""
        return self.method or self.batch is not None or self.web is not None


_NOTHING: Dict[str, Any] = {}


class Shaped:
    """A function, method or class with its shape."""

    def __init__(self, raw: Any, shape: Shape) -> None:
        functools.update_wrapper(self, raw, updated=())
        self._raw = raw
        self.shape = shape
        self.attribute = ""  # the name that a class has for it

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = self.attribute or name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._raw(*args, **kwargs)

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        handles = getattr(instance, "__dict__", _NOTHING).get(HANDLES)
        if handles is not None and self.shape.is_method:
            return handles.inside(self, instance)
        return types.MethodType(self._raw, instance)

    def __repr__(self) -> str:
        return f"<{self._raw!r} with {', '.join(f'@{word}()' for word in self.shape.words)}>"


def of(thing: Any) -> Shape:
    """The shape of what a decorator got; an empty one for a plain function."""
    return thing.shape if isinstance(thing, Shaped) else Shape()


def raw_of(thing: Any) -> Any:
    """The function or class itself."""
    return thing._raw if isinstance(thing, Shaped) else thing  # noqa: SLF001  of this file


def add(thing: Any, word: str, **said: Any) -> Shaped:
    """What the decorator ``word`` returns: ``thing`` with one more thing said. InvalidError where it cannot stand."""
    raw, shape = raw_of(thing), of(thing)
    if not isinstance(thing, Shaped) and getattr(thing, "_raw", None) is not None:
        hint = f"put @{word}() below it, next to the function"
        raise InvalidError(f"@{word}() stands above @app.function() or @app.cls()", hint=hint)
    if isinstance(raw, (staticmethod, classmethod)):
        raise InvalidError(f"@{word}() is for functions and methods, not for a {type(raw).__name__}")
    if not callable(raw):
        raise InvalidError(f"@{word}() is for functions, not for {type(raw).__name__}")
    clash = [other for other in shape.words if _exclude(word, other)]
    if clash:
        raise InvalidError(f"@{word}() and @{clash[0]}() cannot be on one function")
    return Shaped(raw, replace(shape, words=(*shape.words, word), **said))


def needs_parentheses(word: str, given: Any) -> None:
    """Raise InvalidError when a decorator was written without its parentheses."""
    if given is not None:
        raise InvalidError(f"@{word} needs its parentheses", hint=f"write @{word}(…)")


def concurrent(
    _given: Any = None, /, *, max_inputs: Optional[int] = None, target_inputs: Optional[int] = None
) -> Callable[[Any], Shaped]:
    """Let one container take several inputs at once.

    ``max_inputs`` is the most it takes, ``target_inputs`` what scaling aims at (default: the most). Coroutines share
    one event loop, plain functions run in threads, so they must be safe for that.
    """
    needs_parentheses("concurrent", _given)
    if max_inputs is None:
        raise InvalidError("@concurrent() needs max_inputs", hint="for example @concurrent(max_inputs=10)")
    check_concurrent("@concurrent", max_inputs, target_inputs)
    said: Dict[str, Any] = {"max_concurrent_inputs": max_inputs, "target_concurrent_inputs": target_inputs}
    return lambda thing: add(thing, "concurrent", **said)


def batched(_given: Any = None, /, *, max_batch_size: int, wait_ms: int) -> Callable[[Any], Shaped]:
    """Gather up to ``max_batch_size`` inputs, for at most ``wait_ms`` milliseconds, into one run of the function.

    Callers pass single values; the function gets lists of one length and returns a list of that length.
    """
    needs_parentheses("batched", _given)
    check_batched("@batched", max_batch_size, wait_ms)
    return lambda thing: add(_batchable(thing), "batched", batch=(max_batch_size, wait_ms))


def clustered(_given: Any = None, /, *, size: int, rdma: bool = False) -> Callable[[Any], Shaped]:
    """Run each input on ``size`` containers at once that can reach each other; the result is that of rank 0.

    They start together, or not at all, and a rank that fails fails the input. ``rdma`` changes nothing: all are on one
    machine.
    """
    needs_parentheses("clustered", _given)
    _whole("@clustered", "size", size, 1, _LARGEST_CLUSTER)
    return lambda thing: add(thing, "clustered", cluster=(size, bool(rdma)))


def sessioned(_given: Any = None, /) -> Callable[[Any], Shaped]:
    """Keep the requests of one session on one container of a server class."""
    needs_parentheses("sessioned", _given)
    return lambda thing: add(thing, "sessioned", sessioned=True)


def check_concurrent(word: str, max_inputs: Any, target_inputs: Any) -> None:
    """InvalidError for numbers that ``word`` (as it is written) cannot take."""
    _whole(word, "max_inputs", max_inputs, 1)
    if target_inputs is not None:
        _whole(word, "target_inputs", target_inputs, 1)
        if target_inputs > max_inputs:
            raise InvalidError(f"{word}(): target_inputs ({target_inputs}) is above max_inputs ({max_inputs})")


def check_batched(word: str, max_batch_size: Any, wait_ms: Any) -> None:
    """InvalidError for numbers that ``word`` (as it is written) cannot take."""
    _whole(word, "max_batch_size", max_batch_size, 1, _MOST_IN_BATCH)
    _whole(word, "wait_ms", wait_ms, 0, _LONGEST_WAIT_MS)


def _batchable(thing: Any) -> Any:
    """A function that can take lists for single values."""
    raw = raw_of(thing)
    if isinstance(raw, type):
        raise InvalidError(
            f"@batched() is for the method that takes the batches, not for the class {raw.__name__}",
            hint="put it on the class's only method",
        )
    if getattr(raw, "__defaults__", None) or getattr(raw, "__kwdefaults__", None):
        raise InvalidError(
            f"@batched(): a parameter of {raw.__name__}() has a default, and every input of a batch passes all of them",
            hint="leave the default out",
        )
    if of(thing).is_generator or getattr(getattr(raw, "__code__", None), "co_flags", 0) & GENERATORS:
        raise InvalidError(f"@batched(): {raw.__name__}() is a generator; a batch is answered with a list")
    return thing


def _exclude(one: str, other: str) -> bool:
    pair = {one, other}
    if one == other or pair <= _WEB or pair == {"batched", "concurrent"}:
        return True
    if "clustered" in pair and pair & {"concurrent", "batched", *_WEB}:
        return True  # its containers take one input at a time, all together
    return bool(pair & _HOOKS and pair - _HOOKS) or ("batched" in pair and bool(pair & _WEB))


def _whole(word: str, name: str, value: Any, least: int, most: Optional[int] = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"{word}(): {name} is a whole number, not {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidError(f"{word}(): {name} must be {limits}, not {value}")
