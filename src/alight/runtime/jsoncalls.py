"""Calls by programs without Python: arguments come as JSON and values leave as JSON. Loaded by the first such call.

A value that JSON lacks is the input's failure, and says of what type it is and where it lies.
"""

from __future__ import annotations

import json

from alight.wire import payload
from alight.wire.errors import InvalidError, SerializationError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Tuple

    from alight.runtime.runner import Target

_PLAIN = (str, int, float, bool, type(None))


def target(of: Target) -> Target:
    """What runs in the place of the function: it, and then its value as JSON."""
    call, name = of.call, of.name

    def answered(*args: Any, **kwargs: Any) -> Any:
        return encoded(call(*args, **kwargs), name)

    async def answered_later(*args: Any, **kwargs: Any) -> Any:
        return encoded(await call(*args, **kwargs), name)

    return type(of)(answered_later if of.is_async else answered, name)


def arguments(data: bytes, what: str) -> Tuple[List[Any], Dict[str, Any]]:
    """Positional and keyword arguments: {"args": […], "kwargs": {…}}. Raises InvalidError."""
    try:
        said = json.loads(bytes(data) or b"{}")
    except ValueError as error:
        raise InvalidError(f"{what} are no JSON: {error}") from None
    args, kwargs = (said.get("args", []), said.get("kwargs", {})) if isinstance(said, dict) else (None, None)
    if not isinstance(args, list) or not isinstance(kwargs, dict) or set(said) - {"args", "kwargs"}:
        raise InvalidError(f'{what} must look like this: {{"args": [1, 2], "kwargs": {{"name": 3}}}}')
    return args, kwargs


def encoded(value: Any, name: str) -> payload.Encoded:
    """A value as JSON. Raises SerializationError for what JSON lacks."""
    try:
        return payload.Encoded(json.dumps(value, allow_nan=False, separators=(",", ":")).encode())
    except (TypeError, ValueError, RecursionError):
        where, what = _culprit(value, "the result", 0)
        raise SerializationError(
            f"{where} of {name}() is {what}, which JSON lacks",
            hint="return numbers, strings, lists and dicts, or call it from Python",
        ) from None


def _culprit(value: Any, where: str, depth: int) -> Tuple[str, str]:
    """The first part of a value that is no JSON: where it is and of what type."""
    if depth > 100:
        return where, "nested too deeply"
    if isinstance(value, float):
        return where, repr(value)  # nan and the infinities
    if isinstance(value, dict):
        for key, one in value.items():
            if not isinstance(key, _PLAIN):
                return f"a key in {where}", _named(key)
            if not _is_json(one):
                return _culprit(one, f"[{key!r}] in {where}", depth + 1)
    if isinstance(value, (list, tuple)):
        for index, one in enumerate(value):
            if not _is_json(one):
                return _culprit(one, f"[{index}] in {where}", depth + 1)
    return where, _named(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _named(value: Any) -> str:
    kind = type(value)
    return f"of type {kind.__qualname__ if kind.__module__ == 'builtins' else f'{kind.__module__}.{kind.__qualname__}'}"
