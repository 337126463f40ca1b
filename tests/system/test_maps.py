"""Many inputs of one call: order, laziness, failures, iterators that never end, and memory that stays."""

from __future__ import annotations

import pytest

from tests.system.scripted import Script

FUNCTIONS = """
@app.function()
def double(x):
    return 2 * x


@app.function()
def add(a, b):
    return a + b


@app.function()
def nap(seconds):
    time.sleep(seconds)
    return seconds


@app.function()
def refuse(x, bad):
    if x in bad:
        raise ValueError(f"no {x} here")
    return x


@app.function()
def nap_unless(x):
    if x == 0:
        raise ValueError("the first")
    time.sleep(30)


@app.function(max_containers=2)
def size(data):
    return len(data)


@app.function(max_containers=2)
def fill(count):
    return bytes(count)
"""


@pytest.fixture(scope="module")
def script(machine, tmp_path_factory) -> Script:
    return Script(machine, tmp_path_factory.mktemp("maps"), "test-maps", FUNCTIONS)


def test_the_verbs(script):
    assert script("""
        answer = {
            "map": list(double.map(range(10))),
            "shortest": list(add.map([1, 2, 3], iter([10, 20]))),
            "kwargs": list(add.map([1, 2], kwargs={"b": 5})),
            "starmap": list(add.starmap([(1, 2), (3, 4)])),
            "as completed": sorted(double.map(range(10), order_outputs=False)),
            "for_each": double.for_each(range(3)),
            "empty": list(double.map([])),
            "nothing to unpack": list(double.starmap(iter([]))),
        }
    """) == {
        "map": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
        "shortest": [11, 22],
        "kwargs": [6, 7],
        "starmap": [3, 7],
        "as completed": [0, 2, 4, 6, 8, 10, 12, 14, 16, 18],
        "for_each": None,
        "empty": [],
        "nothing to unpack": [],
    }


def test_order_is_kept_or_not_as_asked(script):
    answer = script("""
        naps = [1.0, 0.01, 0.02, 0.03]
        answer = [list(nap.map(naps)), list(nap.map(naps, order_outputs=False))]
    """)
    assert answer[0] == [1.0, 0.01, 0.02, 0.03]
    assert sorted(answer[1]) == sorted(answer[0])
    assert answer[1][-1] == 1.0, "the slow one was waited for, though as-completed was asked for"


def test_twenty_thousand_come_once_and_in_order(script):
    assert script("""
        expected = 0
        for value in double.map(range(20_000)):
            assert value == 2 * expected, (value, expected)
            expected += 1
        answer = [expected, sum(double.map(range(20_000), order_outputs=False))]
    """) == [20_000, 20_000 * 19_999]


def test_an_exception_is_raised_at_its_turn_with_its_own_type(script):
    assert script("""
        seen = []
        def go():
            for value in refuse.map(range(6), kwargs={"bad": [3]}):
                seen.append(value)
        answer = [raised(go), seen]
    """) == [["ValueError", "no 3 here"], [0, 1, 2]]


def test_exceptions_as_results(script):
    answer = script("""
        found = list(refuse.map(range(5), kwargs={"bad": [1, 4]}, return_exceptions=True))
        answer = [[type(one).__name__, str(one)] for one in found]
        answer.append(raised(refuse.for_each, range(4), kwargs={"bad": [2]}))
        answer.append(refuse.for_each(range(4), kwargs={"bad": [2]}, ignore_exceptions=True))
    """)
    assert answer == [
        ["int", "0"],
        ["ValueError", "no 1 here"],
        ["int", "2"],
        ["int", "3"],
        ["ValueError", "no 4 here"],
        ["ValueError", "no 2 here"],
        None,
    ]


def test_an_exception_cancels_the_rest(script):
    answer = script("""
        began = time.monotonic()
        answer = [raised(list, nap_unless.map(range(4))), quiet(nap_unless), time.monotonic() - began]
    """)
    assert answer[:2] == [["ValueError", "the first"], True]
    assert answer[2] < 15, "inputs of half a minute went on"


def test_nothing_is_sent_until_somebody_reads(script):
    assert script("""
        import warnings
        pulled = []
        def source():
            for number in range(3):
                pulled.append(number)
                yield number
        lazy = double.map(source())
        time.sleep(0.3)
        before = list(pulled)
        first = next(lazy)
        rest = list(lazy)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            double.map([1])
            import gc
            gc.collect()
        answer = [before, first, rest, pulled, len(told) > 0]
    """) == [[], 0, [2, 4], [0, 1, 2], True]


