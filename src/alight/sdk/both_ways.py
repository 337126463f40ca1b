"""What verbs hand out besides values: items and contexts that serve both blocking callers and event loops."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Generator, List, Optional, Protocol

from alight.sdk.plainly import plainly
from alight.sdk.trampoline import in_loop, run

if TYPE_CHECKING:
    from typing import AsyncGenerator


class Items:
    """An async generator that both ``for`` and ``async for`` accept."""

    def __init__(self, generator: Any, name: str) -> None:
        self._generator = generator
        self._name = name

    def __iter__(self) -> Items:
        return self

    def __next__(self) -> Any:
        try:
            return run(self._generator.__anext__(), self._name)
        except StopAsyncIteration:
            raise StopIteration from None
        except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
            raise plainly(error)  # noqa: B904  it is the same one

    def close(self) -> None:
        run(self._generator.aclose())

    def __aiter__(self) -> Items:
        return self

    async def __anext__(self) -> Any:
        return await in_loop(self._generator.__anext__())

    async def aclose(self) -> None:
        await in_loop(self._generator.aclose())


class Chunks(Protocol):
    """Items that come in lists. What a verb of ``dual_chunks`` returns."""

    unread: str  # what it means that nobody ever asked; "" when that means nothing

    async def more(self) -> Optional[List[Any]]:
        """The next items, None when there are no more."""

    def close(self) -> None:
        """Nobody asks again. Must not wait."""


class Chunked:
    """What comes in lists, one item at a time, for both ``for`` and ``async for``.

    Between two lists an item costs what an item of a list costs: no coroutine, no lock, no event loop.
    """

    def __init__(self, source: Chunks, name: str) -> None:
        self._source = source
        self._name = name
        self._iterator: Any = None

    def __iter__(self) -> Any:
        # The generator knows nothing of this object, so that a `break` ends it at once and not when a cycle is found.
        if self._iterator is None:
            self._iterator = _each(self._source, self._name)
        return self._iterator

    def __next__(self) -> Any:
        return next(iter(self))

    def close(self) -> None:
        self._source.close()
        if self._iterator is None:
            self._iterator = iter(())

    def __aiter__(self) -> Any:
        if self._iterator is None:
            self._iterator = _each_in_loop(self._source)
        return self._iterator

    async def __anext__(self) -> Any:
        return await self.__aiter__().__anext__()

    async def aclose(self) -> None:
        self.close()

    def __del__(self) -> None:
        if self._iterator is None and self._source.unread:
            warnings.warn(
                f"{self._name}(…) was never iterated: {self._source.unread}", RuntimeWarning, stacklevel=2, source=self
            )


def _each(source: Chunks, name: str) -> Generator[Any, None, None]:
    try:
        while True:
            try:
                items = run(source.more(), name)
            except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
                raise plainly(error)  # noqa: B904  it is the same one
            if items is None:
                return
            yield from items
    finally:
        source.close()


async def _each_in_loop(source: Chunks) -> AsyncGenerator[Any, None]:
    try:
        while True:
            items = await in_loop(source.more())
            if items is None:
                return
            for item in items:
                yield item
    finally:
        source.close()


class Context:
    """An async generator with one ``yield``, as a context manager for both ``with`` and ``async with``."""

    def __init__(self, generator: Any, name: str) -> None:
        self._generator = generator
        self._name = name

    def __enter__(self) -> Any:
        try:
            return run(self._generator.__anext__(), self._name)
        except BaseException as error:  # noqa: BLE001  it is raised on, without our lines
            raise plainly(error)  # noqa: B904  it is the same one

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        left: bool = run(self._leave(kind, error, traceback))
        return left

    async def __aenter__(self) -> Any:
        return await in_loop(self._generator.__anext__())

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool:
        left: bool = await in_loop(self._leave(kind, error, traceback))
        return left

    async def _leave(self, kind: Any, error: Any, traceback: Any) -> bool:
        """Let the generator end, or see the error; whether it took that for itself."""
        try:
            await (self._generator.__anext__() if kind is None else self._generator.athrow(error or kind()))
        except StopAsyncIteration:
            return kind is not None
        except BaseException as raised:
            if raised is error:
                raised.__traceback__ = traceback
                return False
            raise
        raise RuntimeError(f"{self._name} yielded twice")
