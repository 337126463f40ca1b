"""Generators: items as they are yielded, failures and ends in the middle, readers that stop or are slow."""

from __future__ import annotations

import pytest

from tests.system.scripted import Script

FUNCTIONS = """
@app.function()
def count(stop, pause=0.0):
    for number in range(stop):
        yield number
        time.sleep(pause)


@app.function()
async def count_async(stop):
    for number in range(stop):
        yield number
        await asyncio.sleep(0)


@app.function()
def breaks(after):
    for number in range(after):
        yield number
    raise ValueError(f"broke after {after}")


@app.function()
def endless():
    try:
        for number in itertools.count():
            yield number
    finally:
        print("the generator was closed", flush=True)


@app.function()
def large(sizes):
    for size in sizes:
        yield bytes(size)


@app.function()
def returns_a_generator():
    return (number for number in range(3))


@app.function()
def outer(stop):
    for number in count.remote_gen(stop):
        yield number * 10


@app.cls()
class Counter:
    start: int = alight.parameter(default=0)

    @alight.method()
    def up(self, stop):
        yield from range(self.start, stop)
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("generators"), "test-generators", FUNCTIONS)


def test_items_of_every_kind_of_generator(script):
    assert script("""
        async def over(generator):
            return [item async for item in generator]
        answer = {
            "sync": list(count.remote_gen(5)),
            "async": list(count_async.remote_gen(5)),
            "empty": list(count.remote_gen(0)),
            "aio": asyncio.run(over(count.remote_gen.aio(3))),
            "method": list(Counter(start=2).up.remote_gen(5)),
            "nested": list(outer.remote_gen(4)),
            "many": sum(count.remote_gen(5_000)),
            "large": [len(item) for item in large.remote_gen([10, 3_000_000, 0, 5_000_000, 7])],
        }
    """) == {
        "sync": [0, 1, 2, 3, 4],
        "async": [0, 1, 2, 3, 4],
        "empty": [],
        "aio": [0, 1, 2],
        "method": [2, 3, 4],
        "nested": [0, 10, 20, 30],
        "many": 5_000 * 4_999 // 2,
        "large": [10, 3_000_000, 0, 5_000_000, 7],
    }


def test_items_come_as_they_are_yielded(script):
    began, ended = script("""
        list(count.remote_gen(1))
        began, times = time.monotonic(), []
        for item in count.remote_gen(4, 0.4):
            times.append(time.monotonic() - began)
        answer = [times[0], times[-1]]
    """)
    assert began < 0.4, "the first item waited for the second"
    assert ended > 1.1


def test_an_exception_comes_after_the_items_before_it(script):
    assert script("""
        seen = []
        def go():
            for item in breaks.remote_gen(3):
                seen.append(item)
        answer = [raised(go), seen]
    """) == [["ValueError", "broke after 3"], [0, 1, 2]]


def test_a_reader_that_stops_ends_the_generator(script):
    answer, lines = script.output("""
        seen = []
        for item in endless.remote_gen():
            seen.append(item)
            if len(seen) == 3:
                break
        answer = [seen, quiet(endless)]
    """)
    assert answer == [[0, 1, 2], True]
    assert "the generator was closed" in lines


@pytest.mark.slow
def test_a_fast_generator_waits_for_a_slow_reader(script):
    answer = script("""
        items = endless.remote_gen()
        first = [next(items) for _ in range(3)]
        time.sleep(3)
        rest = [next(items) for _ in range(3)]
        items.close()
        answer = [first, rest, quiet(endless)]
    """)
    assert answer == [[0, 1, 2], [3, 4, 5], True]


def test_the_wrong_verb_names_the_right_one(script):
    answer = script("""
        answer = [raised(count.remote, 3), raised(list, returns_a_generator.remote_gen()),
                  raised(returns_a_generator.remote)]
    """)
    assert answer[0][0] == "InvalidError"
    assert "remote_gen" in answer[0][1]
    assert answer[1][0] == "InvalidError"
    assert answer[2][0] in {"InvalidError", "SerializationError"}, answer[2]
