"""Several inputs at once: coroutines on the loop, blocking functions in threads, batches."""

from __future__ import annotations

import pytest

from alight.wire import ids, payload
from alight.wire.errors import InvalidError
from alight.wire.spec import Autoscaling, MethodSpec
from tests.unit.runtime.conftest import CALL

#: Returns when ``count`` inputs are there at once.
MEET = {
    "def": """
        import alight, threading, time
        def f(count):
            barrier = BARRIERS.setdefault(count, threading.Barrier(count))
            mine = alight.current_input_id()
            barrier.wait()
            time.sleep(0.005)
            assert alight.current_input_id() == mine
            return mine, alight.current_function_call_id()
        BARRIERS = {}
    """,
    "async def": """
        import alight, asyncio
        async def f(count):
            global here
            here += 1
            mine = alight.current_input_id()
            while here < count:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.005)
            assert alight.current_input_id() == mine
            return mine, alight.current_function_call_id()
        here = 0
    """,
}
BOTH = pytest.mark.parametrize("word", ["def", "async def"])


def concurrent(most):
    return {"autoscaling": Autoscaling(max_concurrent_inputs=most)}


def batched(size, wait):
    return {"autoscaling": Autoscaling(batch_size=size, batch_wait=wait)}


def gathered(node, count):
    values = {}
    while len(values) < count:
        head, body = node.output()
        values[head.position] = payload.loads(body) if head.status == "success" else head
    return values


@BOTH
def test_inputs_run_at_once_and_know_which_they_are(node, word):
    node.start(MEET[word], **concurrent(4))
    node.give_many(0, [4] * 3)
    node.give_many(3, [4])
    assert gathered(node, 4) == {position: (ids.input_id(CALL, position), CALL) for position in range(4)}
    assert node.stop()[0] == 0


@BOTH
def test_no_more_than_the_limit_run(node, word):
    wait = "await asyncio.sleep(0.02)" if "async" in word else "time.sleep(0.02)"
    node.start(
        f"""
        import asyncio, time
        from alight.wire import ambient
        now = most = 0
        {word} f(limit):
            global now, most
            if limit:
                most = 0
                return ambient.input_concurrency(limit)
            now += 1
            most = max(most, now)
            {wait}
            now -= 1
            return most
        """,
        **concurrent(3),
    )
    node.give_many(0, [0] * 9)
    assert max(gathered(node, 9).values()) == 3
    node.give_many(9, [50, 2])
    assert gathered(node, 2) == {9: 3, 10: 2}
    node.give_many(11, [0] * 6)
    assert max(gathered(node, 6).values()) == 2


def test_one_task_is_cancelled_and_its_siblings_go_on(node):
    node.start(
        """
        import asyncio
        async def f(x):
            print("begun", flush=True)
            await asyncio.sleep(60 if x else 0.1)
            return x
        """,
        **concurrent(2),
    )
    node.give_many(0, [0, 1])
    for _ in range(2):
        assert node.process.stdout.readline() == "begun\n"
    node.cancel(1)
    values = gathered(node, 2)
    assert values[0] == 0
    assert values[1].status == "cancelled"


def test_a_cancelled_thread_ends_the_container_and_returns_its_siblings(node):
    node.start(
        """
        import time
        def f(x):
            print("begun", flush=True)
            time.sleep(60)
        """,
        **concurrent(2),
    )
    node.give_many(0, [0, 1, 2])
    for _ in range(2):
        assert node.process.stdout.readline() == "begun\n"
    node.cancel(1)
    head, _ = node.output()
    assert (head.position, head.status) == (1, "cancelled")
    assert node.returned() == [(CALL, 0, 1, 1), (CALL, 2, 3, 1)]
    code, _, err = node.end()
    assert code == 0
    assert "cannot be interrupted" in err


