"""A class's instance in this process, for ``obj.method.local()`` and plain attributes: made and entered once.

In containers the runtime makes instances; this is for code that runs a class where it is declared.
"""

from __future__ import annotations

from typing import Any, Callable, List, Mapping

from alight.sdk.shaping import COROUTINE, Shaped
from alight.sdk.sync import in_event_loop
from alight.wire.errors import InvalidError


def make(raw: type, given: Mapping[str, Any]) -> Any:
    """An instance with these parameters. No ``__init__`` is run: such classes have none."""
    instance = raw.__new__(raw)  # type: ignore[call-overload]  # mypy takes it for the metaclass
    for name, value in given.items():
        setattr(instance, name, value)
    return instance


def enter(instance: Any) -> None:
    """What a container does before the first input: ``__enter__``, then the ``@enter`` hooks, bases first."""
    kind = type(instance)
    if hasattr(kind, "__enter__"):
        instance.__enter__()
    for hook in [*hooks(kind, "snap"), *hooks(kind, "start")]:
        result = hook(instance)
        if getattr(getattr(hook, "__code__", None), "co_flags", 0) & COROUTINE:
            _finish(result, f"{kind.__qualname__}.{hook.__name__}")


async def enter_async(instance: Any) -> None:
    """What precedes an async method that is called here: the protocol's own hook, and no ``@enter`` ones."""
    kind = type(instance)
    if hasattr(kind, "__aenter__"):
        await instance.__aenter__()
    elif hasattr(kind, "__enter__"):
        instance.__enter__()


def hooks(raw: type, moment: str) -> List[Callable[[Any], Any]]:
    """The ``@enter`` functions of a class for "snap" or "start": bases first, in the order of their definition.

    One that a subclass overrides runs once, as the subclass has it.
    """
    names: List[str] = []
    for base in reversed(raw.__mro__):
        for name, value in vars(base).items():
            if isinstance(value, Shaped) and value.shape.enter == moment and name not in names:
                names.append(name)
    found = [getattr(raw, name) for name in names]
    return [one._raw if isinstance(one, Shaped) else one for one in found]  # noqa: SLF001  of this package


def _finish(coroutine: Any, name: str) -> None:
    import asyncio  # noqa: PLC0415  for async hooks alone

    if in_event_loop():
        coroutine.close()
        raise InvalidError(
            f"{name}() is async and cannot be waited for inside an event loop",
            hint="call the method where no event loop runs, or make the hook a plain function",
        )
    asyncio.run(coroutine)
