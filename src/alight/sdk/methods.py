"""The methods of a class as handles, and the one function of the server that they share."""

# ruff: noqa: SLF001  these classes know each other

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Tuple

from alight.sdk import parameters
from alight.sdk.function import Function
from alight.sdk.handle import traits_of_code
from alight.sdk.options import Options
from alight.sdk.scaling import FunctionAutoscaler
from alight.sdk.shaping import Shape, Shaped
from alight.wire import ambient, payload
from alight.wire.errors import ExecutionError, InvalidError, NotFoundError
from alight.wire.record import dataclass, replace
from alight.wire.spec import MethodSpec, ParameterSpec

if TYPE_CHECKING:
    from alight.sdk.callee import Callee
    from alight.sdk.client import Client
    from alight.sdk.obj import Obj


@dataclass(frozen=True)
class Found:
    """One method of a class that is declared here."""

    name: str
    raw: Callable[..., Any]
    shape: Shape

    @property
    def spec(self) -> MethodSpec:
        traits = traits_of_code(self.raw, self.shape.is_generator)
        return MethodSpec(self.name, is_generator=traits["is_generator"], is_web=self.shape.web is not None)


def of_class(raw: type, name: str) -> Dict[str, Found]:
    """The methods of a class and its bases that callers may name, in the order of their definition.

    A method that a subclass overrides stays one, with the subclass's code, decorated again or not. Raises InvalidError
    for decorators that cannot stand at a method, or not beside the others.
    """
    shapes: Dict[str, Shape] = {}
    for base in reversed(raw.__mro__):
        for attribute, value in vars(base).items():
            if isinstance(value, Shaped) and value.shape.is_method:
                shapes[attribute] = value.shape
    found: Dict[str, Found] = {}
    for attribute, shape in shapes.items():
        thing = getattr(raw, attribute)
        function = thing._raw if isinstance(thing, Shaped) else thing
        if not callable(function):
            continue  # a subclass took it back
        if shape.max_concurrent_inputs:
            raise InvalidError(
                f"{name}.{attribute} is @concurrent(), and the methods of a class share their containers",
                hint="put @concurrent() on the class, below @app.cls()",
            )
        found[attribute] = Found(attribute, function, shape)
    batched = [one for one in found if shapes[one].batch is not None]
    if batched and len(found) > 1:
        others = ", ".join(one for one in found if one != batched[0])
        raise InvalidError(f"{name}.{batched[0]} is @batched(), so it must be the only method; there is also {others}")
    return found


def check_no_snapshot(raw: type, name: str) -> None:
    """InvalidError for an ``@enter(snap=True)`` hook of a class that is never snapshotted."""
    for base in raw.__mro__:
        for attribute, value in vars(base).items():
            if isinstance(value, Shaped) and value.shape.enter == "snap":
                raise InvalidError(
                    f"{name}.{attribute} is @enter(snap=True), and the class takes no snapshots",
                    hint="@app.cls(enable_memory_snapshot=True), or leave snap out",
                )


class Service(Function):
    """The function "Name.*" of a class: what is published, bound to parameters, scaled, and called by methods."""

    _methods: Optional[Tuple[MethodSpec, ...]] = None  # None: not known before it is looked up
    _parameters: Optional[Tuple[ParameterSpec, ...]] = None
    _class_name = ""
    _is_async = False
    _web_of: Mapping[str, Any] = {}  # what decorators said of methods that answer requests, by name
    _given: Mapping[str, Any] = {}

    def describe(self, class_name: str, found: Mapping[str, Found], specs: Tuple[ParameterSpec, ...]) -> None:
        """Say what is known from the class's code."""
        self._class_name = class_name
        self._methods = tuple(one.spec for one in found.values())
        self._parameters = specs
        self._is_async = any(traits_of_code(one.raw, None)["is_async"] for one in found.values())
        self._web_of = {name: dict(one.shape.web) for name, one in found.items() if one.shape.web is not None}

    def describe_server(self, class_name: str, said: Mapping[str, Any]) -> None:
        """It is a server class: nothing is called, and its port answers requests."""
        self._class_name = class_name
        self._methods, self._parameters = (), ()
        self._web_of = {"": said}

    def look_in(self, app_name: str, environment: Optional[str], client: Optional[Client]) -> None:
        """It is a class of that app."""
        self._place, self._client = (app_name, environment), client

    def known_as(self, function_id: str) -> None:
        """Nobody needs to be asked: this is its id."""
        self._object_id = function_id

    def with_parameters(self, given: Mapping[str, Any]) -> Service:
        """The same class with these arguments of its constructor."""
        made = self._varied(type(self._changes)())
        made._given = given
        return made

    @property
    def class_name(self) -> str:
        """As its app knows it."""
        return self._name[: -len(".*")]

    @property
    def traits(self) -> Dict[str, Any]:
        """The fields of a FunctionSpec that make it a class."""
        return {
            "is_generator": False,
            "is_async": self._is_async,
            "class_name": self._class_name,
            "methods": self._methods or (),
            "class_parameters": self._parameters or (),
            "is_web": bool(self._web_of) and all(one.is_web for one in self._methods or ()),
            "web": self._web_of,
        }

    def method_specs(self) -> Mapping[str, MethodSpec]:
        """By name, as far as they are known."""
        info = self._found_info()
        known = self._methods if info is None else info.methods
        return {one.name: one for one in known or ()}

    def knows_methods(self) -> bool:
        """Whether ``method_specs()`` are all there are: for a class that was looked up, after its first use."""
        return self._methods is not None or self._found_info() is not None

    def parameter_specs(self) -> Optional[Tuple[ParameterSpec, ...]]:
        """None while they are not known."""
        info = self._found_info()
        return self._parameters if info is None else info.parameters

    def _is_generator(self) -> Optional[bool]:
        return False

    def _is_of(self, container: ambient.Container) -> bool:
        """Never: the container's class may be a variant with parameters, and this one is without."""
        del container
        return False

    def _bound(self) -> Tuple[Optional[Dict[str, str]], bytes]:
        known = self.parameter_specs()
        if known is not None:  # of a class that was looked up: not before now
            parameters.check_given(self.class_name, known, self._given)
        if not self._given:
            return None, b""
        body = payload.dumps_bytes(dict(self._given), f"the parameters of {self.class_name}()")
        return parameters.kinds(self._given), body

    def __getstate__(self) -> Dict[str, Any]:
        state = super().__getstate__()
        state["_told"] = None
        return state


