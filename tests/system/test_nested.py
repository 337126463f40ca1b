"""Functions that call functions: parents that wait hold no slot, and nothing hangs."""

from __future__ import annotations

import os

import pytest

from tests.system.scripted import Script

TOTAL_MIB = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
FUNCTIONS = f"""
@app.function()
def leaf(x):
    return x + 1


@app.function(max_containers=1)
def narrow_leaf(x):
    return x + 1


@app.function(cpu=1.0 * os.cpu_count())
def parent(x):
    return leaf.remote(x) * 10


@app.function(max_containers=2)
def narrow_parent(x):
    return narrow_leaf.remote(x) * 10


@app.function()
def wide(count):
    return sum(leaf.map(range(count)))


@app.function()
async def wide_async(count):
    total = 0
    async for value in leaf.map.aio(range(count)):
        total += value
    return total + sum(await asyncio.gather(*(leaf.remote.aio(n) for n in range(3))))


@app.function()
def spawns(x):
    return alight.FunctionCall.gather(*(leaf.spawn(x + n) for n in range(3)))


@app.function(max_containers=1)
def factorial(n):
    return 1 if n == 0 else n * factorial.remote(n - 1)


@app.function()
def fibonacci(n):
    return n if n < 2 else sum(fibonacci.map([n - 1, n - 2]))


@app.function()
def catches(x):
    try:
        return fails.remote(x)
    except ValueError as error:
        return f"caught {{error}}"


@app.function()
def fails(x):
    raise ValueError(f"no {{x}}")


@app.cls()
@alight.concurrent(max_inputs=10)
class Cells:
    @alight.method()
    def add(self, x):
        return leaf.remote(x)


@app.function()
def asks_a_class(x):
    return Cells().add.remote(x)


@app.function(memory={TOTAL_MIB * 2 // 5})
def heavy_parent(x):
    time.sleep(1)
    return heavy_leaf.remote(x)


@app.function(memory={TOTAL_MIB * 2 // 5})
def heavy_leaf(x):
    return x + 1
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("nested"), "test-nested", FUNCTIONS)


def test_more_parents_than_slots(script):
    """Each parent asks for all cores of the machine; twelve at once still get their children."""
    assert script("""
        answer = [list(parent.map(range(12))), list(narrow_parent.map(range(6)))]
    """) == [[(x + 1) * 10 for x in range(12)], [(x + 1) * 10 for x in range(6)]]


def test_every_verb_from_within(script):
    assert script("""
        answer = [wide.remote(500), wide_async.remote(10), spawns.remote(1), catches.remote(7), asks_a_class.remote(3)]
    """) == [sum(range(1, 501)), sum(range(1, 11)) + 6, [2, 3, 4], "caught no 7", 4]


def test_recursion(script):
    """Within one container at most, and in a tree."""
    assert script("answer = [factorial.remote(4), fibonacci.remote(4)]") == [24, 3]


def test_a_class_with_concurrent_inputs_that_call_on(script):
    assert script("answer = sorted(Cells().add.map(range(20)))") == list(range(1, 21))


def test_children_that_can_never_start_name_their_parents(script):
    """Two parents fill the memory, and each waits for a child as large: said within seconds, never a hang."""
    answer = script("""
        began = time.monotonic()
        found = list(heavy_parent.map(range(2), return_exceptions=True))
        answer = [[str(one) for one in found], time.monotonic() - began]
    """)
    failed = [text for text in answer[0] if not text.isdigit()]
    assert failed, "both had room: the test asks for too little"
    assert all("heavy_parent()" in text for text in failed), answer[0]
    assert answer[1] < 30
