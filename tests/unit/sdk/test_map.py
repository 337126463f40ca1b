"""Calls with many inputs: what users see of map and its kin, and what the server sees of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import sys
import threading
import time

import pytest

import alight
from alight.sdk import inputs, progress, sending
from alight.wire import calling, chunk, errors
from alight.wire.codec import MAX_INLINE
from tests.unit.sdk.callserver import CallServer

FUNCTION = "fu-" + "0" * 22


def square(x, plus=0):
    if x == "bad":
        raise ValueError("bad input")
    return x * x + plus


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


@pytest.fixture
def server(far):
    return CallServer(far, square)


@pytest.fixture
def f(client, server):
    """A handle of ``square``, by id."""
    return alight.Function.from_id(FUNCTION, client=client)


def test_results_come_in_the_order_of_the_inputs(f, server):
    assert list(f.map(range(1000))) == [square(x) for x in range(1000)]
    assert server.call.start.verb == "map"
    until(lambda: server.call.total == 1000)
    assert not server.call.cancelled


def test_nothing_to_do_is_done_at_once(f):
    assert list(f.map([])) == []


def test_iterators_are_zipped_to_the_shortest_and_kwargs_go_to_each(f):
    assert list(f.map([1, 2, 3], itertools.count(10))) == [11, 15, 21]
    assert list(f.map(iter([1, 2]), kwargs={"plus": 5})) == [6, 9]
    assert list(f.starmap([(1, 2), [3, 4]])) == [3, 13]


def test_answers_in_any_order_are_put_in_order(f, server):
    """Positions that are scattered over frames, and frames that come backwards."""
    server.order = lambda positions: [positions[1::2], positions[0::2][::-1], []][:2]
    assert list(f.map(range(700))) == [square(x) for x in range(700)]


def test_unordered_results_come_as_they_come(f, server):
    server.order = lambda positions: [[position] for position in reversed(positions)]
    assert list(f.map([1, 2, 3], order_outputs=False)) == [9, 4, 1]


def test_nothing_happens_before_somebody_asks_and_forgetting_to_is_told(f, server):
    def drop():
        assert f.map([1, 2]) is not None
        gc.collect()

    with pytest.warns(RuntimeWarning, match=r"map\(…\) was never iterated: nothing was run"):
        drop()
    assert server.calls == {}
    closed = f.map([1])
    closed.close()
    del closed


def test_an_exception_is_raised_at_its_turn_and_cancels_the_rest(f, server):
    results = f.map([1, 2, "bad", *range(3)])
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(ValueError, match="bad input"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)
    until(lambda: server.call.cancelled)


def test_exceptions_can_be_had_as_results(f, server):
    found = list(f.map([1, "bad", 3], return_exceptions=True))
    assert (found[0], found[2]) == (1, 9)
    assert type(found[1]) is ValueError
    assert not server.call.cancelled
    with pytest.warns(errors.DeprecationError, match="bare"):
        assert list(f.map([2], wrap_returned_exceptions=True)) == [4]


def test_a_value_that_cannot_be_read_here_is_a_failure_of_its_own(f, server):
    class Odd:
        def __reduce__(self):
            return (int, ("not a number",))

    server.function = lambda x: Odd() if x == 1 else x
    found = list(f.map(range(3), return_exceptions=True))
    assert (found[0], found[2]) == (0, 2)
    assert isinstance(found[1], errors.DeserializationError)
    with pytest.raises(errors.DeserializationError):
        list(f.map(range(3)))


def test_what_an_iterator_raises_comes_after_the_results_before_it(f, server):
    def broken():
        yield 1
        yield 2
        raise KeyError("mine")

    results = f.map(broken())
    assert [next(results), next(results)] == [1, 4]
    with pytest.raises(KeyError, match="mine"):
        next(results)
    until(lambda: server.call.cancelled)


def test_an_argument_that_cannot_be_pickled_is_named(f):
    with pytest.raises(errors.SerializationError, match="the argument 1 of"):
        list(f.map([threading.Lock()]))


def test_an_endless_iterator_is_pulled_no_further_than_the_window(f, server):
    pulled = []

    def endless():
        for number in itertools.count():
            pulled.append(number)
            yield number

    for result in f.map(endless()):
        if result >= 100:
            break
    until(lambda: server.call.cancelled)
    assert len(pulled) <= sending.WINDOW + 2 * chunk.MOST
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "alight-inputs"])


@pytest.mark.parametrize("ordered", [True, False])
def test_the_window_bounds_what_is_under_way_and_kept(f, server, ordered, monkeypatch):
    """The first input is answered last: an ordered map stops at the window, both keep memory for a window alone."""
    monkeypatch.setattr(sending.Sending.__init__, "__defaults__", (512,))
    server.order = lambda positions: [positions[1:] if positions[0] == 0 else positions]
    results = f.map(range(5000), order_outputs=ordered)
    got = []
    reader = threading.Thread(target=lambda: got.extend(results))
    reader.start()
    until(lambda: server.calls and (len(server.call.inputs) == (512 if ordered else 5000)))
    time.sleep(0.05)
    assert len(server.call.inputs) == (512 if ordered else 5000)
    asked = server_stream(server)
    server._say(asked, server.call, [0])
    reader.join(10)
    assert sorted(got) == [square(x) for x in range(5000)]
    assert (got == sorted(got)) == ordered


def server_stream(server):
    """The stream of the one call, to say something on it."""
    return server.far.of("call.start")[-1]


@pytest.fixture(autouse=True)
def _far_of_server(server, far):
    server.far = far


def test_bytes_bound_the_window_too(f, server, monkeypatch):
    monkeypatch.setattr(sending, "WINDOW_BYTES", 1 << 20)
    server.answers = False
    results = f.map(bytes(100_000) for _ in range(100))

    def read():
        with contextlib.suppress(errors.ClientClosed):  # when the test is over
            next(results)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    until(lambda: server.calls and len(server.call.inputs) >= 10)
    time.sleep(0.05)
    assert len(server.call.inputs) <= 16
    f.client.shut()
    reader.join(10)


def test_a_lone_input_of_a_slow_iterator_leaves_at_once(f, server):
    """Whoever produces inputs slowly wants each to run while the next is made."""
    gate = threading.Event()

    def slow():
        yield 1
        yield 2
        gate.wait(10)
        yield 3

    results = f.map(slow())
    assert [next(results), next(results)] == [1, 4]
    gate.set()
    assert list(results) == [9]


def test_many_small_inputs_share_chunks(f, server):
    list(f.map(range(10_000)))
    assert len(server.chunks) < 10_000 / 20
    assert all(len(one.sizes) <= chunk.MOST // 4 for one in server.chunks)


def test_large_inputs_travel_as_references_alone(f, server, far):
    far.at_end["blob.put"] = lambda asked: asked.answer({"digest": f"blob{sum(map(len, asked.pieces)) // MAX_INLINE}"})
    server.function = lambda x: x if isinstance(x, (bytes, int)) else 0
    found = list(f.map([1, b"x" * (MAX_INLINE + 1), 2]))
    assert found[0] == 1
    assert found[1].startswith(b"blob1:")
    assert found[2] == 2
    (large,) = [one for one in server.chunks if one.flags & chunk.REFERENCE]
    assert (large.start, len(large.sizes)) == (1, 1)


def test_large_results_are_fetched_at_their_turn(f, server, far):
    from alight.wire import payload

    data = payload.dumps_bytes(bytearray(b"big"))
    far.answers["blob.get"] = lambda asked: asked.answer({}, data)
    server.answers = False
    results = f.map([1])
    got = []
    reader = threading.Thread(target=lambda: got.extend(results))
    reader.start()
    until(lambda: server.calls and server.call.total == 1)
    body = chunk.reference("b", len(data))
    outputs = chunk.Outputs(server.call.start.call_id, range(1), [len(body)], flags=chunk.REFERENCE)
    server_stream(server).say_chunk(outputs, body)
    reader.join(10)
    assert got == [bytearray(b"big")]


def test_leaving_the_loop_cancels_and_ends_at_once(f, server):
    for _ in f.map(itertools.count()):
        break
    until(lambda: server.call.cancelled)
    until(lambda: server_stream(server).error is not None)


def test_on_an_event_loop_with_either_kind_of_iterator(f, server):
    async def numbers():
        for number in range(300):
            if not number % 100:
                await asyncio.sleep(0.001)
            yield number

    async def main():
        expected = [square(x) for x in range(300)]
        assert [x async for x in f.map.aio(range(300))] == expected
        assert [x async for x in f.map.aio(iter(range(300)))] == expected
        assert [x async for x in f.map.aio(numbers())] == expected
        assert [x async for x in f.map.aio(numbers(), range(2))] == [0, 2]
        assert [x async for x in f.starmap.aio((x,) for x in range(3))] == [0, 1, 4]
        await f.for_each.aio(numbers())
        async for _ in f.map.aio(numbers()):
            break

    asyncio.run(main())
    until(lambda: list(server.calls.values())[-1].cancelled)


def test_an_async_iterator_without_a_loop_gets_one(f):
    async def numbers():
        for number in range(3):
            await asyncio.sleep(0)
            yield number

    assert list(f.map(numbers())) == [0, 1, 4]


def test_an_async_iterators_exception_comes_through(f):
    async def broken():
        yield 1
        raise KeyError("mine")

    async def main():
        results = f.map.aio(broken())
        assert await results.__anext__() == 1
        with pytest.raises(KeyError, match="mine"):
            await results.__anext__()

    asyncio.run(main())


def test_cancelling_a_task_cancels_its_map(f, server):
    server.answers = False

    async def main():
        task = asyncio.create_task(f.for_each.aio(range(3)))
        while not server.calls or server.call.total is None:  # noqa: ASYNC110  the far side is a thread
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    until(lambda: server.call.cancelled)


def test_for_each_waits_for_all_and_raises_the_first_failure(f, server):
    assert f.for_each(range(500)) is None
    assert len(server.call.outputs) == 500
    server.calls.clear()
    with pytest.raises(ValueError, match="bad input"):
        f.for_each([1, "bad", 2])
    until(lambda: server.call.cancelled)
    server.calls.clear()
    f.for_each([1, "bad", 2], ignore_exceptions=True)
    assert len(server.call.outputs) == 3


def test_spawn_map_returns_once_all_inputs_are_kept(f, server):
    assert f.spawn_map(range(3000)) is None
    assert server.call.total == 3000
    assert server.call.start.wait is False
    assert server.call.outputs == {}


def test_a_spawn_of_any_number_keeps_a_bounded_part(f, server, monkeypatch):
    """The server says nothing until all are there, so it is asked what it has when there is no more room."""
    from alight.sdk import mapping

    monkeypatch.setattr(sending, "WINDOW_BYTES", 30_000)
    monkeypatch.setattr(mapping, "_ASK_AFTER", 0.01)
    f.spawn_map(itertools.repeat(1, 3000))
    assert server.call.total == 3000
    assert "call.show" in server.far.methods()


def test_a_call_with_many_inputs_has_a_handle(f, server, client):
    call = f.experimental_spawn_map([1, "bad", 3, 4], kwargs={"plus": 1})
    assert call.num_inputs() == 4
    assert call.get(index=2) == 10
    assert call.get() == 2
    assert list(call.iter(start=2)) == [10, 17]
    again = alight.FunctionCall.from_id(call.object_id, client)
    found = again.iter()
    assert next(found) == 2
    with pytest.raises(ValueError, match="bad input"):
        next(found)
    assert list(again.iter(start=2, end=3)) == [10]
    with pytest.raises(errors.NotFoundError):
        again.get(index=9)
    with pytest.raises(errors.InvalidError):
        again.get(index=-1)
    assert not server.call.cancelled


def test_results_of_a_long_call_are_read_a_window_at_a_time(f, server, monkeypatch):
    from alight.sdk import looking

    monkeypatch.setattr(looking, "WINDOW", 100)
    server.order = lambda positions: [positions[1::2], positions[::2]]
    call = f.experimental_spawn_map(range(250))
    assert list(call.iter()) == [square(x) for x in range(250)]
    assert list(call.iter(start=50, end=250)) == [square(x) for x in range(50, 250)]
    assert len(server.far.of("call.result")) <= 6


def test_what_cannot_be_iterated_is_refused_where_it_is_written(f):
    with pytest.raises(errors.InvalidError, match="not iterable"):
        f.map(5)
    with pytest.raises(errors.InvalidError, match="nothing to map over"):
        f.map()


def test_generators_and_web_functions_are_not_mapped():
    app = alight.App("a")

    def numbers():
        yield 1

    function = app.function(serialized=True)(numbers)
    with pytest.raises(errors.InvalidError, match="is a generator"):
        next(function.map([1]))
    with pytest.raises(errors.InvalidError, match="is a generator"):
        function.for_each([1])


def test_how_far_it_is_is_told_while_somebody_draws(f, server, monkeypatch):
    from alight.sdk import mapping

    monkeypatch.setattr(mapping, "_COUNT_EVERY", 0.0)
    told = []

    class Counting(progress.Silent):
        def counted(self, call, text):
            told.append(text)

    with progress.showing(Counting()):
        list(f.map(range(600)))
    assert any("600 of 600" in text for text in told)
    assert told[-1] == ""


def test_why_a_map_waits_is_told_until_something_comes(f, server, monkeypatch):
    from alight.sdk import waits

    monkeypatch.setattr(waits, "WONDER", 0.02)
    told = []

    class Telling(progress.Silent):
        def waiting(self, call, why):
            told.append(why)

    server.answers = False
    with progress.showing(Telling()):
        got = []
        reader = threading.Thread(target=lambda: got.extend(f.map([1, 2])))
        reader.start()
        until(lambda: server.calls and server.call.total == 2)
        stream = server_stream(server)
        stream.say(calling.CallUpdate(server.call.start.call_id, "waiting", why="no machine has a free GPU"))
        until(lambda: told)
        for position in range(2):
            server.run(server.call, position)
        server._say(stream, server.call, [0, 1])
        reader.join(10)
    assert got == [1, 4]
    assert told == ["no machine has a free GPU", ""]


def slow_numbers(count):
    for number in range(count):
        if not number % 50:
            time.sleep(0.005)
        yield number


def test_answers_that_wait_for_their_turn_count_too(f, server, monkeypatch):
    """One slow input must not have the results of all others pile up without end."""
    monkeypatch.setattr(sending, "WINDOW_BYTES", 1 << 20)
    server.function = lambda x: bytes(20_000)
    server.order = lambda positions: [positions[1:] if positions[0] == 0 else positions]
    results = f.map(number for number in slow_numbers(1000))
    got = []
    reader = threading.Thread(target=lambda: got.extend(results))
    reader.start()
    until(lambda: server.calls and len(server.call.inputs) >= 20)
    threading.Event().wait(0.1)
    assert len(server.call.inputs) < 700
    with server.lock:  # it still answers others, on the same connection
        server._say(server_stream(server), server.call, [0])
    reader.join(20)
    assert len(got) == 1000


def test_inside_a_container_only_waiting_is_told(f, server, monkeypatch):
    """The machine lends the caller's CPU to others while it waits, and not while the user's code runs."""
    from alight.wire import ambient

    told = []
    monkeypatch.setattr(ambient, "on_waiting", told.append)
    for _ in f.map(range(600)):
        assert told.count(True) == told.count(False)
    assert told.count(True) == told.count(False) > 0


def test_the_users_iterator_sees_the_input_that_it_runs_for(f):
    from alight.wire import ambient

    token = ambient.current_input_id.set("in-mine")
    seen = []

    def asking():
        seen.append(alight.current_input_id())
        yield 1

    try:
        list(f.map(asking()))
    finally:
        ambient.current_input_id.reset(token)
    assert seen == ["in-mine"]


def test_plain_containers_need_one_thread(f, server):
    """Nothing in a list can block, so nobody has to watch over what was put and not sent."""
    assert not inputs.Source([[1], range(3)], {}).blocks
    assert inputs.Source([iter([1])], {}).blocks
    assert sys.modules["alight.sdk.inputs"] is inputs
