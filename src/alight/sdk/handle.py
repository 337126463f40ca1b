"""Which function a handle means, how it is found, and its variants: everything about a Function but calling it.

A function is declared here (its app runs in this process), a sibling (inside a container of its app), one of another
app that was looked up, or a variant of any of these. ``_callee()`` is where all of them end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Protocol, Sequence, Tuple

from alight.sdk import config, progress, variants
from alight.sdk.callee import Callee
from alight.sdk.client import Client, default_client
from alight.sdk.object import Object, environment_or_default
from alight.sdk.options import Options
from alight.sdk.running import RunningApp
from alight.sdk.scaling import FunctionAutoscaler, update_as_before
from alight.sdk.shaping import ASYNC_GENERATOR, COROUTINE, GENERATORS, Shape
from alight.sdk.sync import Future, dual
from alight.sdk.variants import Changes
from alight.wire import ambient, errors, messages
from alight.wire.ids import FUNCTION, is_id

if TYPE_CHECKING:
    from typing_extensions import Self

    from alight.sdk.reports import FunctionCurrentStats


class Owner(Protocol):
    """What a function needs to know of its app."""

    @property
    def name(self) -> Optional[str]: ...

    @property
    def _running(self) -> Optional[RunningApp]: ...


class Elsewhere:
    """The app of a function that was pickled: where it arrives, its name is all that is known."""

    _running: Optional[RunningApp] = None

    def __init__(self, name: Optional[str]) -> None:
        self.name = name


class Handle(Object):
    """One function. ``Function`` adds the verbs."""

    def __init__(
        self,
        app: Optional[Owner],
        name: str,
        raw: Optional[Callable[..., Any]],
        options: Options,
        shape: Optional[Shape] = None,
    ) -> None:
        super().__init__()
        self._app = app
        self._name = name
        self._raw = raw
        self._options = options
        self._shape = shape or Shape()
        self._web = self._shape.web
        self._place: Optional[Tuple[str, Optional[str]]] = None  # of a function of another app: app and environment
        self._info: Optional[messages.FunctionInfo] = None  # what its lookup said
        self._told: Optional[Dict[str, Any]] = None  # its traits, where its code is not
        self._base: Optional[Handle] = None  # of a variant
        self._changes = Changes()
        self._known: Optional[Callee] = None
        if raw is not None:
            self.__name__ = getattr(raw, "__name__", name)
            self.__qualname__ = getattr(raw, "__qualname__", name)
            self.__module__ = getattr(raw, "__module__", "")
            self.__doc__ = raw.__doc__

    # finding one

    @classmethod
    def from_name(
        cls,
        app_name: str,
        name: str,
        *,
        version: Optional[int] = None,
        environment_name: Optional[str] = None,
        client: Optional[Client] = None,
    ) -> Self:
        """A function of another app, found at its first use: NotFoundError then when there is none."""
        del version  # one version of an app lives at a time
        if "." in name:
            class_name, _, method = name.partition(".")
            raise errors.InvalidError(
                f"{name!r} is a method of a class, and classes are looked up as a whole",
                hint=f"Cls.from_name({app_name!r}, {class_name!r})().{method}",
            )
        function = cls(None, name, None, Options())
        function._place, function._client = (app_name, environment_name), client
        return function

    @classmethod
    def from_id(cls, function_id: str, *, client: Optional[Client] = None) -> Self:
        """The function of this id."""
        if not is_id(function_id, FUNCTION):
            raise errors.InvalidError(f"{function_id!r} is not the id of a function", hint="they look like fu-…")
        function = cls(None, function_id, None, Options())
        function._object_id, function._client = function_id, client
        return function

    @dual
    async def hydrate(self, client: Optional[Client] = None) -> Any:
        """Look it up now. Raises NotFoundError when there is none."""
        if client is not None:
            self._client = client
        await self._callee()
        return self

    @property
    def object_id(self) -> str:
        """The id: while its app runs, or once it was looked up. AttributeError before."""
        found = self._id_so_far()
        if found is None:
            raise AttributeError(f"{self!r} has no object_id before its first use: call .hydrate() first")
        return found

    @property
    def is_hydrated(self) -> bool:
        """Whether its id is known."""
        return self._id_so_far() is not None

    @property
    def app(self) -> Any:
        """The app that it was declared in."""
        if self._app is None:
            raise errors.NotFoundError(f"{self._name} was looked up: its app is not here")
        return self._app

    @property
    def info_name(self) -> str:
        """Its name within the app."""
        return self._name

    @property
    def options(self) -> Options:
        """What it was declared with."""
        return self._options

    @property
    def traits(self) -> Dict[str, Any]:
        """What follows from its code: is_generator, is_async, is_web. If it was looked up: what the server said."""
        if self._raw is not None:
            return self._traits_of_code()
        if self._told is not None:
            return self._told
        return {"is_generator": bool(self._is_generator()), "is_async": False}

    # its containers

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """How many containers it has."""
        return FunctionAutoscaler(self)

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
        raise errors.DeprecationError(f"keep_warm() is gone: use .autoscaler.update(min_containers={warm_pool_size!r})")

    @dual
    async def get_current_stats(self) -> FunctionCurrentStats:
        """How many inputs wait and run and how many containers there are, now."""
        from alight.sdk.reports import FunctionCurrentStats  # noqa: PLC0415  declaring needs none of it

        callee = await self._callee()
        message = messages.FunctionScale(callee.function_id)
        found = await callee.client.call("function.stats", message, messages.FunctionStats)
        return FunctionCurrentStats(found.backlog, found.containers, found.running, found.headroom)

    # variants

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
    ) -> Self:
        """A handle of the same function with other options and containers of its own.

        What is falsy stays as it is. ``secrets`` and ``volumes`` replace, ``env`` adds; changes of changes add up.
        """
        given = {key: value for key, value in locals().items() if key != "self"}
        changes = variants.of_options(given, f"{self._name}.with_options()")
        if "retries" in changes.fields:
            check_retries(self._name, changes.fields["retries"], bool(self._is_generator()), self._web)
        return self._varied(changes)

    def with_concurrency(self, *, max_inputs: int, target_inputs: Optional[int] = None) -> Self:
        """A handle of the same function whose containers, which are its own, take this many inputs at once."""
        changes = variants.of_concurrency(max_inputs, target_inputs)
        if self._options.autoscaling.batch_size or self._changes.fields.get("autoscaling", {}).get("batch_size"):
            raise errors.InvalidError(f"{self._name} is batched: it takes one batch at a time")
        return self._varied(changes)

    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Self:
        """A handle of the same function with batches of this size and wait, in containers of its own."""
        changes = variants.of_batching(max_batch_size, wait_ms)
        if self._is_generator():
            raise errors.InvalidError(f"{self._name} is a generator; a batch is answered with a list")
        return self._varied(changes)

    def _varied(self, changes: Changes) -> Self:
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made.__dict__.pop("_finding", None)
        made._object_id = made._known = None
        made._base = self._base or self
        made._changes = self._changes.then(changes)
        return made

    # inside

    async def _about_logs(self) -> Tuple[Client, str, Any]:
        """Where its output is asked for, and how."""
        from alight.wire.logs import LogQuery  # noqa: PLC0415  only who asks

        callee = await self._callee()
        return callee.client, callee.function_id, LogQuery(function=callee.function_id)

    async def _callee(self) -> Callee:
        """What is called: found at the first use, and again in the next run of its app."""
        running = self._running_app()
        client = running.client if running is not None else self._client or default_client()
        known = self._known
        if known is not None and known.running is running and known.client is client:
            return known
        # One asks. Whoever comes meanwhile waits for it, and asks only if it failed.
        mine = Future()
        while True:
            first = self.__dict__.setdefault("_finding", mine)
            if first is mine:
                break
            await first.within(None)
            known = self._known
            if known is not None and known.running is running and known.client is client:
                return known
        try:
            function_id = await self._id(client, running)
            known = self._known = Callee(client, function_id, self._name, self._raw, running)
        finally:
            del self.__dict__["_finding"]
            mine.set()
        return known

    def _is_generator(self) -> Optional[bool]:
        """None while nobody here knows: a function that was looked up, before its first use."""
        if self._raw is not None:
            return bool(self._traits_of_code()["is_generator"])
        if self._told is not None:
            return bool(self._told["is_generator"])
        info = self._found_info()
        return None if info is None else info.is_generator

    def _traits_of_code(self) -> Dict[str, Any]:
        declared = self._options.is_generator if self._options.is_generator is not None else self._shape.is_generator
        traits = traits_of_code(self._raw, declared)
        return {**traits, "is_web": True, "web": dict(self._web)} if self._web is not None else traits

    def _running_app(self) -> Optional[RunningApp]:
        return self._app._running if self._app is not None else None  # noqa: SLF001  of this package

    def _found_info(self) -> Optional[messages.FunctionInfo]:
        return self._info if self._base is None else self._base._found_info()  # noqa: SLF001  of this class

    def _id_so_far(self) -> Optional[str]:
        running = self._running_app()
        if self._known is not None and self._known.running is running:
            return self._known.function_id
        if self._base is None and running is not None:
            return running.function_ids.get(self._name)
        return self._object_id or (self._deployed_id() if self._base is None else None)

    async def _id(self, client: Client, running: Optional[RunningApp]) -> str:
        if self._base is not None and self._object_id is None:
            return await self._bind(self._base, client, running)
        if running is not None:
            return self._id_in(running)
        deployed = self._deployed_id()
        if deployed is not None:
            return deployed
        if self._object_id is None:
            self._object_id = await self._look_up(client)
        return self._object_id

    def _deployed_id(self) -> Optional[str]:
        """The id that it has since this process deployed its app."""
        deployed = getattr(self._app, "_deployed", None)
        return None if deployed is None else deployed.function_ids.get(self._name)

    async def _bind(self, base: Handle, client: Client, running: Optional[RunningApp]) -> str:
        """Have the server make the variant. The same variant every time, for everybody who asks for it."""
        base_id = await base._id(client, running)
        given, body = self._bound()
        if not self._changes and not body:
            return base_id
        changes = await self._changes.plain(client, base._app_id(running), self._name)
        if running is not None and not running.own_gpus and "resources" in changes:
            # The run says which GPU everything gets, and the function that this is a variant of has it.
            changes["resources"] = {name: one for name, one in changes["resources"].items() if name != "gpus"}
        message = messages.FunctionBind(base_id, changes, given)
        answer = await client.call("function.bind", message, messages.PublishedFunction, body)
        if answer.impossible is not None:
            raise errors.from_wire(answer.impossible)
        if answer.warning:
            progress.current().note(f"{self._name}: {answer.warning}")
        return answer.function_id

    def _bound(self) -> Tuple[Optional[Dict[str, str]], bytes]:
        """Of a class with parameters: their types by name, and themselves, pickled."""
        return None, b""

    def _app_id(self, running: Optional[RunningApp]) -> str:
        if running is not None:
            return running.app_id
        deployed = getattr(self._app, "_deployed", None)
        if deployed is not None:
            return str(deployed.app_id)
        if self._info is not None:
            return self._info.app_id
        return ambient.container.app_id if self._app is not None and ambient.container is not None else ""

    def _id_in(self, running: RunningApp) -> str:
        found = running.function_ids.get(self._name)
        if found is not None:
            return found
        problem = running.problems.get(self._name)
        if problem is not None:
            raise problem
        raise errors.ExecutionError(
            f"{self._name} was declared after its app had started", hint="declare functions at the top of the module"
        )

    async def _look_up(self, client: Client) -> str:
        if self._place is not None:
            app_name, environment = self._place
            message = messages.FunctionFind(app_name, self._name, environment_or_default(environment))
            self._info = await client.call("function.find", message, messages.FunctionInfo)
            if self._info.is_web and self._web is None:
                self._web = {}
            return self._info.function_id
        container = ambient.container
        if not config.in_container():
            what, use = self._name, self._name
            if what.endswith(".*"):  # a class
                what, use = what[:-2], f"{what[:-2]}().method"
            raise errors.ExecutionError(
                f"{what} cannot be called: its app is not running",
                hint=f"`alight run file.py::{what}`, or in Python: with app.run(): {use}.remote(…)",
            )
        if container is not None and container.function_name == self._name and self._is_of(container):
            return container.function_id
        asked = messages.FunctionLookup(name=self._name, app_id=container.app_id if container is not None else "")
        return (await client.call("function.lookup", asked, messages.PublishedFunction)).function_id

    def _is_of(self, container: ambient.Container) -> bool:
        """Whether it is the container's own function. In a variant's container that is the variant: a function that
        calls itself stays with the options that it was given."""
        return self._app is not None and self._app.name in {None, container.app_name}

    def __getstate__(self) -> Dict[str, Any]:
        state = {**super().__getstate__(), "_raw": None, "_options": Options(), "_shape": Shape(), "_known": None}
        state["_object_id"] = self._id_so_far()
        state.pop("_finding", None)
        if self._is_generator() is not None:
            state["_told"] = self.traits
        if self._app is not None:
            state["_app"] = Elsewhere(self._app.name)
        return {key: value for key, value in state.items() if not key.startswith("__")}

    def __repr__(self) -> str:
        return f"Function({self._name!r})"


def traits_of_code(raw: Any, declared: Optional[bool]) -> Dict[str, Any]:
    """is_generator and is_async of a function; ``declared``: whether it is a generator, where somebody said so."""
    flags = getattr(getattr(raw, "__code__", None), "co_flags", 0)
    return {
        "is_generator": bool(flags & GENERATORS) if declared is None else declared,
        "is_async": bool(flags & (COROUTINE | ASYNC_GENERATOR)),
    }


def check_retries(name: str, retries: Any, is_generator: bool, web: Any) -> None:
    """InvalidError for retries of what may have answered in part."""
    most = retries.get("max_retries", 0) if isinstance(retries, dict) else retries.max_retries
    if most and (is_generator or web is not None):
        kind = "generator" if is_generator else "web function"
        raise errors.InvalidError(f"{name} is a {kind}: it may have answered in part, and cannot be tried again")


__all__ = ["Elsewhere", "Handle", "Owner", "check_retries", "traits_of_code"]
