"""The way of coroutines: up to ``limit`` inputs at a time, each a task on the one event loop of the container.

The loop lives as long as the container, so that background tasks go on between inputs. Blocking methods of a class that
has async ones run in the main thread while inputs come one at a time, outside of the loop as they would without any,
and in threads otherwise.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque

from alight.runtime import generators
from alight.wire import ambient
from alight.wire.codec import Kind
from alight.wire.errors import InputCancellation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Deque, Dict, Tuple

    from alight.runtime.inputs import Given
    from alight.runtime.link import Arrival
    from alight.runtime.runner import Target
    from alight.runtime.serve import Service


class Tasks:
    """See the module. All but ``serve``, ``cancelled`` and ``leave`` belongs to the loop."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._runner = service.runner
        self._link = service.link
        self._loop = service.loop()
        self._waiting: Deque[Given] = deque()
        self._active: Dict[Tuple[Given, int], Any] = {}  # the task, once it runs; None before
        self._ending = False
        self._ended: Any = None
        self._flushing = False
        self._executor: Any = None

    def serve(self) -> None:
        """In the main thread, until told to leave and nothing runs any more."""
        self._loop.run_until_complete(self._serve())
        self._link.deliver = lambda _arrival: None

    def cancelled(self) -> None:
        """In the link's thread: inputs were marked as cancelled."""
        self._loop.call_soon_threadsafe(self._cancel_marked)
        self._service.interrupt_main()

    def leave(self) -> None:
        """In a signal handler: the container was told to end."""
        self._loop.call_soon_threadsafe(self._cancel_all)

    def changed(self) -> None:
        """In user code: another number of inputs may run at a time."""
        self._loop.call_soon_threadsafe(self._fill)

    async def _serve(self) -> None:
        loop = self._loop
        self._ended = loop.create_future()
        early = self._link.redirect(lambda arrival: loop.call_soon_threadsafe(self._arrived, arrival))
        for arrival in early:
            self._arrived(arrival)
        await self._ended
        self._link.outputs.flush()

    def _arrived(self, arrival: Arrival) -> None:
        kind, head, _ = arrival
        if kind == Kind.LINK_INPUT:
            self._waiting.append(head)
            self._fill()
        elif self._service.ends(kind, head):
            self._ending = True
            self._fill()

    def _fill(self) -> None:
        """Begin as many inputs as may run."""
        waiting, active, limit = self._waiting, self._active, self._service.limit
        while waiting and len(active) < limit:
            given = waiting[0]
            index = next(given.line, None)
            if index is None:
                waiting.popleft()
                continue
            active[given, index] = None
            self._loop.create_task(self._one(given, index))
        if self._ending and not active and not self._ended.done():
            self._ended.set_result(None)
        elif not self._flushing and not waiting and self._link.outputs.is_waiting:
            self._flushing = True  # after those that end in this turn of the loop as well
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        self._link.outputs.flush()

    async def _one(self, given: Given, index: int) -> None:
        """One input. Whatever happens, it is answered and makes room for the next."""
        runner, started = self._runner, time.monotonic()
        target = runner.target(given)
        try:
            ambient.current_call_id.set(given.call_id)
            ambient.current_input_id.set(given.input_id(index))
            self._active[given, index] = asyncio.current_task()
            if given.is_cancelled(index):
                raise InputCancellation
            if target.streams:
                await self._stream(target, given, index, started)
                return
            args, kwargs = runner.arguments(target, given, index)
            if target.is_async:
                value = await target.call(*args, **kwargs)
            else:
                value = await self._blocking(target, given, index, args, kwargs)
            body = runner.packed(target, value)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            runner.fail(target, given, index, error, started)
        else:
            if type(body) is bytes:
                now = time.monotonic()
                runner.outputs.add(given, index, body, now - started, now)
            else:
                runner.leave_file(target, given, index, body, started)
        finally:
            del self._active[given, index]
            if not given.waits and not any(one is given for one, _ in self._active):
                given.let_go()
            self._fill()

    async def _stream(self, target: Target, given: Given, index: int, started: float) -> None:
        runner = self._runner
        if not target.is_async:
            if self._service.most == 1:
                runner.given = given

                def arm(on: bool) -> None:
                    runner.armed = index if on else None

                self._outside(lambda: generators.run_one(runner, given, index, target, arm, started))
            else:
                work = self._in_thread(
                    lambda: generators.run_one(runner, given, index, target, lambda _on: None, started)
                )
                await _to_its_end(asyncio.ensure_future(work))  # it answers itself, also when it is cancelled
            return
        await generators.run_async(runner, given, index, target, self._loop, started)

    async def _blocking(self, target: Target, given: Given, index: int, args: Any, kwargs: Any) -> Any:
        if self._service.most > 1:
            return await self._in_thread(lambda: target.call(*args, **kwargs))
        runner = self._runner
        runner.given, runner.armed = given, index
        try:
            return self._outside(lambda: target.call(*args, **kwargs))
        finally:
            runner.armed = None

    def _outside(self, work: Any) -> Any:
        """Blocking code in the loop's thread as if there were no loop, which waits meanwhile: it may make one of its
        own (asyncio.run), and what looks for a running one finds none.
        """
        loop, task = self._loop, asyncio.current_task()
        assert task is not None
        asyncio.tasks._leave_task(loop, task)  # noqa: SLF001  documented for loops of others
        asyncio._set_running_loop(None)  # noqa: SLF001  so is this
        try:
            return work()
        finally:
            asyncio._set_running_loop(loop)  # noqa: SLF001
            asyncio.set_event_loop(loop)  # asyncio.run leaves none
            asyncio.tasks._enter_task(loop, task)  # noqa: SLF001

    async def _in_thread(self, work: Any) -> Any:
        """In a thread, with the input's own context. It goes on when its input is cancelled: nothing can stop it."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415  only classes with both kinds of methods

            self._executor = ThreadPoolExecutor(self._service.most, "alight-input")
        return await self._loop.run_in_executor(self._executor, contextvars.copy_context().run, work)

    def _cancel_marked(self) -> None:
        for (given, index), task in list(self._active.items()):
            if task is not None and given.is_cancelled(index):
                task.cancel()

    def _cancel_all(self) -> None:
        for task in list(self._active.values()):
            if task is not None:
                task.cancel()


async def _to_its_end(work: Any) -> None:
    while not work.done():
        try:
            await asyncio.shield(work)
        except asyncio.CancelledError:
            continue


def close_loop(loop: Any) -> None:
    """What asyncio.run does at its end: cancel what is left, let it finish, close generators and threads."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.run_until_complete(loop.shutdown_default_executor())
    asyncio.set_event_loop(None)
    loop.close()
