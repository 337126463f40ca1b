"""Verbs are written once and work both ways, without an event loop where none is asked for."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alight.sdk import sync, trampoline
from alight.sdk.sync import Future, dual, dual_chunks, dual_context, dual_function, dual_gen
from alight.wire.errors import AsyncUsageWarning, InvalidError


class Lists:
    """[0, 1], [2, 3], … with an empty one between, then an error."""

    def __init__(self, log, n, unread):
        self.log, self.n, self.unread, self.asked = log, n, unread, 0

    async def more(self):
        self.asked += 1
        await Future().within(0.0001)
        if self.asked > self.n:
            return None
        if self.asked == 9:
            raise InvalidError("no nine")
        return [2 * self.asked - 2, 2 * self.asked - 1]

    def close(self):
        self.log.append("closed")


class Thing:
    def __init__(self):
        self.log = []

    @dual
    async def add(self, x: int, *, y: int = 2) -> int:
        """Adds."""
        future = Future()
        threading.Thread(target=lambda: future.set(x + y)).start()
        return await future

    @dual
    async def twice(self, x: int) -> int:
        return await self.add.raw(await self.add.raw(x))

    @dual
    async def fail(self) -> None:
        raise InvalidError("no")

    @dual
    async def never(self) -> None:
        try:
            await Future()
        except BaseException as error:
            self.log.append(type(error).__name__)
            raise

    @dual_gen
    async def count(self, n: int):
        for i in range(n):
            yield await self.add.raw(i)

    @dual_chunks
    def lists(self, n: int, *, unread: str = ""):
        """In lists."""
        return Lists(self.log, n, unread)

    @dual_context
    async def opened(self, *, swallow: bool = False):
        self.log.append("open")
        try:
            yield 5
        except KeyError:
            if not swallow:
                raise
        finally:
            self.log.append("closed")

    @staticmethod
    @dual_function
    async def make(x: int) -> int:
        return x


def test_blocking_and_aio_give_the_same():
    thing = Thing()
    assert thing.add(1) == 3
    assert thing.twice(1) == 5
    assert Thing.make(4) == 4
    assert asyncio.run(thing.add.aio(1, y=3)) == 4
    assert asyncio.run(thing.twice.aio(1)) == 5
    assert asyncio.run(Thing.make.aio(4)) == 4


def test_generators_serve_both_kinds_of_for():
    thing = Thing()
    assert list(thing.count(3)) == [2, 3, 4]

    async def collect(items):
        return [item async for item in items]

    assert asyncio.run(collect(thing.count.aio(3))) == [2, 3, 4]
    assert asyncio.run(collect(thing.count(2))) == [2, 3]


def test_items_in_lists_serve_both_kinds_of_for():
    thing = Thing()
    items = thing.lists(3)
    assert next(items) == 0
    assert list(items) == [1, 2, 3, 4, 5]
    assert list(items) == []

    async def collect(items):
        return [item async for item in items]

    assert asyncio.run(collect(thing.lists.aio(2))) == [0, 1, 2, 3]
    assert asyncio.run(collect(thing.lists(2))) == [0, 1, 2, 3]
    assert thing.log == ["closed"] * 3
    with pytest.raises(InvalidError, match="no nine"):
        list(thing.lists(10))
    assert str(inspect.signature(thing.lists)) == "(n: 'int', *, unread: 'str' = '')"


def test_leaving_the_loop_closes_at_once():
    """Not when the garbage collector comes by: a call goes on until then."""
    thing = Thing()
    for _ in thing.lists(5):
        break
    assert thing.log == ["closed"]

    async def leave():
        async for _ in thing.lists.aio(5):
            break
        await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert thing.log == ["closed"] * 2


def test_what_was_never_read_says_what_that_means():
    thing = Thing()
    with pytest.warns(RuntimeWarning, match=r"Thing.lists\(…\) was never iterated: nothing ran"):
        thing.lists(1, unread="nothing ran")
    thing.lists(1)
    thing.lists(1, unread="nothing ran").close()


def test_context_managers_serve_both_kinds_of_with():
    thing = Thing()
    with thing.opened() as value:
        assert value == 5
    with thing.opened(swallow=True):
        raise KeyError
    with pytest.raises(ValueError, match="mine"), thing.opened(swallow=True):
        raise ValueError("mine")

    async def both():
        async with thing.opened() as value:
            assert value == 5
        async with thing.opened.aio(swallow=True):
            raise KeyError

    asyncio.run(both())
    assert thing.log == ["open", "closed"] * 5


def test_signatures_and_docs_are_the_verbs_own():
    thing = Thing()
    assert str(inspect.signature(thing.add)) == "(x: 'int', *, y: 'int' = 2) -> 'int'"
    assert list(inspect.signature(Thing.add).parameters) == ["self", "x", "y"]
    assert list(inspect.signature(Thing.make).parameters) == ["x"]
    assert thing.add.__doc__ == "Adds."
    assert callable(Thing.add.aio)
    assert thing.add.__name__ == "add"


def test_a_blocking_call_in_a_loop_works_and_warns_once():
    thing = Thing()
    trampoline._WARNED.clear()

    async def main():
        with pytest.warns(AsyncUsageWarning, match=r"await Thing.add.aio"):
            assert thing.add(1) == 3
        assert thing.add(1) == 3  # a second warning would be an error here

    asyncio.run(main())


def test_cancelling_a_task_reaches_the_verb():
    thing = Thing()

    async def main():
        task = asyncio.create_task(thing.never.aio())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert thing.log == ["CancelledError"]


def test_foreign_awaitables_pass_through_in_a_loop_and_are_refused_without_one():
    class Foreign:
        @dual
        async def nap(self):
            await asyncio.sleep(0)
            return 1

        @dual
        async def wait(self):
            await asyncio.sleep(0.001)
            return 2

    assert asyncio.run(Foreign().nap.aio()) == 1
    assert asyncio.run(Foreign().wait.aio()) == 2
    with pytest.raises(RuntimeError, match="aio"):
        Foreign().nap()


def test_waiting_can_have_an_end_both_ways():
    class Patient:
        @dual
        async def wait(self):
            return await Future().within(0.001)

    assert Patient().wait() is False
    assert asyncio.run(Patient().wait.aio()) is False


def test_a_future_keeps_its_first_value_and_wakes_every_waiter():
    future = Future()
    seen = []
    threads = [threading.Thread(target=lambda: seen.append(future.wait(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    future.set(1)
    future.set(2)
    for thread in threads:
        thread.join()
    called = []
    future.add_callback(lambda: called.append(True))
    assert (seen, future.result(), called) == ([True] * 4, 1, [True])


def test_errors_reach_users_without_our_lines_unless_asked(monkeypatch):
    def files(call):
        with pytest.raises(InvalidError) as caught:
            call()
        return [entry.path.name for entry in caught.traceback]

    assert files(lambda: Thing().fail()).count("sync.py") == 1
    monkeypatch.setenv("ALIGHT_TRACEBACK", "1")
    assert files(lambda: Thing().fail()).count("sync.py") > 1


def test_blocking_calls_do_not_import_asyncio():
    code = (
        "import sys; from alight.sdk.sync import dual\n"
        "class A:\n    @dual\n    async def f(self): return 1\n"
        "assert A().f() == 1 and 'asyncio' not in sys.modules"
    )
    source = str(Path(sync.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": source})
