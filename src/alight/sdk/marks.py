"""What decorators below `@app.function` and `@app.cls` say about a function: kept on the function itself.

A mark is a word and its values. The function stays the plain function that it was, so that tests, type checkers and
`.local()` see it; `App.function` and `App.cls` read the marks.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, TypeVar

from alight.wire.errors import InvalidError

F = TypeVar("F", bound=Callable[..., Any])

_ATTRIBUTE = "__alight_marks__"

#: How a function is reached; at most one of these.
WEB = frozenset({"asgi_app", "fastapi_endpoint", "web_server", "wsgi_app"})


def marks_of(function: Any) -> Mapping[str, Mapping[str, Any]]:
    """Every mark of a function or class, by word."""
    found: Mapping[str, Mapping[str, Any]] = getattr(function, _ATTRIBUTE, {})
    return found


def mark(function: F, word: str, values: Mapping[str, Any]) -> F:
    """Add a mark and return the function. Raises InvalidError where the decorator stands in a wrong place."""
    if getattr(function, "_raw", None) is not None:
        hint = f"put @{word}() below it, next to the function"
        raise InvalidError(f"@{word}() stands above @app.function()", hint=hint)
    if isinstance(function, (staticmethod, classmethod)):
        raise InvalidError(f"@{word}() is for functions and methods, not for a {type(function).__name__}")
    if not callable(function):
        raise InvalidError(f"@{word}() is for functions, not for {type(function).__name__}")
    present: Dict[str, Mapping[str, Any]] = dict(marks_of(function)) if _ATTRIBUTE in vars(function) else {}
    clash = [other for other in present if _exclude(word, other)]
    if clash:
        raise InvalidError(f"@{word}() and @{clash[0]}() cannot be on one function")
    present[word] = dict(values)
    try:
        setattr(function, _ATTRIBUTE, present)
    except (AttributeError, TypeError) as error:
        raise InvalidError(f"@{word}() needs a plain function, not {type(function).__name__}") from error
    return function


def needs_parentheses(word: str, given: Any) -> None:
    """Raise InvalidError when a decorator was written without its parentheses."""
    if given is not None:
        raise InvalidError(f"@{word} needs its parentheses", hint=f"write @{word}(…)")


def _exclude(one: str, other: str) -> bool:
    pair = {one, other}
    return one == other or pair <= WEB or pair == {"batched", "concurrent"} or ("batched" in pair and bool(pair & WEB))