def test_an_iterator_without_end_and_a_reader_that_stops(script):
    answer = script("""
        pulled = 0
        def source():
            global pulled
            for pulled in itertools.count():
                yield pulled
        seen = []
        for value in double.map(source()):
            seen.append(value)
            if len(seen) == 5:
                break
        stopped = quiet(double)
        at = pulled
        time.sleep(0.5)
        answer = [seen, stopped, at, pulled - at]
    """)
    assert answer[:2] == [[0, 2, 4, 6, 8], True]
    assert answer[2] < 100_000, "an unread map took inputs without a bound"
    assert answer[3] <= 1, "inputs were taken after the reader had left"


@pytest.mark.slow
def test_a_reader_that_pauses_holds_up_the_iterator(script):
    answer = script("""
        pulled = 0
        def source():
            global pulled
            for pulled in range(1_000_000):
                yield pulled
        results = double.map(source())
        next(results)
        seen = -1
        while pulled != seen:
            seen = pulled
            time.sleep(1)
        answer = [pulled, next(results), next(results)]
        results.close()
    """)
    assert answer[0] < 20_000, "a reader that pauses must bound what is on its way"
    assert answer[1:] == [2, 4]


def test_each_input_may_be_made_of_the_output_before(script):
    """A lone input leaves at once: whoever gathers chunks must not wait for company."""
    answer = script("""
        import queue
        back = queue.Queue()
        def source():
            value = 1
            for _ in range(20):
                yield value
                value = back.get()
        began = time.monotonic()
        seen = []
        for value in double.map(source()):
            seen.append(value)
            back.put(value)
        answer = [seen[-1], time.monotonic() - began]
    """)
    assert answer[0] == 2**20
    assert answer[1] < 5


def test_an_iterator_that_raises_says_so_to_the_reader(script):
    assert script("""
        def source():
            yield 1
            yield 2
            raise KeyError("out of inputs")
        answer = [raised(list, double.map(source())), quiet(double)]
    """) == [["KeyError", "'out of inputs'"], True]


def test_async_twins(script):
    assert script("""
        async def numbers(count):
            for number in range(count):
                await asyncio.sleep(0)
                yield number

        async def go():
            found = {}
            found["map"] = [value async for value in double.map.aio(numbers(5))]
            found["plain"] = [value async for value in double.map.aio(range(3))]
            found["starmap"] = [value async for value in add.starmap.aio([(1, 2)])]
            found["two"] = [value async for value in add.map.aio(numbers(3), [10, 20, 30])]
            found["for_each"] = await double.for_each.aio(numbers(2))
            found["gather"] = await asyncio.gather(*(double.remote.aio(n) for n in range(8)))
            first = []
            async for value in double.map.aio(itertools.count()):
                first.append(value)
                if len(first) == 3:
                    break
            found["break"] = first
            return found

        answer = asyncio.run(go())
        answer["sync over async"] = list(double.map(numbers(4)))
        answer["quiet"] = quiet(double)
    """) == {
        "map": [0, 2, 4, 6, 8],
        "plain": [0, 2, 4],
        "starmap": [3],
        "two": [10, 21, 32],
        "for_each": None,
        "gather": [0, 2, 4, 6, 8, 10, 12, 14],
        "break": [0, 2, 4],
        "sync over async": [0, 2, 4, 6],
        "quiet": True,
    }


def test_large_inputs_and_outputs_beside_small_ones(script):
    assert script("""
        sizes = [3, 5_000_000, 10, 3_000_000, 0, 100_000]
        answer = [
            list(size.map(bytes(count) for count in sizes)),
            [len(value) for value in fill.map(sizes)],
        ]
    """) == [[3, 5_000_000, 10, 3_000_000, 0, 100_000], [3, 5_000_000, 10, 3_000_000, 0, 100_000]]


@pytest.mark.slow
def test_maps_of_several_threads(script):
    assert script("""
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as pool:
            answer = list(pool.map(lambda n: sum(double.map(range(n, n + 200))), range(4)))
    """) == [sum(2 * x for x in range(n, n + 200)) for n in range(4)]


@pytest.mark.slow
def test_memory_follows_the_window_and_not_the_count(script):
    """Half a million inputs: what the client holds at most beside a map of five thousand."""
    answer = script(
        """
        def peak():
            for line in open("/proc/self/status"):
                if line.startswith("VmHWM"):
                    return int(line.split()[1])
        sum(double.map(range(30_000)))
        before = peak()
        total = sum(double.map(range(500_000)))
        answer = [total, peak() - before]
    """,
        timeout=240,
    )
    assert answer[0] == 500_000 * 499_999
    assert answer[1] < 30_000, f"the client grew by {answer[1]} KiB"
