"""Functions that yield: items leave as they come, gathered when they come fast, and no faster than they are taken.

Blocking generators run wherever blocking functions do (main thread, or a thread of ``threads``), async ones on the
loop. The end is an output in words, with the number of items.
"""

from __future__ import annotations

import time
from _queue import SimpleQueue
from _thread import allocate_lock

from alight.runtime.outputs import Gather
from alight.wire import ambient, payload
from alight.wire.errors import InputCancellation, InvalidError
from alight.wire.states import ResultStatus

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Tuple

    from alight.runtime.inputs import Given
    from alight.runtime.runner import Runner, Target

#: Items, and bytes of them, that may be on their way: who yields faster waits.
MOST_ITEMS, MOST_BYTES = 1000, 4 << 20


class Window:
    """How much of one generator is on its way. ``wake`` is called, in the link's thread, when there is room again."""

    def __init__(self, wake: Callable[[], Any]) -> None:
        self._lock = allocate_lock()
        self._wake = wake
        self._items = 0
        self._bytes = 0
        self._waited_for = False

    def take(self, size: int) -> bool:
        """Whether an item of this size may go now; it counts from here on. Otherwise ``wake`` will be called."""
        with self._lock:
            full = self._items >= MOST_ITEMS or self._bytes + size > MOST_BYTES
            if full and self._items:  # one item alone goes, however large it is
                self._waited_for = True
                return False
            self._items += 1
            self._bytes += size
            return True

    def acknowledged(self, items: int, size: int) -> None:
        """So many are kept elsewhere. Under the lock of the outputs."""
        with self._lock:
            self._items -= items
            self._bytes -= size
            woken, self._waited_for = self._waited_for, False
        if woken:
            self._wake()


class Items:
    """The items of one input on their way out."""

    def __init__(self, runner: Runner, target: Target, given: Given, index: int, wake: Callable[[], Any]) -> None:
        self._runner = runner
        self._target = target
        self._window = Window(wake)
        self._gather = Gather(given, self._window, given.start + index)
        self._name = f"out-{given.input_id(index)}-{given.attempt}"
        self.count = 0

    def packed(self, item: Any) -> Tuple[Any, int]:
        """The item as the runner packs values, and how much of the window it takes."""
        body = self._runner.packed(self._target, item)
        return body, len(body) if type(body) is bytes else payload.size_of(body)

    def may_go(self, size: int) -> bool:
        """Whether there is room. When there is not, what waits here leaves, so that it can be acknowledged."""
        if self._window.take(size):
            return True
        self._runner.outputs.flush()
        return False

    def go(self, body: Any) -> None:
        """Send it. There is room."""
        if type(body) is bytes:
            self._runner.outputs.add_item(self._gather, self.count, body)
        else:
            from alight.runtime import spool  # noqa: PLC0415  only large items pay for it

            named = spool.write(self._runner.spool, f"{self._name}-{self.count}", body, self._target.name)
            self._runner.outputs.add_item_reference(self._gather, self.count, named)
        self.count += 1


def run(runner: Runner, given: Given, target: Target) -> None:
    """A chunk of inputs of a blocking generator, in the main thread. The link's helper reads meanwhile."""
    ambient.current_call_id.set(given.call_id)
    runner.given = given
    for index in given.line:
        started = time.monotonic()
        ambient.current_input_id.set(given.input_id(index))

        def arm(on: bool, index: int = index) -> None:
            runner.armed = index if on else None

        run_one(runner, given, index, target, arm, started)
    runner.done(given)


def run_one(
    runner: Runner, given: Given, index: int, target: Target, arm: Callable[[bool], None], started: float
) -> None:
    """One input of a blocking generator. ``arm`` says when its code may be interrupted."""
    room: SimpleQueue[None] = SimpleQueue()
    items = Items(runner, target, given, index, lambda: room.put(None))
    failure: Any = None
    iterator: Any = None
    try:
        try:
            args, kwargs = runner.arguments(target, given, index)
            arm(True)
            if given.is_cancelled(index):
                raise InputCancellation
            iterator = _iterator(target, target.call(*args, **kwargs))
            args = kwargs = None
            for item in iterator:
                if runner.follows:
                    continue  # the caller gets the items of rank 0
                arm(False)
                body, size = items.packed(item)
                del item
                while not items.may_go(size):
                    arm(True)
                    if given.is_cancelled(index):
                        raise InputCancellation
                    room.get()
                    arm(False)
                items.go(body)
                arm(True)
                if given.is_cancelled(index):
                    raise InputCancellation
            arm(False)
        except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
            arm(False)
            failure = error
    except BaseException as error:  # noqa: BLE001  a signal came while another exception was on its way
        failure = error
    if failure is not None:
        failure = _closed(iterator, failure)
        runner.fail(target, given, index, failure, started, items.count)
    else:
        runner.end(given, index, {"status": ResultStatus.SUCCESS}, started, items.count)


async def run_async(runner: Runner, given: Given, index: int, target: Target, loop: Any, started: float) -> None:
    """One input of an async generator, in its task."""
    import asyncio  # noqa: PLC0415  it is there already

    room = asyncio.Event()
    items = Items(runner, target, given, index, lambda: loop.call_soon_threadsafe(room.set))
    try:
        args, kwargs = runner.arguments(target, given, index)
        generator = target.call(*args, **kwargs)
        if not hasattr(generator, "__aiter__"):
            raise _not_a_generator(target, generator)
        args = kwargs = None
        try:
            async for item in generator:
                if runner.follows:
                    continue  # the caller gets the items of rank 0
                body, size = items.packed(item)
                while not items.may_go(size):
                    await room.wait()
                    room.clear()
                items.go(body)
                if items.count % 64 == 0:
                    await asyncio.sleep(0)  # a generator that never waits would keep all others from running
        finally:
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()
    except BaseException as error:  # noqa: BLE001  whatever user code raises is its output
        runner.fail(target, given, index, error, started, items.count)
    else:
        runner.end(given, index, {"status": ResultStatus.SUCCESS}, started, items.count)


def _iterator(target: Target, made: Any) -> Iterator[Any]:
    if not hasattr(made, "__iter__"):
        raise _not_a_generator(target, made)
    return iter(made)


def _not_a_generator(target: Target, made: Any) -> InvalidError:
    return InvalidError(
        f"{target.name} is declared as a generator and returned a {type(made).__name__}",
        hint="yield its items, or declare it without is_generator=True",
    )


def _closed(iterator: Any, failure: BaseException) -> BaseException:
    """Let a generator that did not end clean up; what it raises then is added to why it was closed."""
    close = getattr(iterator, "close", None)
    if close is None:
        return failure
    try:
        close()
    except BaseException as error:  # noqa: BLE001  user code, which may raise anything
        error.__context__ = failure if error is not failure else None
        return error if isinstance(failure, Exception) else failure
    return failure
