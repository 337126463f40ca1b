"""Classes whose methods run in containers: what ``@app.cls`` makes of a class, and the decorators of its methods.

To the server a class is one function named "Name.*", whose inputs name their method; all methods share its containers.
An instance with parameters is a variant of it. A method's handle is a Function that adds its name to every call.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Mapping, Optional, Sequence

from alight.sdk import methods, options, parameters
from alight.sdk.client import Client, default_client
from alight.sdk.logs import Logs
from alight.sdk.methods import Found, Service
from alight.sdk.obj import Obj
from alight.sdk.object import page_of
from alight.sdk.options import Options
from alight.sdk.parameters import NO_DEFAULT, Parameter
from alight.sdk.shaping import Shape, Shaped, add, needs_parentheses
from alight.sdk.sync import dual
from alight.wire import ambient
from alight.wire.errors import InvalidError

_REMEMBERED = 1_000  # parameter sets whose handles are kept


def parameter(*, default: Any = NO_DEFAULT, init: bool = True) -> Any:
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


class Cls:
    """A class whose methods run in containers. Made by ``@app.cls``, or found by ``Cls.from_name()``."""

    def __init__(
        self,
        app: Any,
        name: str,
        raw: Optional[type],
        options: Options,
        found: Optional[Mapping[str, Found]] = None,
    ) -> None:
        self._app = app
        self._name = name
        self._raw = raw
        self._methods: Dict[str, Callable[..., Any]] = {}
        self._parameters: Dict[str, Parameter] = {}
        self._bound: Dict[Any, Service] = {}
        service = Service(app, f"{name}.*", raw, options)
        if raw is not None:
            self.__name__ = raw.__name__
            self.__qualname__ = raw.__qualname__
            self.__module__ = raw.__module__
            self.__doc__ = raw.__doc__
            check_constructor(raw, name)
            found = methods.of_class(raw, name) if found is None else found
            self._methods = {one.name: one.raw for one in found.values()}
            self._parameters, specs = parameters.of_class(raw, name)
            service.describe(name, found, specs)
        self._service = service

    @property
    def logs(self) -> Logs:
        """The output of its methods."""
        return Logs(self._service._about_logs)  # noqa: SLF001  of this package

    def __call__(self, *args: Any, **kwargs: Any) -> Obj:
        """An instance with these parameters, all by keyword. Asks nobody."""
        if args:
            raise InvalidError(f"{self._name} takes its parameters by keyword", hint=f"{self._name}(name=value)")
        known = self._service.parameter_specs()
        if known is None:
            parameters.check_kinds(self._name, kwargs)
        else:
            parameters.check_given(self._name, known, kwargs)
        return Obj(self, self._service_of(kwargs), kwargs)

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
        """A class of another app, found at its first use: NotFoundError then when there is none."""
        del version  # one version of an app lives at a time
        found = cls(None, name, None, Options())
        found._service.look_in(app_name, environment_name, client)
        return found

    @property
    def object_id(self) -> str:
        """The id: while its app runs, or once it was looked up. AttributeError before."""
        return self._service.object_id

    @property
    def is_hydrated(self) -> bool:
        """Whether its id is known."""
        return self._service.is_hydrated

    @property
    def client(self) -> Optional[Client]:
        """The client that it was made with."""
        return self._service.client

    @property
    def options(self) -> Options:
        """What it was declared with."""
        return self._service.options

    @dual
    async def hydrate(self, client: Optional[Client] = None) -> Cls:
        """Look it up now. Raises NotFoundError when there is none."""
        await self._service.hydrate.raw(client)
        return self

    @dual
    async def get_dashboard_url(self) -> str:
        """The address of the class's page at the dashboard. Raises ConflictError where the server has none."""
        await self._service.hydrate.raw(None)
        return await page_of(self._service.client or default_client(), self._service.object_id)

    def with_options(  # noqa: PLR0913  the public form
        self,
        *,
        cpu: Any = None,
        memory: Any = None,
        gpu: Optional[str] = None,
        gpu_memory: Any = None,
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
    ) -> Cls:
        """The same class with other options, whose instances have containers of their own.

        What is falsy stays as it is. ``secrets`` and ``volumes`` replace, ``env`` adds; changes of changes add up.
        """
        given = {key: value for key, value in locals().items() if key != "self"}
        return self._varied(self._service.with_options(**given))

    def with_concurrency(self, *, max_inputs: int, target_inputs: Optional[int] = None) -> Cls:
        """The same class, whose containers take this many inputs at once."""
        return self._varied(self._service.with_concurrency(max_inputs=max_inputs, target_inputs=target_inputs))

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Cls:
        """The same class with batches of this size and wait. It has one method."""
        return self._varied(self._service.with_batching(max_batch_size=max_batch_size, wait_ms=wait_ms))

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        raw = state.get("_raw")
        if name.startswith("__") or "_service" not in state:
            raise AttributeError(name)
        if name in state["_service"].method_specs() or raw is None:
            raise AttributeError(
                f"{self._name}.{name} belongs to an instance: write {self._name}(…).{name}, with the class's parameters"
            )
        return getattr(raw, name)

    # inside

    def _varied(self, service: Service) -> Cls:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._service = service
        made._bound = {}
        return made

    def _service_of(self, given: Mapping[str, Any]) -> Service:
        """The function of one parameter set: the same handle for the same set, so that it is bound once."""
        if not given:
            return self._service
        key = tuple((name, type(given[name]), given[name]) for name in sorted(given))
        known = self._bound.get(key)
        if known is None:
            while len(self._bound) >= _REMEMBERED:
                self._bound.pop(next(iter(self._bound)), None)
            known = self._bound[key] = self._service.with_parameters({name: given[name] for name in sorted(given)})
        return known

    def __getstate__(self) -> Dict[str, Any]:
        state = {**self.__dict__, "_app": None, "_raw": None, "_bound": {}}
        state["_methods"], state["_parameters"] = {}, {}
        return {key: value for key, value in state.items() if not key.startswith("__")}

    def __repr__(self) -> str:
        return f"Cls({self._name!r})"


