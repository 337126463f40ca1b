"""Function handles: what a decorated function becomes, and how it is called where it lives.

A handle is not callable: ``.remote()`` runs it in a container, ``.local()`` here. Which function it means, and how it
is found, is in `handle.py`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, AsyncIterator, Mapping, NoReturn, Optional

from alight.sdk.call import FunctionCall, call_and_wait, spawn
from alight.sdk.handle import Handle
from alight.sdk.surface import unimplemented
from alight.sdk.sync import dual, dual_gen
from alight.wire import ambient, errors

if TYPE_CHECKING:
    from datetime import datetime


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


class Function(Handle):
    """A function that runs in containers. Made by ``@app.function``."""

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

    # what comes later

    @property
    def logs(self) -> FunctionLogs:
        """Its output."""
        return FunctionLogs()

    @property
    def metrics(self) -> FunctionMetrics:
        """Its metrics."""
        return FunctionMetrics()

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

    # inside

    def _check_callable(self, verb: str) -> None:
        if self._web is not None:
            raise errors.InvalidError(
                f"{self._name} is a web function: it answers requests", hint="`alight serve` gives it a URL"
            )
        if self._is_generator():  # None, too, for one that was looked up by name and not found yet
            raise errors.InvalidError(
                f"{self._name} is a generator: .{verb}() returns one value", hint="use .remote_gen()"
            )
