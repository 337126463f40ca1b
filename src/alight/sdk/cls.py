"""Classes whose methods run in containers: what ``@app.cls`` makes of a class, and the decorators of its methods.

This version takes the declarations, so that scripts import; calling a method raises UnimplementedError.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, NoReturn, Optional, Sequence

from alight.sdk.client import Client
from alight.sdk.options import Options
from alight.sdk.shaping import Shaped, add, needs_parentheses
from alight.sdk.surface import UNIMPLEMENTED, unimplemented
from alight.sdk.sync import dual
from alight.wire.errors import InvalidError, UnimplementedError

_LATER = "methods of @app.cls classes run in containers from the next version on; use @app.function() until then"
_TYPES = (str, int, bytes, bool)

UNIMPLEMENTED["Cls.__call__"] = _LATER


class _NoDefault:
    def __repr__(self) -> str:
        return "modal.cls._NO_DEFAULT()"


_NO_DEFAULT: Any = _NoDefault()


class Parameter:
    """``parameter()``: a keyword of the class's constructor. On an instance it reads as its value."""

    def __init__(self, default: Any, init: bool) -> None:
        self.default = default
        self.init = init
        self.name = ""

    @property
    def has_default(self) -> bool:
        return self.default is not _NO_DEFAULT

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


def parameter(*, default: Any = _NO_DEFAULT, init: bool = True) -> Any:
    """A parameter of a class (``x: int = parameter(default=3)``); with ``init=False`` a plain attribute."""
    return Parameter(default, init)


def method(_given: Any = None, /, *, is_generator: Optional[bool] = None) -> Callable[[Any], Shaped]:
    """Make a method of an ``@app.cls`` class callable from outside."""
    needs_parentheses("method", _given)
    return lambda thing: add(thing, "method", method=True, is_generator=is_generator)


def enter(_given: Any = None, /, *, snap: bool = False) -> Callable[[Any], Shaped]:
    """Run a method when its container starts; with ``snap`` before the container is snapshotted."""
    needs_parentheses("enter", _given)
    return lambda thing: add(thing, "enter", enter="snap" if snap else "start")


def exit(_given: Any = None, /) -> Callable[[Any], Shaped]:
    """Run a method when its container ends."""
    needs_parentheses("exit", _given)
    return lambda thing: add(thing, "exit", exit=True)