@BOTH
def test_generators_run_at_once(node, word):
    wait = "await asyncio.sleep(0.001)" if "async" in word else "time.sleep(0.001)"
    node.start(
        f"""
        import asyncio, time
        here = 0
        {word} f():
            global here
            here += 1
            yield 1
            while here < 2:
                {wait}
            yield 2
        """,
        **concurrent(2),
    )
    node.give(0)
    node.give(1)
    values, ends = {0: [], 1: []}, 0
    while ends < 2:
        head, bodies = node.outputs()
        if hasattr(head, "status"):
            assert (head.status, head.items) == ("success", 2)
            ends += 1
        else:
            values[head.position] += [payload.loads(body) for body in bodies]
    assert values == {0: [1, 2], 1: [1, 2]}


def test_blocking_and_async_methods_share_a_container(node):
    node.start(
        """
        import alight, asyncio, threading
        app = alight.App()
        @app.cls()
        class C:
            @alight.method()
            def blocking(self):
                MET.wait()
                return alight.current_input_id(), threading.current_thread() is threading.main_thread()
            @alight.method()
            async def other(self):
                await asyncio.sleep(0.01)
                MET.set()
                return alight.current_input_id()
        MET = threading.Event()
        """,
        "C",
        name="C.*",
        class_name="C",
        methods=(MethodSpec("blocking"), MethodSpec("other")),
        **concurrent(2),
    )
    body = payload.dumps_bytes(((), {}))
    node.give_chunk(0, [body], method="blocking")
    node.give_chunk(1, [body], method="other")
    assert gathered(node, 2) == {0: (ids.input_id(CALL, 0), False), 1: ids.input_id(CALL, 1)}


@BOTH
def test_a_batch_gets_lists_and_is_answered_one_by_one(node, word):
    node.start(f"{word} f(x, y):\n    return [(a * b, len(x)) for a, b in zip(x, y)]\n", **batched(3, 60))
    bodies = [payload.dumps_bytes(((1, 2), {})), payload.dumps_bytes(((3,), {"y": 4}))]
    node.give_chunk(0, bodies)
    node.give_chunk(2, [payload.dumps_bytes(((5,), {"y": 6}))])
    assert gathered(node, 3) == {0: (2, 3), 1: (12, 3), 2: (30, 3)}
    assert node.stop()[0] == 0


@BOTH
def test_a_batch_that_stays_small_begins_after_its_wait(node, word):
    node.start(f"{word} f(x):\n    return [len(x)] * len(x)\n", **batched(100, 0.05))
    node.give_many(0, [1, 2])
    assert gathered(node, 2) == {0: 2, 1: 2}


@BOTH
def test_one_exception_is_the_output_of_the_whole_batch(node, word):
    node.start(f"{word} f(x):\n    raise ValueError('all')\n", **batched(2, 60))
    node.give_many(0, [1, 2])
    assert [one.failure.message for one in gathered(node, 2).values()] == ["all", "all"]


@BOTH
@pytest.mark.parametrize(("code", "said"), [("x[:1]", "list of 1"), ("tuple(x)", "returned a tuple")])
def test_a_batch_has_to_return_as_many(node, word, code, said):
    node.start(f"{word} f(x):\n    return {code}\n", **batched(2, 60))
    node.give_many(0, [1, 2])
    for _ in range(2):
        _, body = node.output()
        error = payload.loads(body)
        assert isinstance(error, InvalidError)
        assert said in str(error)


def test_an_input_that_does_not_fit_fails_alone(node):
    node.start("def f(x):\n    return x\n", **batched(2, 60))
    node.give_chunk(0, [payload.dumps_bytes(((1, 2), {})), payload.dumps_bytes(((3,), {}))])
    values = gathered(node, 2)
    assert values[1] == 3
    assert values[0].failure.type == "builtins.TypeError"


@BOTH
def test_a_batch_is_interrupted_when_all_of_it_is_cancelled(node, word):
    wait = "await asyncio.sleep(60)" if "async" in word else "time.sleep(60)"
    node.start(
        f"""
        import asyncio, time
        {word} f(x):
            print("begun", flush=True)
            {wait}
        """,
        **batched(2, 60),
    )
    node.give_many(0, [1, 2])
    assert node.process.stdout.readline() == "begun\n"
    node.cancel()
    assert [one.status for one in gathered(node, 2).values()] == ["cancelled", "cancelled"]
