"""Function handles: what a decorated function becomes, and how it is called where it lives.

A handle is not callable: ``.remote()`` runs it in a container, ``.local()`` here. A handle whose app does not run in
this process, inside a container of that app, asks the server for its sibling by name.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, AsyncIterator, Callable, Dict, Mapping, NoReturn, Optional, Protocol, Sequence

from alight.sdk import config
from alight.sdk.call import Callee, FunctionCall, call_and_wait, spawn
from alight.sdk.client import Client, default_client
from alight.sdk.object import Object
from alight.sdk.options import Options
from alight.sdk.running import RunningApp
from alight.sdk.shaping import Shape
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_gen
from alight.wire import ambient, errors, messages
from alight.wire.ids import FUNCTION, is_id

if TYPE_CHECKING:
    from datetime import datetime

_GENERATOR = 0x20
_COROUTINE = 0x80
_ASYNC_GENERATOR = 0x200


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


class FunctionLogs:
    """``Function.logs``."""

    @unimplemented("Function.logs.fetch() would return the function's output; see `alight app logs`")
    def fetch(
        self, *, since: datetime, until: Optional[datetime] = None, source: Any = None, search_text: str = ""
    ) -> Any: ...

    @unimplemented("Function.logs.tail() would return the end of the function's output; see `alight app logs`")
    def tail(self, entries: int = 100, *, source: Any = None) -> Any: ...

    @unimplemented("Function.logs.stream() would follow the function's output; see `alight app logs -f`")
    def stream(self, timeout: Optional[float] = None) -> Any: ...


class FunctionMetrics:
    """``Function.metrics``."""

    @unimplemented("Function.metrics.schema() would name the metrics of the function; there are none yet")
    def schema(self, groups: Any = None) -> Any: ...

    @unimplemented("Function.metrics.export() would return metrics of the function; there are none yet")
    def export(
        self,
        *,
        since: Any = None,
        until: Any = None,
        bucket_size: Any = None,
        groups: Any = None,
        all_variants: bool = False,
    ) -> Any: ...


class FunctionAutoscaler:
    """``Function.autoscaler``."""

    @unimplemented(
        "Function.autoscaler.settings() would return the settings in force; this version has the declared ones"
    )
    def settings(self) -> Any: ...

    @unimplemented("Function.autoscaler.update() would change a running function; change the declaration and run again")
    def update(
        self,
        *,
        min_containers: Optional[int] = -1,
        max_containers: Optional[int] = -1,
        buffer_containers: Optional[int] = -1,
        scaledown_window: Optional[int] = -1,
    ) -> None: ...


class Function(Object):
    """A function that runs in containers. Made by ``@app.function``."""

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
        if raw is not None:
            self.__name__ = getattr(raw, "__name__", name)
            self.__qualname__ = getattr(raw, "__qualname__", name)
            self.__module__ = getattr(raw, "__module__", "")
            self.__doc__ = raw.__doc__

    # calling

    @dual
    async def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in a container and return what it returns, or raise what it raises."""
        self._check_callable("remote")
        return await call_and_wait(await self._callee(), args, kwargs)

    @dual
    async def spawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        """Start it in a container and return at once, with a handle that has the result later."""
        self._check_callable("spawn")
        return await spawn(await self._callee(), args, kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here, in this process, as if it were not decorated."""
        if self._raw is None:
            raise errors.ExecutionError(
                f"{self._name} was looked up by name: its code is not here", hint="use .remote()"
            )
        if self._options.volumes and ambient.is_local():
            warnings.warn(f"{self._name}.local() runs without the volumes that the function mounts", stacklevel=2)
        return self._raw(*args, **kwargs)

    @dual_gen
    @unimplemented(
        "Function.remote_gen() would stream what a generator yields; this version calls functions that return"
    )
    async def remote_gen(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        yield None

    @dual_gen
    @unimplemented(
        "Function.map() would run the function for many inputs at once; call .remote() or .spawn() for each yet"
    )
    async def map(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Optional[bool] = None,
    ) -> AsyncIterator[Any]:
        yield None

    @dual_gen
    @unimplemented("Function.starmap() would run the function for many inputs; call .remote() or .spawn() for each yet")
    async def starmap(
        self,
        input_iterator: Any,
        *,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Optional[bool] = None,
    ) -> AsyncIterator[Any]:
        yield None

    @dual
    @unimplemented(
        "Function.for_each() would run the function for many inputs; call .remote() or .spawn() for each yet"
    )
    async def for_each(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None: ...

    @dual
    @unimplemented("Function.spawn_map() would start the function for many inputs; call .spawn() for each yet")
    async def spawn_map(self, *input_iterators: Any, kwargs: Mapping[str, Any] = {}) -> None: ...

    @dual
    @unimplemented("Function.experimental_spawn_map() would start many inputs as one call; call .spawn() for each yet")
    async def experimental_spawn_map(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
    ) -> FunctionCall: ...

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{self._name} is a function of an app and is not called directly: "
            f"{self._name}.remote(…) runs it in a container, {self._name}.local(…) here"
        )

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
    ) -> Function:
        """A function of a deployed app, found at its first use."""
        del version, environment_name
        if "." in name:
            raise errors.InvalidError(
                f"{name!r} is a method", hint=f"Cls.from_name({app_name!r}, {name.partition('.')[0]!r})"
            )
        function = cls(None, name, None, Options())
        function._client = client
        return function

    @classmethod
    def from_id(cls, function_id: str, *, client: Optional[Client] = None) -> Function:
        """The function of this id."""
        if not is_id(function_id, FUNCTION):
            raise errors.InvalidError(f"{function_id!r} is not the id of a function", hint="they look like fu-…")
        function = cls(None, function_id, None, Options())
        function._object_id, function._client = function_id, client
        return function

    @dual
    async def hydrate(self, client: Optional[Client] = None) -> Any:
        """Look it up now."""
        if client is not None:
            self._client = client
        self._object_id = (await self._callee()).function_id
        return self

    @property
    def object_id(self) -> str:
        """The id: while its app runs, or once it was looked up."""
        running = self._app._running if self._app is not None else None  # noqa: SLF001  of this package
        if running is not None and self._name in running.function_ids:
            return running.function_ids[self._name]
        return super().object_id

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
    def traits(self) -> Dict[str, Any]:
        """What follows from its code: is_generator, is_async."""
        flags = getattr(getattr(self._raw, "__code__", None), "co_flags", 0)
        declared = self._options.is_generator if self._options.is_generator is not None else self._shape.is_generator
        found = bool(flags & (_GENERATOR | _ASYNC_GENERATOR))
        return {
            "is_generator": found if declared is None else declared,
            "is_async": bool(flags & (_COROUTINE | _ASYNC_GENERATOR)),
        }

    @property
    def options(self) -> Options:
        """What it was declared with."""
        return self._options

    # what comes later

    @property
    def logs(self) -> FunctionLogs:
        """Its output."""
        return FunctionLogs()

    @property
    def metrics(self) -> FunctionMetrics:
        """Its metrics."""
        return FunctionMetrics()

    @property
    def autoscaler(self) -> FunctionAutoscaler:
        """How many containers it has."""
        return FunctionAutoscaler()

    @dual
    async def get_web_url(self) -> Optional[str]:
        """The URL of a web function; None for others."""
        if self._web is not None:
            raise errors.UnimplementedError("a web function's URL comes with `alight serve`, which this version lacks")
        return None

    @dual
    @unimplemented("Function.info() would return what the server knows of the function")
    async def info(self, *, refresh: bool = False) -> Any: ...

    @dual
    @unimplemented("Function.stats() would count the function's inputs and containers")
    async def stats(
        self, *, since: Any = None, until: Any = None, container: Any = None, all_variants: bool = False
    ) -> Any: ...

    @dual
    @unimplemented("Function.get_current_stats() would count waiting inputs and containers; see `alight app list`")
    async def get_current_stats(self) -> Any: ...

    @dual
    async def update_autoscaler(
        self,
        *,
        min_containers: Optional[int] = None,
        max_containers: Optional[int] = None,
        buffer_containers: Optional[int] = None,
        scaledown_window: Optional[int] = None,
    ) -> None:
        """[Deprecated] Use ``autoscaler.update()``."""
        del min_containers, max_containers, buffer_containers, scaledown_window
        self.autoscaler.update()

    @unimplemented("Function.with_options() would make a variant with other resources; declare a second function yet")
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
    ) -> Function: ...

    @unimplemented("Function.with_concurrency() would change how many inputs run at a time; use @alight.concurrent")
    def with_concurrency(self, *, max_inputs: int, target_inputs: Optional[int] = None) -> Function: ...

    @unimplemented("Function.with_batching() would change the size of batches; use @alight.batched")
    def with_batching(self, *, max_batch_size: int, wait_ms: int) -> Function: ...

    # inside

    def _check_callable(self, verb: str) -> None:
        if self._web is not None:
            raise errors.InvalidError(
                f"{self._name} is a web function: it answers requests", hint="`alight serve` gives it a URL"
            )
        if self._raw is not None and self.traits["is_generator"]:
            raise errors.InvalidError(
                f"{self._name} is a generator: .{verb}() returns one value", hint="use .remote_gen()"
            )

    async def _callee(self) -> Callee:
        running = self._app._running if self._app is not None else None  # noqa: SLF001  of this package
        if running is not None:
            return Callee(running.client, self._id_in(running), self._name, self._raw, running)
        client = self._client or default_client()
        if self._object_id is None:
            self._object_id = await self._look_up(client)
        return Callee(client, self._object_id, self._name, self._raw)

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
        container = ambient.container
        if self._app is None:
            raise errors.UnimplementedError(
                f"Function.from_name(…, {self._name!r}) would find a function of a deployed app; "
                "this version runs apps and doesn't deploy them yet"
            )
        if not config.in_container():
            raise errors.ExecutionError(
                f"{self._name} cannot be called: its app is not running",
                hint=f"`alight run file.py::{self._name}`, or in Python: with app.run(): {self._name}.remote(…)",
            )
        if container is not None and container.function_name == self._name and self._is_of(container):
            return container.function_id
        app_id = container.app_id if container is not None else ""
        message = messages.FunctionLookup(name=self._name, app_id=app_id)
        return (await client.call("function.lookup", message, messages.PublishedFunction)).function_id

    def _is_of(self, container: ambient.Container) -> bool:
        return self._app is not None and self._app.name in {None, container.app_name}

    def __getstate__(self) -> Dict[str, Any]:
        state = {**super().__getstate__(), "_raw": None, "_options": Options(), "_shape": Shape()}
        if self._app is not None:
            running = self._app._running  # noqa: SLF001  of this package
            if self._object_id is None and running is not None:
                state["_object_id"] = running.function_ids.get(self._name)
            state["_app"] = Elsewhere(self._app.name)
        return {key: value for key, value in state.items() if not key.startswith("__")}

    def __repr__(self) -> str:
        return f"Function({self._name!r})"
