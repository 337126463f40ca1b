"""One connection: whoever waits reads, bodies are flow-controlled, a broken state is never used again."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest

from alight.sdk.carrier import LostError
from alight.sdk.sync import run
from alight.wire import errors
from alight.wire.codec import loads_head
from alight.wire.messages import BlobGet, BlobPut, ServerInfo


def _echo(asked):
    asked.answer({"digest": asked.args.get("digest", "")}, asked.body)


def test_a_request_and_its_answer(far, client):
    far.answers["echo"] = _echo
    answer = run(client.call("echo", BlobPut("abc"), BlobPut, b"body"))
    assert answer.digest == "abc"
    assert far.hellos[0]["wire"] == 1
    assert threading.active_count() < 10
    assert client.carrier._background is None  # whoever waits reads: nobody else is needed


def test_errors_come_back_as_their_own_type(far, client):
    far.answers["echo"] = lambda asked: asked.fail(errors.NotFoundError("no such thing", hint="look elsewhere"))
    with pytest.raises(errors.NotFoundError, match="no such thing") as caught:
        run(client.call("echo", {}, BlobPut))
    assert caught.value.hint == "look elsewhere"


def test_many_threads_share_one_connection(far, client):
    held = []
    gate = threading.Event()

    def answer(asked):
        held.append(asked)
        if len(held) == 8:
            for one in reversed(held):
                one.answer({"digest": one.args["digest"]})
            gate.set()

    far.answers["echo"] = answer
    results = {}

    def ask(number):
        results[number] = run(client.call("echo", BlobPut(str(number)), BlobPut)).digest

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert results == {number: str(number) for number in range(8)}
    assert len(far.ends) == 1


def test_a_leader_that_leaves_hands_on(far, client):
    """A second caller must not sleep for ever when the one who read for both has got its answer."""
    asked_late = []
    far.answers["early"] = _echo
    far.answers["late"] = asked_late.append
    run(client.call("early", {}, BlobPut))
    done = []
    late = threading.Thread(target=lambda: done.append(run(client.call("late", BlobPut("x"), BlobPut)).digest))
    late.start()
    while not asked_late:
        time.sleep(0.001)
    early = threading.Thread(target=lambda: run(client.call("early", {}, BlobPut)))
    early.start()
    early.join(5)
    asked_late[0].answer({"digest": "x"})
    late.join(5)
    assert done == ["x"]


def test_aio_uses_the_background_reader(far, client):
    far.answers["echo"] = _echo

    async def main():
        from alight.sdk.sync import in_loop

        async def one(number):
            return (await in_loop(client.call("echo", BlobPut(str(number)), BlobPut))).digest

        return await asyncio.gather(*[one(number) for number in range(20)])

    assert asyncio.run(main()) == [str(number) for number in range(20)]


def test_large_bodies_wait_for_credit_and_arrive_whole(far, client):
    data = bytes(range(256)) * (1 << 16)  # 16 MiB, twice the window
    far.at_end["blob.put"] = lambda asked: asked.answer(BlobPut("d", size=sum(map(len, asked.pieces))))

    async def put():
        stream = await client.open("blob.put", BlobPut("d"), end=False)
        for start in range(0, len(data), 1 << 20):
            await stream.send(None, data[start : start + (1 << 20)])
        stream.end()
        answer = await stream.recv()
        return loads_head(BlobPut, answer[0]).size

    assert run(put()) == len(data)
    assert b"".join(far.of("blob.put")[0].pieces) == data


def test_a_stream_ends_with_none_and_can_be_left(far, client):
    def pieces(asked):
        for number in range(3):
            asked.say({}, bytes([number]))
        asked.end()

    far.answers["blob.get"] = pieces

    async def get():
        stream = await client.open("blob.get", BlobGet("d"))
        got = []
        while True:
            message = await stream.recv()
            if message is None:
                return got
            got.append(message[1])

    assert run(get()) == [b"\0", b"\1", b"\2"]
    far.answers["blob.get"] = lambda asked: None
    stream = run(client.open("blob.get", BlobGet("d")))
    with pytest.raises(errors.BuiltinTimeoutError):
        run(stream.recv_within(0.01))
    stream.leave()


def test_a_lost_connection_is_replaced_and_the_request_sent_again(far, client):
    calls = []

    def answer(asked):
        calls.append(asked)
        if len(calls) == 1:
            far.ends[0].break_off()
        else:
            _echo(asked)

    far.answers["echo"] = answer
    assert run(client.call("echo", BlobPut("again"), BlobPut)).digest == "again"
    assert len(far.ends) == 2


def test_another_server_at_the_same_place_is_refused(far, client):
    far.answers["echo"] = _echo
    run(client.call("echo", {}, BlobPut))
    far.server_id = "sv-other"
    far.answers["echo"] = lambda asked: far.ends[0].break_off()
    with pytest.raises(errors.ConnectionError, match="another server"):
        run(client.call("echo", {}, BlobPut))


def test_a_version_too_far_is_one_sentence(far, client):
    far.wire = 9
    with pytest.raises(errors.VersionError, match="do not understand each other"):
        run(client.call("echo", {}, BlobPut))


def test_a_refused_greeting_is_the_servers_own_error(far, client):
    far.refuse = errors.AuthError("this token is not known here")
    with pytest.raises(errors.AuthError, match="not known here"):
        run(client.call("echo", {}, BlobPut))


def test_an_interrupt_while_reading_gives_the_connection_up(far, client):
    """Bytes that were taken and not handed on would leave every later message in the wrong place."""
    far.answers["echo"] = _echo
    run(client.call("echo", {}, BlobPut))
    carrier = client.carrier

    def interrupted(_event):
        raise KeyboardInterrupt

    carrier._dispatch = interrupted
    with pytest.raises(KeyboardInterrupt):
        run(client.call("echo", {}, BlobPut))
    assert isinstance(carrier.lost, LostError)
    assert run(client.call("echo", BlobPut("fresh"), BlobPut)).digest == "fresh"


def test_a_closed_client_says_so(client):
    client.close()
    assert client.is_closed()
    with pytest.raises(errors.ClientClosed):
        run(client.call("server.info", {}, ServerInfo))


@pytest.mark.parametrize(("method", "parent"), [("", ""), ("größe", ""), ("fit", "in-0"), ("", "in-0")])
def test_the_quick_head_of_a_call_is_the_codecs(method, parent):
    """The plainest call is encoded by hand for speed; this holds the two to one form."""
    from alight.sdk.client import encode_open, encode_start
    from alight.wire.calling import CallStart
    from alight.wire.messages import Open

    start = CallStart("fc-1", "fu-1", method=method, parent_input=parent)
    quick = encode_start("fu-1", "fc-1", method, parent)
    assert json.loads(quick) == json.loads(encode_open("call.start", start))
    assert loads_head(CallStart, _args(quick)) == start
    assert loads_head(Open, quick).method == "call.start"


def _args(head):
    return json.dumps(json.loads(head)["args"]).encode()
