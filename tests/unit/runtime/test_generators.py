"""Functions that yield: items in order and at once, the end in words, no faster than they are taken."""

from __future__ import annotations

import pytest

from alight.runtime.generators import MOST_BYTES, MOST_ITEMS, Window
from alight.wire import chunk, payload
from alight.wire.codec import MAX_INLINE

BOTH = pytest.mark.parametrize("word", ["def", "async def"])


@BOTH
def test_items_come_in_order_and_their_number_at_the_end(node, word):
    node.start(f"{word} f(n):\n    for i in range(n):\n        yield i\n")
    for position in (1, 2):
        node.give(position, 3000)
        values, end = node.items(position)
        assert values == list(range(3000))
        assert (end.status, end.items, end.position) == ("success", 3000, position)


@BOTH
def test_an_item_leaves_before_the_next_one_is_made(node, word):
    """Also the second, which comes too soon after the first to leave at once."""
    wait = "await asyncio.sleep(0.002)" if "async" in word else "time.sleep(0.002)"
    node.start(
        f"""
        import asyncio, os, time
        {word} f(go):
            yield 1
            yield 2
            while not os.path.exists(go):
                {wait}
            yield 3
        """
    )
    go = node.directory / "go"
    node.give(0, str(go))
    values = []
    while len(values) < 2:
        _, bodies = node.outputs()
        values += [payload.loads(body) for body in bodies]
    assert values == [1, 2]
    go.touch()
    assert payload.loads(node.outputs()[1][0]) == 3
    assert node.output()[0].items == 3


@BOTH
def test_an_exception_in_the_middle_comes_after_the_items(node, word):
    node.start(f"{word} f():\n    yield 1\n    raise ValueError('no more')\n")
    node.give(0)
    values, end = node.items()
    assert values == [1]
    assert (end.status, end.failure.message, end.items) == ("exception", "no more", 1)


@BOTH
def test_a_cancelled_generator_cleans_up(node, word):
    wait = "await asyncio.sleep(60)" if "async" in word else "time.sleep(60)"
    node.start(
        f"""
        import asyncio, time
        {word} f():
            try:
                yield 1
                print("waiting", flush=True)
                {wait}
            finally:
                print("cleaned", flush=True)
        """
    )
    node.give(0)
    assert node.process.stdout.readline() == "waiting\n"
    node.cancel(0)
    assert node.items()[1].status == "cancelled"
    assert node.process.stdout.readline() == "cleaned\n"
    node.give(1)
    assert payload.loads(node.outputs()[1][0]) == 1


@BOTH
def test_a_fast_generator_waits_for_acknowledgements(node, word):
    node.start(f"{word} f():\n    for i in range(10**9):\n        yield i\n")
    node.give(0)
    serials, count = [], 0
    while count < MOST_ITEMS:
        head, _ = node.outputs(acknowledge=False)
        serials.append(head.serial)
        count += len(head.positions)
    assert count == MOST_ITEMS
    node.acknowledge(*serials)
    head, _ = node.outputs(acknowledge=False)
    assert head.positions.start == MOST_ITEMS
    node.cancel()
    while chunk_end(node) != "cancelled":
        pass


def chunk_end(node):
    head, _ = node.outputs()
    return getattr(head, "status", None)


def test_unacknowledged_items_are_sent_again(node):
    node.start("def f():\n    yield 1\n    yield 2\n")
    node.give(0)
    said = []
    while not (said and hasattr(said[-1], "status")):
        said.append(node.outputs(acknowledge=False)[0])
    node.hang_up()
    assert node.accept().running == ()
    again = [node.outputs()[0] for _ in said]
    assert [one.serial for one in again] == [one.serial for one in said]


def test_a_large_item_goes_through_a_file(node):
    node.start("def f(n):\n    yield 1\n    yield bytes(n)\n")
    node.give(0, MAX_INLINE + 1)
    node.outputs()
    head, bodies = node.outputs()
    assert head.is_items
    assert head.is_reference
    assert head.positions == range(1, 2)
    name, _ = chunk.read_reference(bodies[0])
    assert len(payload.loads((node.directory / name).read_bytes())) == MAX_INLINE + 1
    assert node.output()[0].items == 2


def test_what_is_declared_as_a_generator_may_return_one(node):
    node.start("def f(n):\n    return iter(range(n))\n", is_generator=True)
    node.give(0, 3)
    assert node.items()[0] == [0, 1, 2]
    node.give(1, "no number")
    assert node.items(1)[1].status == "exception"


def test_the_window_counts_items_and_bytes():
    woken = []
    window = Window(lambda: woken.append(1))
    assert window.take(MOST_BYTES * 2), "one item alone goes, however large it is"
    assert not window.take(1)
    window.acknowledged(1, MOST_BYTES * 2)
    assert woken == [1]
    assert all(window.take(1) for _ in range(MOST_ITEMS))
    assert not window.take(1)
    window.acknowledged(1, 1)
    assert woken == [1, 1]
    assert window.take(1)
