"""Function handles: what a decorated function becomes, and how it is called where it lives.

A handle is not callable: ``.remote()`` runs it in a container, ``.local()`` here. Which function it means, and how it
is found, is in `handle.py`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Mapping, NoReturn, Optional, Sequence

from alight.sdk.call import Callee, FunctionCall, call_and_wait, spawn, spawn_many
from alight.sdk.handle import Handle
from alight.sdk.logs import Logs
from alight.sdk.sync import dual, dual_chunks
from alight.wire import ambient, errors

if TYPE_CHECKING:
    from alight.sdk import mapping
    from alight.sdk.answers import Answers


class FunctionMetrics:
    """``Function.metrics``."""

    def __init__(self, function: Handle) -> None:
        self._function = function

    @dual
    async def schema(self, groups: Any = None) -> Any:
        """What is measured, by group: ``{"cpu": MetricsSchema, …}``. ``groups``: only these."""
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        return measuring.schema(groups)

    @dual
    async def export(
        self,
        *,
        since: Any = None,
        until: Any = None,
        bucket_size: Any = None,
        groups: Any = None,
        all_variants: bool = False,
    ) -> Any:
        """What its containers used and what became of its inputs: ``alight.types.ObjectMetrics``, series by name.

        ``since`` is an hour before ``until``, which is now (datetimes); at most 7 days. ``bucket_size``: seconds, or
        "1m" (the default), "5m", "1h", "1d". ``all_variants``: with all that ``with_options`` made of it.
        """
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        callee = await self._function._callee()  # noqa: SLF001  of this package
        return await measuring.export(callee, since, until, bucket_size, groups, all_variants)


class Function(Handle):
    """A function that runs in containers. Made by ``@app.function``."""

    _fits = ""  # the verb that was found to fit last

    # calling

    @dual
    async def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Run it in a container and return what it returns, or raise what it raises."""
        callee = await self._callee_for("remote")
        return await call_and_wait(callee, args, kwargs)

    @dual
    async def spawn(self, *args: Any, **kwargs: Any) -> FunctionCall:
        """Start it in a container and return at once, with a handle that has the result later."""
        callee = await self._callee_for("spawn")
        return await spawn(callee, args, kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Run it here, in this process, as if it were not decorated."""
        if self._raw is None:
            raise errors.ExecutionError(
                f"{self._name} was looked up by name: its code is not here", hint="use .remote()"
            )
        if self._options.volumes and ambient.is_local():
            warnings.warn(f"{self._name}.local() runs without the volumes that the function mounts", stacklevel=2)
        return self._raw(*args, **kwargs)

    @dual_chunks
    def remote_gen(self, *args: Any, **kwargs: Any) -> Any:
        """Run a generator in a container; yields each item as it comes. Leaving the loop ends it there."""
        from alight.sdk import items, mapping  # noqa: PLC0415  plain calls do without

        async def begin() -> Answers:
            callee = await self._callee_for("remote_gen")
            return items.Generated(callee, args, kwargs)

        return mapping.Mapping(begin)

    @dual_chunks
    def map(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Optional[bool] = None,
    ) -> Any:
        """Run it for each item of the iterators (side by side, to the shortest), in as many containers as it takes.

        Yields results in the order of the inputs, or as they come. Nothing is sent before the first result is asked
        for, and at most some thousand inputs are under way, so that inputs may be endless. An exception is raised at
        its turn and cancels the rest, or is yielded with ``return_exceptions``. ``kwargs`` go to each input.
        """
        _no_wrapping(wrap_returned_exceptions)
        return self._mapped("map", input_iterators, kwargs, ordered=order_outputs, return_exceptions=return_exceptions)

    @dual_chunks
    def starmap(
        self,
        input_iterator: Any,
        *,
        kwargs: Mapping[str, Any] = {},
        order_outputs: bool = True,
        return_exceptions: bool = False,
        wrap_returned_exceptions: Optional[bool] = None,
    ) -> Any:
        """``map`` over tuples of arguments."""
        _no_wrapping(wrap_returned_exceptions)
        return self._mapped(
            "starmap", (input_iterator,), kwargs, ordered=order_outputs, return_exceptions=return_exceptions
        )

    @dual
    async def for_each(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
        ignore_exceptions: bool = False,
    ) -> None:
        """``map`` at once and for its effects: waits for all, raises the first failure unless those are ignored."""
        mapped = self._mapped("for_each", input_iterators, kwargs, ordered=False, return_exceptions=ignore_exceptions)
        try:
            while await mapped.more() is not None:
                pass
        finally:
            mapped.close()

    @dual
    async def spawn_map(self, *input_iterators: Any, kwargs: Mapping[str, Any] = {}) -> None:
        """Start it for each item of the iterators; returns once all inputs are kept, without a handle."""
        callee = await self._callee_for("spawn_map")
        await spawn_many(callee, input_iterators, kwargs)

    @dual
    async def experimental_spawn_map(
        self,
        *input_iterators: Any,
        kwargs: Mapping[str, Any] = {},
    ) -> FunctionCall:
        """``spawn_map`` as one call with many inputs: use its ``num_inputs()``, ``iter()`` and ``get(index=…)``."""
        callee = await self._callee_for("experimental_spawn_map")
        return await spawn_many(callee, input_iterators, kwargs)

    def _mapped(
        self, verb: str, iterables: Sequence[Any], kwargs: Mapping[str, Any], *, ordered: bool, return_exceptions: bool
    ) -> mapping.Mapping:
        from alight.sdk import inputs, mapping  # noqa: PLC0415  plain calls do without

        source = inputs.Source(iterables, kwargs, star=verb == "starmap")

        async def begin() -> Answers:
            callee = await self._callee_for(verb)
            said = "for_each" if verb == "for_each" else "map"
            return mapping.Mapped(callee, source, said, ordered=ordered, return_exceptions=return_exceptions)

        return mapping.Mapping(begin)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(
            f"{self._name} is a function of an app and is not called directly: "
            f"{self._name}.remote(…) runs it in a container, {self._name}.local(…) here"
        )

    # what comes later

    @property
    def logs(self) -> Logs:
        """Its output."""
        return Logs(self._about_logs)

    @property
    def metrics(self) -> FunctionMetrics:
        """Its metrics."""
        return FunctionMetrics(self)

    @dual
    async def get_web_url(self) -> Optional[str]:
        """The URL of a web function, as it works where this is called; None for others."""
        if self._raw is not None and self._web is None:
            return None
        from alight.sdk import web_urls  # noqa: PLC0415  few functions have one

        callee = await self._callee()
        return await web_urls.url_of(callee, callee.method)

    @property
    def web_url(self) -> Optional[str]:
        """The old name of ``get_web_url()``. Deprecated."""
        warnings.warn("web_url has a new name: get_web_url()", errors.DeprecationError, stacklevel=2)
        found: Optional[str] = self.get_web_url()
        return found

    @dual
    async def info(self, *, refresh: bool = False) -> Any:
        """What it was declared with, as the server has it: ``alight.types.FunctionInfo``."""
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        del refresh  # it is always asked for
        return await measuring.function_info(await self._callee())

    @dual
    async def stats(
        self, *, since: Any = None, until: Any = None, container: Any = None, all_variants: bool = False
    ) -> Any:
        """What became of its inputs and containers: ``alight.types.FunctionStats``.

        ``since`` is an hour before ``until``, which is now (datetimes); at most 7 days. ``container``: of containers,
        only this one counts. ``all_variants``: with all that ``with_options`` made of it.
        """
        from alight.sdk import measuring  # noqa: PLC0415  only who asks

        return await measuring.function_stats(await self._callee(), since, until, container, all_variants)

    # inside

    async def _callee_for(self, verb: str) -> Callee:
        self._check_callable(verb)
        callee = await self._callee()
        self._check_callable(verb)
        return callee

    def _check_callable(self, verb: str) -> None:
        """InvalidError for a verb that does not fit. Of a function that was looked up: once it was found."""
        if self._fits == verb:
            return
        if self._web is not None:
            raise errors.InvalidError(
                f"{self._name} is a web function: it answers requests", hint="get_web_url() says where"
            )
        is_generator = self._is_generator()
        if is_generator is None:
            return
        if verb == "remote_gen" and not is_generator:
            raise errors.InvalidError(
                f"{self._name} is not a generator: it returns one value", hint="use .remote() or .map()"
            )
        if is_generator and verb != "remote_gen":
            raise errors.InvalidError(
                f"{self._name} is a generator: .{verb}() returns one value", hint="use .remote_gen()"
            )
        self._fits = verb


def _no_wrapping(wrap_returned_exceptions: Optional[bool]) -> None:
    if wrap_returned_exceptions is not None:
        warnings.warn(
            "wrap_returned_exceptions does nothing any more: returned exceptions are bare",
            errors.DeprecationError,
            stacklevel=4,
        )
