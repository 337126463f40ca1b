"""Parameters of a class: ``x: int = alight.parameter(default=3)`` instead of an ``__init__``.

Declared ones are checked where the class is, given ones where an instance is made. A parameter set is what makes two
instances use the same containers.
"""

from __future__ import annotations

import sys
from typing import Any, Dict, Mapping, Optional, Tuple

from alight.wire.errors import InvalidError
from alight.wire.spec import ParameterSpec

_TYPES = (str, int, bytes, bool)
_FORWARDREF = 3  # annotationlib.Format.FORWARDREF: names that are for type checkers only are no error
_PLAIN = {kind.__name__: kind for kind in _TYPES}


class _NoDefault:
    def __repr__(self) -> str:
        return "modal.cls._NO_DEFAULT()"

    def __reduce__(self) -> str:
        return "NO_DEFAULT"


NO_DEFAULT: Any = _NoDefault()


class Parameter:
    """``parameter()``: a keyword of the class's constructor. On an instance it reads as its value."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init
        self.name = ""

    @property
    def has_default(self) -> bool:
        return self.default is not NO_DEFAULT

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        if self.name in instance.__dict__:
            return instance.__dict__[self.name]
        if self.has_default:
            return self.default
        raise AttributeError(f"{self.name} has no value yet")


def of_class(raw: type, name: str) -> Tuple[Dict[str, Parameter], Tuple[ParameterSpec, ...]]:
    """The parameters of a class and its bases, and what others must know of those that are given to its constructor.

    Raises InvalidError for one without a type, or of a type that a parameter cannot have.
    """
    found: Dict[str, Parameter] = {}
    for base in reversed(raw.__mro__):
        for attribute, value in vars(base).items():
            if isinstance(value, Parameter):
                found[attribute] = value
            else:
                found.pop(attribute, None)  # what a subclass makes a plain attribute is none any more
    if not found:
        return found, ()
    annotations = annotations_of(raw)
    specs = []
    for attribute, one in found.items():
        if not one.init:
            continue
        if attribute not in annotations:
            raise InvalidError(f"{name}.{attribute} needs a type", hint=f"{attribute}: int = alight.parameter(…)")
        kind = annotations[attribute]
        if kind not in _TYPES:
            shown = getattr(kind, "__name__", None) or repr(kind)
            raise InvalidError(f"{name}.{attribute} is {shown}; parameters are str, int, bytes or bool")
        specs.append(ParameterSpec(attribute, kind.__name__, required=not one.has_default))
        if one.has_default and not _is(one.default, kind.__name__):
            raise InvalidError(f"{name}.{attribute} is {kind.__name__}, and its default {one.default!r} is not")
    return found, tuple(specs)


def check_given(name: str, specs: Tuple[ParameterSpec, ...], given: Mapping[str, Any]) -> None:
    """InvalidError for what the constructor of class ``name`` cannot take, or lacks."""
    known = {one.name: one for one in specs}
    for parameter, value in given.items():
        if parameter not in known:
            raise InvalidError(
                f"{name} has no parameter {parameter!r}", hint=f"it has: {', '.join(sorted(known)) or 'none'}"
            )
        if not _is(value, known[parameter].type):
            raise InvalidError(f"{name}({parameter}=…) takes {known[parameter].type}, not {type(value).__name__}")
    missing = [one.name for one in specs if one.required and one.name not in given]
    if missing:
        words = ", ".join(f"{one}=" for one in missing)
        raise InvalidError(f"{name}() was made without {words}", hint="it has no default")


def check_kinds(name: str, given: Mapping[str, Any]) -> None:
    """InvalidError for values that no parameter of any class can have."""
    for parameter, value in given.items():
        if not isinstance(value, _TYPES):
            raise InvalidError(
                f"{name}({parameter}=…) is {type(value).__name__}; parameters are str, int, bytes or bool"
            )


def kinds(given: Mapping[str, Any]) -> Dict[str, str]:
    """The types of given values by name, in the server's words."""
    return {
        name: next(kind.__name__ for kind in (bool, *_TYPES) if isinstance(value, kind))
        for name, value in given.items()
    }


def annotations_of(raw: Optional[type]) -> Dict[str, Any]:
    """Of a class and its bases, by name; those written as text are resolved where that is plain."""
    found: Dict[str, Any] = {}
    for base in reversed(raw.__mro__ if raw is not None else ()):
        for name, value in _own_annotations(base).items():
            found[name] = _PLAIN.get(value, value) if isinstance(value, str) else value
    return found


def _own_annotations(base: type) -> Dict[str, Any]:
    own: Optional[Dict[str, Any]] = vars(base).get("__annotations__")
    if own is None and sys.version_info >= (3, 14) and base.__module__ != "builtins":
        import inspect  # noqa: PLC0415  there annotations are made when they are asked for

        own = inspect.get_annotations(base, format=_FORWARDREF)
    return own or {}


def _is(value: Any, kind: str) -> bool:
    expected = _PLAIN[kind]
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))