class Method(Function):
    """A method of one instance: every verb of a function, run by the containers of its class and parameters."""

    def __init__(self, obj: Obj, service: Service, name: str, raw: Optional[Callable[..., Any]], shape: Shape) -> None:
        super().__init__(service._app, f"{service.class_name}.{name}", raw, Options(), shape)
        self._obj: Optional[Obj] = obj
        self._service = service
        self._method = name
        self._known_of: Optional[Callee] = None  # the service's callee that ``_known`` was made of
        self._client = service.client

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here: the instance is made and entered at its first use."""
        if self._raw is None or self._obj is None:
            raise ExecutionError(f"{self._name} was looked up by name: its code is not here", hint="use .remote()")
        return self._obj.run_here(self._raw, args, kwargs, is_async=bool(self.traits["is_async"]))

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """Refuses: how many containers there are is the instance's."""
        return FunctionAutoscaler(self)

    async def _callee(self) -> Callee:
        service = await self._service._callee()
        known = self._known
        if known is None or self._known_of is not service:
            self._check_exists()
            raw = None if self._raw is None else types.MethodType(self._raw, self)  # its parameters, without the first
            known = self._known = replace(service, name=self._name, raw=raw, method=self._method)
            self._known_of = service
        return known

    def _check_exists(self) -> None:
        specs = self._service.method_specs()
        if self._service.knows_methods() and self._method not in specs:
            raise NotFoundError(
                f"{self._service.class_name} has no method {self._method!r}",
                hint=f"it has: {', '.join(specs) or 'none'}",
            )
        if specs.get(self._method, _PLAIN).is_web and self._web is None:
            self._web = {}

    def _is_generator(self) -> Optional[bool]:
        if self._raw is not None:
            return bool(self._traits_of_code()["is_generator"])
        spec = self._service.method_specs().get(self._method)
        return None if spec is None else spec.is_generator

    def _id_so_far(self) -> Optional[str]:
        return self._service._id_so_far()

    def _varied(self, changes: Any) -> Any:
        del changes
        raise InvalidError(
            f"{self._name} shares its containers with the other methods: options are the class's",
            hint=f"{self._service.class_name}.with_options(…)(…).{self._method}",
        )

    def __getstate__(self) -> Dict[str, Any]:
        return {**super().__getstate__(), "_obj": None, "_known_of": None}


class InnerMethod(Method):
    """What ``self.method`` is on an instance that runs: the plain method when it is called, and a handle."""

    def bind(self, bound: Callable[..., Any]) -> InnerMethod:
        """Called, it is this."""
        self._bound_method = bound
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._bound_method(*args, **kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """The plain method: its instance has been entered."""
        return self._bound_method(*args, **kwargs)

    def __getstate__(self) -> Dict[str, Any]:
        state = super().__getstate__()
        state.pop("_bound_method", None)
        return state

    def __reduce__(self) -> Any:
        return _elsewhere, (self.__getstate__(),)


def _elsewhere(state: Dict[str, Any]) -> Method:
    """Where an inner method arrives its instance is not: it is a handle, and nothing else."""
    made = object.__new__(Method)
    made.__dict__.update(state)
    return made


_PLAIN = MethodSpec("")
