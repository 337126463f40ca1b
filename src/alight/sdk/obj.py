"""An instance of a class of an app: its methods are handles, and it is a real object only where somebody needs one.

Attributes that are no methods, and ``.local()``, make the real instance here, run its ``@enter`` hooks, and keep it.
"""

# ruff: noqa: SLF001  a class, its instances and its methods know each other

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Tuple

from alight.sdk import instances
from alight.sdk.methods import InnerMethod, Method, Service
from alight.sdk.scaling import FunctionAutoscaler, update_as_before
from alight.sdk.shaping import HANDLES, Shape, Shaped
from alight.sdk.sync import dual
from alight.wire.errors import NotFoundError

if TYPE_CHECKING:
    from alight.sdk.cls import Cls


class Obj:
    """``MyCls(x=3)``: one parameter set of a class, with containers of its own."""

    def __init__(self, cls: Cls, service: Service, given: Mapping[str, Any]) -> None:
        self._cls = cls
        self._service = service
        self._given = dict(given)
        self._handles: Dict[Any, Method] = {}
        self._instance: Any = None
        self._entered = False

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """How many containers this parameter set has."""
        return self._service.autoscaler

    @dual
    async def update_autoscaler(
        self,
        *,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaledown_window: Optional[int] = None,
    ) -> None:
        """[Deprecated] Use ``autoscaler.update()``. None keeps a setting."""
        given = {
            "min_containers": min_containers,
            "max_containers": max_containers,
            "buffer_containers": buffer_containers,
            "scaledown_window": scaledown_window,
        }
        await update_as_before(self.autoscaler, given)

    def keep_warm(self, warm_pool_size: int) -> None:
        """Gone: raises DeprecationError, which names what to use."""
        self._service.keep_warm(warm_pool_size)

    @dual
    async def hydrate(self, client: Any = None) -> Obj:
        """Look the class up, and have the server make the containers' variant, now."""
        await self._service.hydrate.raw(client)
        return self

    def __getattr__(self, name: str) -> Any:
        state = self.__dict__
        if name.startswith("__") or "_service" not in state:
            raise AttributeError(name)
        handle = state["_handles"].get(name)
        if handle is not None:
            return handle
        raw = state["_cls"].__dict__["_raw"]
        service: Service = state["_service"]
        if name in service.method_specs() or (raw is None and not service.knows_methods() and not name.startswith("_")):
            return self._handle(name)
        if raw is None:
            methods = ", ".join(service.method_specs()) or "none"
            where = f"{service.class_name} was looked up by name, and its attributes are not here"
            if name.startswith("_"):  # asked for by those who look for protocols, not for methods
                raise AttributeError(f"{where}: {name}")
            raise NotFoundError(f"{where}: there is no method {name!r}", hint=f"it has: {methods}")
        return self._attribute(raw, name)

    def run_here(
        self, raw: Callable[..., Any], args: Tuple[Any, ...], kwargs: Dict[str, Any], *, is_async: bool
    ) -> Any:
        """Run a method on the real instance."""
        if not is_async or self._entered:
            return raw(self._real(), *args, **kwargs)
        if not _is_coroutine_function(raw):  # an async generator
            return self._entered_items(raw, args, kwargs)
        return self._entered_first(raw, args, kwargs)

    def adopt(self, instance: Any) -> None:
        """Take this as the real instance, which somebody else enters, and make its methods handles."""
        self._instance, self._entered = instance, True
        state = getattr(instance, "__dict__", None)
        if state is not None:  # without one (slots) methods are plain methods
            state[HANDLES] = self

    def inside(self, shaped: Shaped, instance: Any) -> InnerMethod:
        """What ``self.method`` is inside a method."""
        known = self._handles.get(shaped)
        if known is None or known._obj is not self:
            bound = types.MethodType(shaped._raw, instance)
            made = InnerMethod(self, self._service, shaped.attribute or shaped._raw.__name__, shaped._raw, shaped.shape)
            known = self._handles[shaped] = made.bind(bound)
        return known  # type: ignore[return-value]  # under this key there is no other

    # inside

    def _handle(self, name: str) -> Method:
        cls = self._cls
        raw = cls._methods.get(name)
        shaped = getattr(cls._raw, name, None)
        shape = shaped.shape if isinstance(shaped, Shaped) else Shape()
        made = self._handles[name] = Method(self, self._service, name, raw, shape)
        return made

    def _attribute(self, raw: type, name: str) -> Any:
        if self._instance is None:
            one = self._cls._parameters.get(name)
            if one is not None and one.init:  # known without making anything
                return self._given.get(name, one.default)
            if name.startswith("_") and not hasattr(raw, name):  # asked for by those who look for protocols
                raise AttributeError(f"{self._cls._name} has no {name!r}")
        return getattr(self._real(), name)

    def _real(self) -> Any:
        """The instance, made and entered at its first use."""
        instance = self._made()
        if not self._entered:
            self._entered = True
            try:
                instances.enter(instance)
            except BaseException:
                self._instance, self._entered = None, False
                raise
        return instance

    def _made(self) -> Any:
        if self._instance is None:
            raw = self._cls._raw
            assert raw is not None  # methods without code have no local()
            entered = self._entered
            self.adopt(instances.make(raw, self._given))
            self._entered = entered
        return self._instance

    async def _entered_first(self, raw: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        instance = await self._real_async()
        return await raw(instance, *args, **kwargs)

    async def _entered_items(self, raw: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
        instance = await self._real_async()
        async for item in raw(instance, *args, **kwargs):
            yield item

    async def _real_async(self) -> Any:
        instance = self._made()
        if not self._entered:
            self._entered = True
            await instances.enter_async(instance)
        return instance

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_handles": {}, "_instance": None, "_entered": False}

    def __setstate__(self, state: Dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self._given.items())
        return f"{self._cls._name}({given})"


def _is_coroutine_function(raw: Any) -> bool:
    return bool(getattr(getattr(raw, "__code__", None), "co_flags", 0) & 0x80)