def made_from(app: Any, raw: type, checked: Options, shape: Shape) -> Cls:
    """What ``@app.cls`` makes of ``raw`` and of the decorators below it."""
    where = f"the class {raw.__qualname__}"
    misplaced = [word for word in shape.words if word in {"method", "enter", "exit", "batched"}]
    if misplaced:
        raise InvalidError(f"@{misplaced[0]}() is for methods, and stands at {where}")
    if "<locals>" in raw.__qualname__ and not checked.serialized:
        raise InvalidError(
            f"{where} is defined within a function, where a container cannot find it",
            hint="move it to the top of the module, or declare it with serialized=True",
        )
    found = methods.of_class(raw, raw.__qualname__)
    batched = [one for one in found.values() if one.shape.batch is not None]
    if batched and shape.max_concurrent_inputs:
        raise InvalidError(f"{where} is @concurrent() and its method {batched[0].name}() @batched(): one of the two")
    if shape.cluster is not None and len(found) != 1:
        raise InvalidError(f"{where} is @clustered() and has {len(found)} methods: it can have one")
    if shape.cluster is not None and (batched or any(one.shape.web is not None for one in found.values())):
        raise InvalidError(f"{where} is @clustered(): its method can be neither @batched() nor one of the web")
    if batched:
        scaling = options.batched(checked.autoscaling, batched[0].shape.batch)
        checked = options.replaced(checked, {"autoscaling": scaling})
    if not checked.enable_memory_snapshot:
        methods.check_no_snapshot(raw, raw.__qualname__)
    return Cls(app, raw.__qualname__, raw, checked, found)


def bind_instance(cls_handle: Any, instance: Any) -> None:
    """Let the methods of a container's instance be handles, too: ``self.other()`` is a plain call as ever,
    ``self.other.remote()`` an input for the same class and parameters, in whichever container is free.

    ``cls_handle`` is the Cls, or the class itself where it came without one (serialized). Imports nothing, asks nobody.
    """
    handle = cls_handle
    if not isinstance(handle, Cls):
        handle = Cls(None, type(instance).__qualname__, type(instance), Options())
    own = handle._service.with_parameters({})  # noqa: SLF001  of this file
    if ambient.container is not None:
        own.known_as(ambient.container.function_id)
    Obj(handle, own, {}).adopt(instance)


class Carried:
    """A class on its way to its container as bytes: it is itself there, and brings what ``bind_instance`` is in."""

    def __init__(self, raw: type) -> None:
        self._raw = raw

    def __reduce__(self) -> Any:
        return _arrived, (self._raw,)


def _arrived(raw: type) -> type:
    return raw


def check_constructor(raw: type, name: str) -> None:
    """InvalidError for a class with an ``__init__``."""
    for base in raw.__mro__:
        if base is not object and "__init__" in vars(base) and base.__module__ != "typing":
            where = f"{name} has" if base is raw else f"{name} inherits from {base.__qualname__}, which has"
            raise InvalidError(
                f"{where} an __init__, and classes of an app are made without one",
                hint="declare parameters with alight.parameter(), and do work in an @alight.enter() method",
            )


__all__ = ["Cls", "Obj", "Parameter", "bind_instance", "enter", "exit", "made_from", "method", "parameter"]
