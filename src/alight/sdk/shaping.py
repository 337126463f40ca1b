"""Decorators that shape how a function takes inputs: several at once, in batches, on several machines, by session."""

from __future__ import annotations

from typing import Any, Callable, Optional, TypeVar

from alight.sdk.marks import mark, needs_parentheses
from alight.wire.errors import InvalidError

F = TypeVar("F", bound=Callable[..., Any])

_MOST_IN_BATCH = 1000
_LONGEST_WAIT_MS = 600_000


def concurrent(
    _given: Any = None, /, *, max_inputs: Optional[int] = None, target_inputs: Optional[int] = None
) -> Callable[[F], F]:
    """Let one container take several inputs at once.

    ``max_inputs`` is the most it takes, ``target_inputs`` what scaling aims at (default: the most). Coroutines share
    one event loop, plain functions run in threads, so they must be safe for that.
    """
    needs_parentheses("concurrent", _given)
    if max_inputs is None:
        raise InvalidError("@concurrent() needs max_inputs", hint="for example @concurrent(max_inputs=10)")
    _whole("concurrent", "max_inputs", max_inputs, 1)
    if target_inputs is not None:
        _whole("concurrent", "target_inputs", target_inputs, 1)
        if target_inputs > max_inputs:
            raise InvalidError(f"@concurrent(): target_inputs ({target_inputs}) is above max_inputs ({max_inputs})")
    values = {"max_inputs": max_inputs, "target_inputs": target_inputs}
    return lambda function: mark(function, "concurrent", values)


def batched(_given: Any = None, /, *, max_batch_size: int, wait_ms: int) -> Callable[[F], F]:
    """Gather up to ``max_batch_size`` inputs, for at most ``wait_ms`` milliseconds, into one run of the function.

    Callers pass single values; the function gets lists of one length and returns a list of that length.
    """
    needs_parentheses("batched", _given)
    _whole("batched", "max_batch_size", max_batch_size, 1, _MOST_IN_BATCH)
    _whole("batched", "wait_ms", wait_ms, 0, _LONGEST_WAIT_MS)
    return lambda function: mark(function, "batched", {"max_batch_size": max_batch_size, "wait_ms": wait_ms})


def clustered(_given: Any = None, /, *, size: int, rdma: bool = False) -> Callable[[F], F]:
    """Run each input on ``size`` containers at once that can reach each other; the result is that of rank 0."""
    needs_parentheses("clustered", _given)
    _whole("clustered", "size", size, 1)
    return lambda function: mark(function, "clustered", {"size": size, "rdma": bool(rdma)})


def sessioned(_given: Any = None, /) -> Callable[[F], F]:
    """Keep the requests of one session on one container of a server class."""
    needs_parentheses("sessioned", _given)
    return lambda function: mark(function, "sessioned", {})


def _whole(word: str, name: str, value: Any, least: int, most: Optional[int] = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidError(f"@{word}(): {name} is a whole number, not {value!r}")
    if value < least or (most is not None and value > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidError(f"@{word}(): {name} must be {limits}, not {value}")
