"""Driving a verb's coroutine to its end: blocking and without an event loop, or in the caller's own."""

from __future__ import annotations

import os
import sys
import types
import warnings
from typing import Any, Coroutine, Generator, Optional, Set, TypeVar, Union

from alight.sdk.future import Future, Within
from alight.wire.errors import AsyncUsageWarning

T = TypeVar("T")


def run(coroutine: Any, name: str = "") -> Any:
    """Run a verb's coroutine to its end in this thread, blocking."""
    _warn_in_loop(name)
    send = coroutine.send
    try:
        step = send(None)
        while True:
            try:
                _ours(step).wait()
            except BaseException as error:  # noqa: BLE001  the coroutine itself decides what an interrupt means
                step = coroutine.throw(error)
            else:
                step = send(None)
    except StopIteration as stop:
        return stop.value


def _ours(step: Any) -> Union[Future, Within]:
    if not isinstance(step, (Future, Within)):
        raise RuntimeError("this awaits something of an event loop: call it with `.aio` there")  # noqa: TRY004  misuse
    return step


@types.coroutine
def in_loop(coroutine: Any) -> Generator[Any, Any, Any]:
    """The same coroutine, driven by the running asyncio loop."""
    error: Optional[BaseException] = None
    value: Any = None
    while True:
        try:
            step = coroutine.send(value) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return stop.value
        value = error = None
        try:
            if isinstance(step, (Future, Within)):
                yield from _loop_waiter(step)
            else:
                value = yield step
        except BaseException as raised:  # noqa: BLE001  cancellation and GeneratorExit go into the coroutine too
            error = raised


def _loop_waiter(step: Union[Future, Within]) -> Generator[Any, Any, Any]:
    loop = sys.modules["asyncio"].get_running_loop()
    waiter = loop.create_future()
    future, seconds = (step.future, step.seconds) if isinstance(step, Within) else (step, None)

    def release() -> None:
        if not waiter.done():
            waiter.set_result(None)

    def on_done() -> None:
        try:
            loop.call_soon_threadsafe(release)
        except RuntimeError:  # the loop was closed: nobody waits any more
            return

    future.add_callback(on_done)
    timer = None if seconds is None else loop.call_later(seconds, release)
    try:
        yield from waiter.__await__()
    finally:
        if timer is not None:
            timer.cancel()


def call_blocking(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine of this package to its end, without a word about event loops."""
    result: T = run(coroutine)
    return result


def in_event_loop() -> bool:
    """Whether an asyncio loop runs in this thread."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None  # noqa: SLF001  its public twin raises


def _warn_in_loop(name: str) -> None:
    if not in_event_loop() or not name or name in _WARNED:
        return
    _WARNED.add(name)
    setting = os.environ.get("ALIGHT_ASYNC_WARNINGS") or os.environ.get("MODAL_ASYNC_WARNINGS") or "1"
    if setting.lower() in {"0", "false", "no"}:
        return
    warnings.warn(
        f"{name}(…) blocks the event loop that it is called in: write `await {name}.aio(…)`",
        AsyncUsageWarning,
        stacklevel=4,
    )


_WARNED: Set[str] = set()