class Obj:
    """An instance of a Cls: its methods are handles."""

    def __init__(self, cls: Cls, kwargs: Mapping[str, Any]) -> None:
        self._cls = cls
        self._kwargs = dict(kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in self._cls._methods:  # noqa: SLF001  of this file
            return LaterMethod(f"{self._cls._name}.{name}")  # noqa: SLF001
        raise AttributeError(f"{self._cls._name} has no method {name!r} with @method()")  # noqa: SLF001


class LaterMethod:
    """A method's handle; using it says that methods come later."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise UnimplementedError(f"{self._name} cannot be called: {_LATER}")

    remote = local = spawn = map = starmap = for_each = remote_gen = spawn_map = _refuse


class Cls:
    """A class whose methods run in containers. Made by ``@app.cls``."""

    def __init__(self, app: Any, name: str, raw: Optional[type], options: Options) -> None:
        self._app = app
        self._name = name
        self._raw = raw
        self._options = options
        self._methods: Dict[str, Callable[..., Any]] = {}
        self._parameters: Dict[str, Parameter] = {}
        if raw is not None:
            self.__name__ = raw.__name__
            self.__qualname__ = raw.__qualname__
            self.__module__ = raw.__module__
            self.__doc__ = raw.__doc__
            self._collect(raw)

    def __call__(self, *args: Any, **kwargs: Any) -> Obj:
        """An instance with these parameters, all by keyword."""
        if args:
            raise InvalidError(f"{self._name} takes its parameters by keyword", hint=f"{self._name}(name=value)")
        known = {name for name, one in self._parameters.items() if one.init}
        unknown = [name for name in kwargs if name not in known]
        if self._raw is not None and unknown:
            raise InvalidError(
                f"{self._name} has no parameter {unknown[0]!r}", hint=f"it has: {', '.join(sorted(known)) or 'none'}"
            )
        missing = [name for name in known if name not in kwargs and not self._parameters[name].has_default]
        if missing:
            raise InvalidError(f"{self._name} needs its parameter {missing[0]!r}")
        return Obj(self, kwargs)

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: Optional[int] = None,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> Cls:
        """A class of a deployed app, found at its first use."""
        del app_name, version, environment_name, client
        return cls(None, name, None, Options())

    @property
    @unimplemented("Cls.object_id would be the id of a class on the server; classes come with the next version")
    def object_id(self) -> str: ...

    @property
    def client(self) -> Optional[Client]:
        return None

    @dual
    @unimplemented("Cls.hydrate() would look the class up; classes come with the next version")
    async def hydrate(self, client: Optional[Client] = None) -> Cls: ...

    @dual
    @unimplemented("get_dashboard_url() would link to the class's page; there is no dashboard yet")
    async def get_dashboard_url(self) -> str: ...

    @unimplemented("Cls.with_options() would make a variant with other resources; classes come with the next version")
    def with_options(  # noqa: PLR0913  the public form
        self,
        *,
        cpu: Any = None,
        memory: Any = None,
        gpu: Optional[str] = None,
        env: Optional[Mapping[str, Optional[str]]] = None,
        secrets: Optional[Sequence[Any]] = None,
        volumes: Mapping[Any, Any] = {},
        retries: Any = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaledown_window: Optional[int] = None,
        timeout: Optional[int] = None,
        region: Any = None,
        cloud: Optional[str] = None,
        routing_region: Optional[str] = None,
    ) -> Cls: ...

    @unimplemented("Cls.with_concurrency() would change how many inputs run at a time; use @alight.concurrent")
    def with_concurrency(self, *, max_inputs: int, target_inputs: Optional[int] = None) -> Cls: ...

    @unimplemented("Cls.with_batching() would change the size of batches; use @alight.batched")
    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Cls: ...

    def _signature(self) -> Callable[..., None]:
        """A function whose parameters are the class's, for those that read signatures."""

        def constructor() -> None:
            """Of the class."""

        import inspect  # noqa: PLC0415  for those who read signatures, or classes with parameters

        constructor.__signature__ = inspect.Signature(  # type: ignore[attr-defined]  # inspect reads it
            [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    default=one.default if one.has_default else inspect.Parameter.empty,
                    annotation=_annotations(self._raw).get(name, inspect.Parameter.empty),
                )
                for name, one in self._parameters.items()
                if one.init
            ]
        )
        return constructor

    def _collect(self, raw: type) -> None:
        if "__init__" in raw.__dict__:
            raise InvalidError(
                f"{self._name} has an __init__, which @app.cls classes cannot have",
                hint="declare parameters with alight.parameter(), and do work in an @alight.enter() method",
            )
        for base in reversed(raw.__mro__):
            for name, value in vars(base).items():
                if isinstance(value, Parameter):
                    self._parameters[name] = value
                elif isinstance(value, Shaped) and (value.shape.method or value.shape.web is not None):
                    self._methods[name] = value._raw  # noqa: SLF001  of this package
        annotations = _annotations(raw)
        for name, one in self._parameters.items():
            if not one.init:
                continue
            if name not in annotations:
                raise InvalidError(f"{self._name}.{name} needs a type", hint=f"{name}: int = alight.parameter(…)")
            if annotations[name] not in _TYPES:
                raise InvalidError(
                    f"{self._name}.{name} is {annotations[name]!r}; parameters are str, int, bytes or bool"
                )

    def __repr__(self) -> str:
        return f"Cls({self._name!r})"


def _annotations(raw: Optional[type]) -> Dict[str, Any]:
    """Of the class and its bases; text ones resolved where that is plain."""
    import inspect  # noqa: PLC0415  for classes alone

    found: Dict[str, Any] = {}
    plain = {kind.__name__: kind for kind in _TYPES}
    for base in reversed(raw.__mro__ if raw is not None else ()):
        own = (
            inspect.get_annotations(base)
            if hasattr(inspect, "get_annotations")
            else vars(base).get("__annotations__", {})
        )
        for name, value in own.items():
            found[name] = plain.get(value, value) if isinstance(value, str) else value
    return found
