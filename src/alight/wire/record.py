"""Plain data that costs nothing until it is used: ``dataclass`` as ``dataclasses`` has it, without importing that.

A container imports some hundred messages to send three. ``dataclasses`` compiles code for each of them as soon as it is
defined, and imports ``inspect``, ``ast`` and ``dis`` for that: more than half of what a cold start may take. Here a
class gets its ``__init__`` when the first one of it is made, and real ``__dataclass_fields__`` when somebody asks
(``dataclasses.fields``, msgspec). From then on it is as fast as any dataclass, because it has the same code.

Must not know anything of messages, nor import more than the interpreter has at its start. Less than the original where
nothing of ours needs it: no inheritance, no ClassVar, no other parameters than those below.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dataclasses import dataclass, field, replace
    from typing import Any, Callable, Dict, Optional, Tuple

__all__ = ["MISSING", "Shape", "dataclass", "field", "replace", "shape_of"]

#: Says that a field has no default, or no factory.
MISSING: Any = object()


class Shape:
    """What a record is made of: the names in order, and their defaults."""

    __slots__ = ("annotations", "defaults", "factories", "frozen", "names")

    def __init__(self, annotations: Dict[str, str], frozen: bool) -> None:
        self.annotations = annotations
        self.names: Tuple[str, ...] = tuple(annotations)
        self.defaults: Dict[str, Any] = {}
        self.factories: Dict[str, Callable[[], Any]] = {}
        self.frozen = frozen


def shape_of(kind: type) -> Optional[Shape]:
    """The shape of a record; None for every other class."""
    return getattr(kind, "__record__", None)


if not TYPE_CHECKING:

    def field(*, default: Any = MISSING, default_factory: Any = MISSING) -> Any:
        """A default that is made for each record."""
        return _Field(default, default_factory)

    def dataclass(kind: Any = None, *, frozen: bool = False) -> Any:
        """The decorator."""
        if kind is None:
            return lambda kind: _made(kind, frozen)
        return _made(kind, frozen)

    def replace(record: Any, **changes: Any) -> Any:
        """A copy with some fields changed."""
        for name in record.__match_args__:
            if name not in changes:
                changes[name] = getattr(record, name)
        return type(record)(**changes)


class _Field:
    __slots__ = ("default", "default_factory")

    def __init__(self, default: Any, default_factory: Any) -> None:
        self.default = default
        self.default_factory = default_factory


def _made(kind: Any, frozen: bool) -> Any:
    if kind.__bases__ != (object,):
        raise TypeError(f"{kind.__name__}: a record has no bases")
    shape = Shape(getattr(kind, "__annotations__", {}), frozen)
    for name in shape.names:
        default = kind.__dict__.get(name, MISSING)
        if isinstance(default, _Field):
            if default.default_factory is not MISSING:
                shape.factories[name] = default.default_factory
            default = default.default
            if default is MISSING:
                delattr(kind, name)
            else:
                setattr(kind, name, default)
        if default is not MISSING:
            shape.defaults[name] = default
        elif name not in shape.factories and (shape.defaults or shape.factories):
            raise TypeError(f"{kind.__name__}.{name} has no default and follows a field that has one")
    kind.__record__ = shape
    setattr(kind, "__match_args__", shape.names)  # noqa: B010  checkers think that it is theirs alone
    kind.__dataclass_fields__ = _Asked(kind, "__dataclass_fields__")
    kind.__dataclass_params__ = _Asked(kind, "__dataclass_params__")
    kind.__signature__ = _Asked(kind, "__signature__")

    def first(self: Any, *args: Any, **kwargs: Any) -> None:
        kind.__init__ = _init(kind, shape)
        kind.__init__(self, *args, **kwargs)

    kind.__init__ = first
    # A class may have said any of these itself.
    said = kind.__dict__
    if "__repr__" not in said:
        kind.__repr__ = _repr
    if "__eq__" not in said:
        kind.__eq__ = _eq
        kind.__hash__ = _hash if frozen else None
    if frozen:
        kind.__setattr__ = _refuse_to_set
        kind.__delattr__ = _refuse_to_delete
    return kind


class _Asked:
    """An attribute of the class that is computed when somebody looks at it, and an ordinary one from then on."""

    __slots__ = ("_kind", "_name")

    def __init__(self, kind: Any, name: str) -> None:
        self._kind = kind
        self._name = name

    def __get__(self, _instance: Any, _owner: Any = None) -> Any:
        import dataclasses  # noqa: PLC0415  whoever asks has them
        import inspect  # noqa: PLC0415

        kind, shape = self._kind, self._kind.__record__
        space: Dict[str, Any] = {"__module__": kind.__module__, "__annotations__": shape.annotations}
        space.update(shape.defaults)
        space.update({name: dataclasses.field(default_factory=make) for name, make in shape.factories.items()})
        same: Any = dataclasses.dataclass(init=False, repr=False, eq=False, frozen=shape.frozen)(
            type(kind.__name__, (), space)
        )
        signature = inspect.signature(_init(kind, shape))
        kind.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])
        kind.__dataclass_params__ = same.__dataclass_params__
        kind.__dataclass_fields__ = same.__dataclass_fields__
        return getattr(kind, self._name)


def _init(kind: Any, shape: Shape) -> Callable[..., None]:
    space: Dict[str, Any] = {"_missing": MISSING, "_set": object.__setattr__}
    parameters, body = ["self"], []
    for number, name in enumerate(shape.names):
        value = name
        if name in shape.factories:
            space[f"_make{number}"] = shape.factories[name]
            parameters.append(f"{name}=_missing")
            value = f"_make{number}() if {name} is _missing else {name}"
        elif name in shape.defaults:
            space[f"_default{number}"] = shape.defaults[name]
            parameters.append(f"{name}=_default{number}")
        else:
            parameters.append(name)
        body.append(f" _set(self, {name!r}, {value})" if shape.frozen else f" self.{name} = {value}")
    if hasattr(kind, "__post_init__"):
        body.append(" self.__post_init__()")
    text = "\n".join([f"def __init__({', '.join(parameters)}):", *(body or [" pass"])])
    exec(text, space)  # noqa: S102  names and nothing else, all our own
    made: Any = space["__init__"]
    made.__qualname__ = f"{kind.__qualname__}.__init__"
    made.__annotations__ = {**shape.annotations, "return": None}
    result: Callable[..., None] = made
    return result


def _values(record: Any) -> Tuple[Any, ...]:
    return tuple([getattr(record, name) for name in record.__match_args__])


def _repr(self: Any) -> str:
    fields = ", ".join([f"{name}={getattr(self, name)!r}" for name in self.__match_args__])
    return f"{type(self).__qualname__}({fields})"


def _eq(self: Any, other: object) -> Any:
    if type(other) is not type(self):
        return NotImplemented
    return _values(self) == _values(other)


def _hash(self: Any) -> int:
    return hash(_values(self))


def _refuse_to_set(self: Any, name: str, _value: Any) -> None:
    _refuse(self, name, "set")


def _refuse_to_delete(self: Any, name: str) -> None:
    _refuse(self, name, "deleted")


def _refuse(record: Any, name: str, what: str) -> None:
    dataclasses = sys.modules.get("dataclasses")
    kind = AttributeError if dataclasses is None else dataclasses.FrozenInstanceError
    raise kind(f"{name!r} of a {type(record).__name__} cannot be {what}")
