"""Generators, spawned calls and their handles; what an interrupt does to a call under way."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
import time

import pytest

import alight
from alight.sdk.call import Callee
from alight.sdk.mapping import Mapped
from alight.types import InputStatus
from alight.wire import calling, chunk, errors, payload
from alight.wire.failure import Failure

FUNCTION = "fu-" + "0" * 22
CALL = "fc-" + "0" * 22


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to pass"
        time.sleep(0.002)


def items(asked, first, values):
    bodies = [payload.dumps_bytes(value) for value in values]
    numbers = range(first, first + len(bodies))
    asked.say_chunk(chunk.Outputs(CALL, numbers, list(map(len, bodies)), flags=chunk.ITEMS), b"".join(bodies))


def ends(asked, count):
    asked.answer(calling.CallUpdate(CALL, "done", status="success", items=count))


def fails(asked, error):
    failure = Failure(f"builtins.{type(error).__name__}", str(error), pickled=True)
    asked.answer(calling.CallUpdate(CALL, "done", status="exception", failure=failure), payload.dumps_bytes(error))


@pytest.fixture
def f(far, client):
    far.answers["call.cancel"] = lambda asked: asked.answer()
    return alight.Function.from_id(FUNCTION, client=client)


def test_items_come_as_they_are_yielded(far, f):
    gate = threading.Event()

    def start(asked):
        items(asked, 0, ["a", "b"])

        def later():
            gate.wait(10)
            items(asked, 2, ["c"])
            ends(asked, 3)

        threading.Thread(target=later).start()

    far.answers["call.start"] = start
    generated = f.remote_gen("x", y=2)
    assert far.methods() == []
    assert [next(generated), next(generated)] == ["a", "b"]
    gate.set()
    assert list(generated) == ["c"]
    (asked,) = far.of("call.start")
    assert (asked.args["verb"], payload.loads(asked.body)) == ("remote_gen", (("x",), {"y": 2}))


def test_items_on_an_event_loop(far, f):
    def start(asked):
        items(asked, 0, range(50))
        ends(asked, 50)

    far.answers["call.start"] = start

    async def main():
        return [item async for item in f.remote_gen.aio()]

    assert asyncio.run(main()) == list(range(50))


def test_an_exception_in_the_middle_comes_after_the_items_before_it(far, f):
    def start(asked):
        items(asked, 0, [1, 2])
        fails(asked, KeyError("late"))

    far.answers["call.start"] = start
    generated = f.remote_gen()
    assert [next(generated), next(generated)] == [1, 2]
    with pytest.raises(KeyError, match="late"):
        next(generated)


def test_leaving_a_generator_cancels_it(far, f):
    far.answers["call.start"] = lambda asked: items(asked, 0, [1, 2, 3])
    for _ in f.remote_gen():
        break
    until(lambda: far.of("call.cancel"))
    assert far.of("call.cancel")[0].args["call_id"] == far.of("call.start")[0].args["call_id"]


def test_a_generator_goes_on_after_a_lost_connection_without_an_item_twice(far, f):
    def start(asked):
        if not asked.args.get("resend"):
            items(asked, 0, [0, 1, 2])
            asked.break_off()
            return
        assert asked.args["items"] == 3
        items(asked, 2, [2, 3])  # one that was sent before: frames may come twice
        ends(asked, 4)

    far.answers["call.start"] = start
    assert list(f.remote_gen()) == [0, 1, 2, 3]
    first, second = far.of("call.start")
    assert (first.args["call_id"], first.body) == (second.args["call_id"], second.body)


def test_a_slow_reader_is_not_overrun(far, f):
    """What is not read is not acknowledged on the wire, so a fast generator has to wait for its reader."""
    asked = []
    far.answers["call.start"] = asked.append
    generated = f.remote_gen()
    got = []
    reader = threading.Thread(target=lambda: got.append(next(generated)))
    reader.start()
    until(lambda: asked)
    f.client.carrier.ensure_background()  # as a running app has it: the socket is read while the user's code runs
    piece, sent = payload.dumps_bytes(bytes(60_000)), 0
    wire = asked[0]._end._wire
    while wire.may_send(asked[0].number):
        asked[0].say_chunk(chunk.Outputs(CALL, range(sent, sent + 1), [len(piece)], flags=chunk.ITEMS), piece)
        sent += 1
    reader.join(10)
    assert got == [bytes(60_000)]
    assert sent * len(piece) < 32 << 20
    generated.close()


def test_what_is_no_generator_says_so(far, f):
    far.answers["call.start"] = lambda asked: asked.value(CALL, payload.dumps_bytes(1))
    with pytest.raises(errors.InvalidError, match="not a generator"):
        next(f.remote_gen())
    far.answers["call.start"] = lambda asked: ends(asked, 0)
    with pytest.raises(errors.InvalidError, match="is a generator"):
        f.remote()


def dropped(f):
    f.remote_gen()
    gc.collect()


def test_forgetting_a_generator_is_told(f):
    with pytest.warns(RuntimeWarning, match="never iterated"):
        dropped(f)


def test_the_first_failure_of_a_gathering_is_raised_while_others_still_run(far, client):
    """A failure that is known is not worth waiting an hour for."""

    def result(asked):
        if asked.args["call_id"].endswith("1"):
            fails(asked, ValueError("first"))

    far.answers["call.result"] = result
    calls = [alight.FunctionCall.from_id(CALL[:-1] + digit, client) for digit in "012"]
    with pytest.raises(ValueError, match="first"):
        alight.FunctionCall.gather(*calls)


def test_a_gathering_survives_a_restart_and_keeps_the_order(far, client):
    asked_first = []

    def result(asked):
        if len(asked_first) < 3:
            asked_first.append(asked)
            if len(asked_first) == 3:
                asked.break_off()
            return
        asked.value(asked.args["call_id"], payload.dumps_bytes(asked.args["call_id"][-1]))

    far.answers["call.result"] = result
    calls = [alight.FunctionCall.from_id(CALL[:-1] + digit, client) for digit in "012"]
    assert alight.FunctionCall.gather(*calls) == ["0", "1", "2"]
    assert alight.FunctionCall.gather() == []

    async def main():
        return await alight.FunctionCall.gather.aio(*calls)

    assert asyncio.run(main()) == ["0", "1", "2"]


def test_a_call_graph_is_a_tree_of_inputs(far, client):
    def one(number, parent, status, call=CALL):
        return {
            "input_id": f"in-{number}", "call_id": call, "container": "ta-1", "status": status,
            "function": "f", "module": "m", "parent": parent,
        }  # fmt: skip

    graph = calling.CallGraph(
        CALL, (one(1, "", "success"), one(2, "", ""), one(3, "in-1", "exception", "fc-2"), one(4, "in-3", "cancelled"))
    )
    far.answers["call.graph"] = lambda asked: asked.answer(graph)
    first, second = alight.FunctionCall.from_id(CALL, client).get_call_graph()
    assert (first.input_id, first.status, second.status) == ("in-1", InputStatus.SUCCESS, InputStatus.PENDING)
    (child,) = first.children
    assert (child.function_call_id, child.status, child.task_id) == ("fc-2", InputStatus.FAILURE, "ta-1")
    assert child.children[0].status == InputStatus.TERMINATED


def test_a_handle_travels_without_its_client(client):
    call = alight.FunctionCall.from_id(CALL, client)
    again = pickle.loads(pickle.dumps(call))
    assert again.object_id == CALL
    assert again.client is None


def test_containers_can_be_ended_with_a_call(far, f, client):
    alight.FunctionCall.from_id(CALL, client).cancel(terminate_containers=True)
    assert far.of("call.cancel")[0].args["terminate_containers"] is True


def test_a_spawn_whose_connection_breaks_is_sent_again_by_id(far, f):
    def start(asked):
        if not asked.args.get("resend"):
            asked.break_off()
        else:
            asked.answer(calling.CallUpdate(asked.args["call_id"], "accepted", accepted=1))

    far.answers["call.start"] = start
    call = f.spawn(1)
    first, second = far.of("call.start")
    assert first.args["call_id"] == second.args["call_id"] == call.object_id
    assert (first.args["wait"], first.args["verb"]) == (False, "spawn")


def test_arrays_beside_the_pickle_stream_arrive_writable(far, f):
    class Raw:
        def __init__(self, data):
            self.data = data

        def __reduce_ex__(self, _protocol):
            return memoryview, (pickle.PickleBuffer(self.data),)

    far.answers["call.start"] = lambda asked: asked.value(CALL, payload.dumps_bytes(Raw(bytearray(b"abc"))))
    found = f.remote()
    found[0] = 0
    assert found == b"\0bc"


@pytest.mark.parametrize("detached", [False, True])
def test_ctrl_c_cancels_a_map_unless_its_app_lives_on(far, f, client, detached, monkeypatch):
    from alight.sdk import inputs

    class Running:
        detach = detached

    far.answers["call.start"] = lambda asked: None
    callee = Callee(client, FUNCTION, "f", None, Running())
    source = inputs.Source([[1, 2]], {})
    mapped = Mapped(callee, source, "map", ordered=True, return_exceptions=False)

    async def interrupted(within=None):
        raise KeyboardInterrupt

    monkeypatch.setattr(mapped, "_receive", interrupted)
    from alight.sdk.sync import run

    with pytest.raises(KeyboardInterrupt):
        run(mapped.more())
    assert run(mapped.more()) is None
    until(lambda: far.of("call.start")[0].error is not None)
    assert len(far.of("call.cancel")) == (0 if detached else 1)
    assert client.held_calls == set()


def test_what_the_server_refuses_is_raised_by_the_map(far, f):
    far.answers["call.start"] = lambda asked: asked.fail(errors.ResourceExhaustedError("the disk is full"))
    with pytest.raises(errors.ResourceExhaustedError, match="disk is full"):
        list(f.map(range(10_000)))
    with pytest.raises(errors.ResourceExhaustedError, match="disk is full"):
        f.spawn_map(range(10_000))
